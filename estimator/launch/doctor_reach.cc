#include "estimator/launch/doctor_reach.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace basin {
namespace {

constexpr absl::Duration kConnectLimit = absl::Seconds(3);
constexpr size_t kMostPeers = 512;

struct Try {
  DoctorReached result;
  std::string nonce;
  UniqueFd fd;
  std::string got;
  bool connected = false;
  bool done = false;
};

// Its end is a reset: a connection that ends in order would keep the port from being held (PortHolder) for a minute.
void EndByReset(const UniqueFd& fd) {
  const linger at_once = {1, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

void End(DoctorReach how, const std::string& problem, Try* one) {
  one->result.how = how;
  one->result.problem = problem;
  one->done = true;
  one->fd.Close();
}

void EndWith(int error, Try* one) {
  DoctorReach how = DoctorReach::kUnreachable;
  if (error == ECONNREFUSED) how = DoctorReach::kRefused;
  if (error == ETIMEDOUT) how = DoctorReach::kTimedOut;
  End(how, std::strerror(error), one);
}

void Begin(Try* one) {
  addrinfo hints = {};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(one->result.address.c_str(), absl::StrCat(one->result.port).c_str(), &hints, &found);
  if (code != 0) return End(DoctorReach::kUnreachable, gai_strerror(code), one);
  one->fd = UniqueFd(socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  int error = one->fd.get() < 0 ? errno : 0;
  if (error == 0) {
    EndByReset(one->fd);
    if (connect(one->fd.get(), found->ai_addr, found->ai_addrlen) != 0) error = errno;
  }
  freeaddrinfo(found);
  if (error != 0 && error != EINPROGRESS) EndWith(error, one);
}

// Something has happened on its connection.
void GoOn(Try* one) {
  if (!one->connected) {
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(one->fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return EndWith(error, one);
    one->connected = true;
  }
  char bytes[256];
  const ssize_t got = recv(one->fd.get(), bytes, sizeof(bytes), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got < 0) return EndWith(errno, one);
  one->got.append(bytes, static_cast<size_t>(got));
  if (one->got == one->nonce) return End(DoctorReach::kAnswered, "", one);
  if (got == 0 || !absl::StartsWith(one->nonce, one->got)) {
    End(DoctorReach::kStranger, "another program answers there", one);
  }
}

[[noreturn]] void AnswerForever(const std::vector<UniqueFd>& listeners, const std::string& nonce) {
  std::deque<UniqueFd> peers;  // until they go away, for what is not yet read would be lost with a reset
  while (true) {
    std::vector<pollfd> waits;
    for (const UniqueFd& listener : listeners) waits.push_back({listener.get(), POLLIN, 0});
    for (const UniqueFd& peer : peers) waits.push_back({peer.get(), POLLIN, 0});
    if (poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) _exit(1);
    for (size_t i = waits.size(); i-- > listeners.size();) {
      if (waits[i].revents != 0) peers.erase(peers.begin() + static_cast<int64_t>(i - listeners.size()));
    }
    for (size_t i = 0; i < listeners.size(); ++i) {
      if (waits[i].revents == 0) continue;
      UniqueFd peer(accept4(waits[i].fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (peer.get() < 0) continue;
      EndByReset(peer);
      send(peer.get(), nonce.data(), nonce.size(), MSG_NOSIGNAL);  // fits into the socket's buffer
      peers.push_back(std::move(peer));
      if (peers.size() > kMostPeers) peers.pop_front();
    }
  }
}

}  // namespace

pid_t StartAnswering(const std::vector<UniqueFd>& listeners, const std::string& nonce) {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid != 0) return pid < 0 ? 0 : pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
  // Whoever waits for the end of these waits for the parent's.
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= 2; ++fd) dup2(null, fd);
  AnswerForever(listeners, nonce);
}

std::vector<DoctorReached> TryToReach(const std::vector<DoctorPeer>& peers) {
  std::vector<Try> tries;
  for (const DoctorPeer& peer : peers) {
    for (const int port : peer.ports) {
      Try one;
      one.result = {peer.node, port, peer.address, DoctorReach::kTimedOut, ""};
      one.nonce = peer.nonce;
      Begin(&one);
      tries.push_back(std::move(one));
    }
  }
  const absl::Time deadline = absl::Now() + kConnectLimit;
  while (true) {
    std::vector<pollfd> waits;
    std::vector<Try*> waiting;
    for (Try& one : tries) {
      if (one.done) continue;
      waits.push_back({one.fd.get(), static_cast<short>(one.connected ? POLLIN : POLLOUT), 0});
      waiting.push_back(&one);
    }
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (waits.empty() || left <= 0) break;
    if (poll(waits.data(), waits.size(), static_cast<int>(left)) <= 0) continue;
    for (size_t i = 0; i < waits.size(); ++i) {
      if (waits[i].revents != 0) GoOn(waiting[i]);
    }
  }
  std::vector<DoctorReached> results;
  for (Try& one : tries) {
    if (!one.done) {
      // A stranger's program may wait to be spoken to.
      End(one.connected ? DoctorReach::kStranger : DoctorReach::kTimedOut,
          one.connected ? "another program answers there" : "no answer within 3 s", &one);
    }
    results.push_back(std::move(one.result));
  }
  return results;
}

}  // namespace basin
