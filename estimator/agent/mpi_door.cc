#include "estimator/agent/mpi_door.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr char kDoorName[] = "mpi.sock";
// A stand-in for each rank of the node, and a daemon for each other node.
constexpr size_t kMostCallers = 1024;

std::string Frame(const google::protobuf::MessageLite& message) {
  const std::string body = message.SerializeAsString();
  std::string frame(4, '\0');
  for (int i = 0; i < 4; ++i) frame[i] = static_cast<char>(body.size() >> (8 * i));
  return frame + body;
}

// A few bytes to a caller that reads: one that does not is none of ours.
void Send(const UniqueFd& fd, int code, const std::string& problem) {
  agent::MpiAnswer answer;
  answer.set_code(code);
  answer.set_problem(problem);
  const std::string frame = Frame(answer);
  [[maybe_unused]] const ssize_t sent = send(fd.get(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace

absl::StatusOr<MpiDoor> MpiDoor::Open(const NodeFolder& folder) {
  BASIN_ASSIGN_OR_RETURN(UniqueFd listener, ListenIn(folder, kDoorName));
  return MpiDoor(std::move(listener));
}

void MpiDoor::AddWaits(std::vector<pollfd>* waits) const {
  if (callers_.size() < kMostCallers) waits->push_back({listener_.get(), POLLIN, 0});
  for (const Caller& caller : callers_) waits->push_back({caller.fd.get(), POLLIN, 0});
}

void MpiDoor::Accept() {
  while (callers_.size() < kMostCallers) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd.get() < 0) return;
    ucred peer = {};
    socklen_t size = sizeof peer;
    const bool is_own = getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
    if (!is_own) continue;
    callers_.emplace_back();
    callers_.back().fd = std::move(fd);
  }
}

bool MpiDoor::Read(Caller* caller, std::vector<agent::MpiCall>* calls) {
  char bytes[16384];
  while (true) {
    const ssize_t got = read(caller->fd.get(), bytes, sizeof bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN;
    if (got == 0) return false;
    if (caller->call || !caller->reader.Take({bytes, static_cast<size_t>(got)}).ok()) return false;
    std::string text;
    if (!caller->reader.Next(&text)) continue;
    agent::MpiCall call;
    if (!call.ParseFromString(text) || call.body_case() == agent::MpiCall::BODY_NOT_SET) return false;
    caller->call = call;
    calls->push_back(std::move(call));
  }
}

std::vector<agent::MpiCall> MpiDoor::Poll() {
  Accept();
  std::vector<agent::MpiCall> calls;
  for (auto at = callers_.begin(); at != callers_.end();) {
    at = Read(&*at, &calls) ? std::next(at) : callers_.erase(at);
  }
  return calls;
}

void MpiDoor::AnswerRank(uint32_t rank, int code, const std::string& problem) {
  for (const Caller& caller : callers_) {
    if (caller.call && caller.call->has_rank() && caller.call->rank().rank() == rank) Send(caller.fd, code, problem);
  }
}

void MpiDoor::AnswerDaemon(uint32_t node, const std::string& problem) {
  for (const Caller& caller : callers_) {
    if (caller.call && caller.call->has_daemon() && caller.call->daemon().node() == node) Send(caller.fd, 1, problem);
  }
}

absl::StatusOr<agent::MpiAnswer> CallAgent(const std::string& node_folder, const agent::MpiCall& call) {
  NodeFolder folder;
  folder.path = node_folder;
  folder.fd = UniqueFd(open(node_folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.fd.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", node_folder));
  absl::StatusOr<UniqueFd> socket = ConnectIn(folder, kDoorName);
  // Many ranks begin at once: its backlog may be full for a moment.
  for (int tries = 0; absl::IsUnavailable(socket.status()) && tries < 100; ++tries) {
    usleep(50'000);
    socket = ConnectIn(folder, kDoorName);
  }
  BASIN_RETURN_IF_ERROR(socket.status());
  fcntl(socket->get(), F_SETFL, 0);  // this process has nothing else to do
  BASIN_RETURN_IF_ERROR(WriteAll(socket->get(), Frame(call), "to the agent of this node"));
  FrameReader reader;
  std::string text;
  while (!reader.Next(&text)) {
    char bytes[4096];
    const ssize_t got = read(socket->get(), bytes, sizeof bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return absl::UnavailableError("the agent of this node has gone");
    BASIN_RETURN_IF_ERROR(reader.Take({bytes, static_cast<size_t>(got)}));
  }
  agent::MpiAnswer answer;
  if (!answer.ParseFromString(text)) return absl::InternalError("the agent of this node has answered nonsense");
  return answer;
}

}  // namespace basin
