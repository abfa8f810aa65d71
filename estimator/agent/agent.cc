#include "estimator/agent/agent.h"

#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "common/base/secret.h"
#include "estimator/agent/agent_log.h"
#include "estimator/agent/agent_work.h"
#include "estimator/agent/channel.h"
#include "estimator/agent/granted_gpus.h"
#include "estimator/agent/lease.h"
#include "estimator/agent/node_facts.h"
#include "estimator/agent/steady_now.h"

namespace basin {
namespace {

constexpr absl::Duration kFirstContact = absl::Seconds(60);
constexpr absl::Duration kMostWaitForHello = absl::Seconds(30);
constexpr absl::Duration kMostFarewell = absl::Seconds(2);
constexpr absl::Duration kKillAgainEvery = absl::Milliseconds(200);
constexpr size_t kMostConnections = 8;
constexpr size_t kMostTokenBytes = 4096;
constexpr uint32_t kShortestLeaseMs = 100;
constexpr uint32_t kLongestMs = 7 * 24 * 3600 * 1000;

struct Connection {
  explicit Connection(UniqueFd socket, absl::Time now)
      : fd(std::move(socket)), channel(fd.get(), fd.get()), opened(now) {}
  UniqueFd fd;
  Channel channel;
  absl::Time opened;
  bool is_over = false;  // said what there was to say: to be closed
};

// The library and the Python package are those of this program in any case.
Programs ProgramsOf(const AgentOptions& options) {
  Programs programs = OwnPrograms();
  if (!options.programs.empty()) programs.folder = options.programs;
  return programs;
}

class Agent {
 public:
  Agent(AgentOptions options, agent::Welcome facts)
      : options_(std::move(options)),
        lease_(SteadyNow(), kFirstContact),
        work_(options_.folder, ProgramsOf(options_), options_.inherited, std::move(facts)) {}

  int Run() {
    while (true) {
      const absl::Time now = SteadyNow();
      // Before the lease: who says goodbye and hangs up is not gone too early.
      if (work_.bye() && !is_ending_) BeginEnd("the run is over", !work_.bye()->keep_folder(), now);
      if (lease_.At(looked_) == AgentLease::State::kLost)
        BeginEnd("its supervisor is gone, and the grace is over", false, now);
      if (is_ending_ && now >= kill_at_) {
        work_.StopAll(/*kill=*/true);
        kill_at_ = now + kKillAgainEvery;
      }
      work_.Advance(now);
      FlushAll();
      if (is_ending_ && work_.idle()) break;
      Wait();
    }
    return Leave();
  }

 private:
  void Wait() {
    std::vector<pollfd> waits = {{options_.signals.get(), POLLIN, 0}, {options_.listener.get(), POLLIN, 0}};
    for (const auto& connection : connections_) {
      const bool writes = connection->channel.wants_to_write();
      waits.push_back({connection->fd.get(), static_cast<short>(POLLIN | (writes ? POLLOUT : 0)), 0});
    }
    work_.AddWaits(&waits);
    absl::Time until = std::min(lease_.next(), work_.next());
    if (is_ending_) until = std::min(until, kill_at_);
    for (const auto& connection : connections_) {
      if (connection.get() != current_) until = std::min(until, connection->opened + kMostWaitForHello);
    }
    const int64_t left = until == absl::InfiniteFuture() ? 60'000 : absl::ToInt64Milliseconds(until - SteadyNow()) + 1;
    const int ready = poll(waits.data(), waits.size(), static_cast<int>(std::clamp<int64_t>(left, 0, 60'000)));
    if (ready >= 0) looked_ = SteadyNow();
    if (ready <= 0) return;
    if (waits[0].revents != 0) TakeSignals();
    // Those that there were before a new one came.
    size_t at = 2;
    for (auto& connection : connections_) {
      if (waits[at++].revents != 0 && !connection->is_over) Receive(connection.get());
    }
    if (waits[1].revents != 0) Accept();
  }

  void TakeSignals() {
    signalfd_siginfo info;
    while (read(options_.signals.get(), &info, sizeof info) == sizeof info) {
      if (info.ssi_signo == SIGTERM) BeginEnd("it got SIGTERM", false, SteadyNow());
    }
    // Guards, and what a killed guard has left to this process. Their ends show elsewhere.
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
  }

  void Accept() {
    UniqueFd fd(accept4(options_.listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd.get() < 0) return;
    ucred peer = {};
    socklen_t size = sizeof peer;
    const bool is_own = getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
    if (!is_own || connections_.size() >= kMostConnections) return;
    // The relay passes it on: it shows that the agent lives, and begins the conversation.
    const std::string magic = absl::StrCat(kAgentMagic, options_.version, "\n");
    if (write(fd.get(), magic.data(), magic.size()) != static_cast<ssize_t>(magic.size())) return;
    connections_.push_back(std::make_unique<Connection>(std::move(fd), SteadyNow()));
  }

  void Receive(Connection* connection) {
    const uint64_t before = connection->channel.received();
    const absl::Status filled = connection->channel.Fill();
    if (connection == current_) lease_.Heard(connection->channel.received() - before, looked_);
    absl::Status status;
    std::string bytes;
    while (status.ok() && !connection->is_over && connection->channel.Next(&bytes)) {
      agent::ToAgent message;
      if (!message.ParseFromString(bytes)) {
        status = absl::InvalidArgumentError("a frame that holds no message");
      } else if (connection == current_) {
        status = work_.Handle(message);
      } else {
        status = Greet(connection, message);
      }
    }
    if (status.ok() && !filled.ok() && absl::IsInvalidArgument(filled)) status = filled;
    if (!status.ok()) {
      Refuse(connection, std::string(status.message()));
    } else if (!filled.ok()) {
      // Its descriptor stays open until it is dropped: nobody else may get the number before.
      connection->is_over = true;
      LoseIfCurrent(connection);
    }
  }

  // The first message decides whether this supervisor is listened to.
  absl::Status Greet(Connection* connection, const agent::ToAgent& message) {
    if (message.body_case() != agent::ToAgent::kHello)
      return absl::InvalidArgumentError("the first message is no Hello");
    const agent::Hello& hello = message.hello();
    if (hello.run_id() != options_.folder.run_id || hello.node() != options_.folder.node) {
      return absl::InvalidArgumentError(absl::StrCat("this is the agent of node ", options_.folder.node, " of run ",
                                                     options_.folder.run_id, ", not of node ", hello.node(), " of ",
                                                     hello.run_id().substr(0, 128)));
    }
    if (is_ending_) return absl::InvalidArgumentError("the agent is ending");
    const bool rejoined = lease_.At(looked_) != AgentLease::State::kFirstContact;
    if (std::string why = lease_.WhyRefused(hello.epoch()); !why.empty()) return absl::InvalidArgumentError(why);
    if (hello.token().size() > kMostTokenBytes || (rejoined && !SecretEquals(hello.token(), token_))) {
      return absl::InvalidArgumentError("the token is not the run's");
    }
    if (!rejoined) {
      token_ = hello.token();
      if (absl::Status status = WriteFileAtomically(options_.folder.Token(), token_, 0600); !status.ok()) return status;
    }
    if (current_ != nullptr)
      Refuse(current_, absl::StrCat("a supervisor with epoch ", hello.epoch(), " has taken over"));
    const auto limited = [](uint32_t ms) { return absl::Milliseconds(std::min(ms, kLongestMs)); };
    cancel_grace_ = limited(hello.cancel_grace_ms());
    lease_.Connected(hello.epoch(), limited(std::max(hello.lease_ms(), kShortestLeaseMs)), limited(hello.grace_ms()),
                     looked_);
    AgentLog(absl::StrCat("a supervisor is here, epoch ", hello.epoch(), ", lease ", hello.lease_ms(), " ms, grace ",
                          hello.grace_ms(), " ms"));
    current_ = connection;
    work_.Connected(&connection->channel, cancel_grace_, rejoined);
    return absl::OkStatus();
  }

  void Refuse(Connection* connection, const std::string& reason) {
    AgentLog(absl::StrCat("refused a supervisor: ", reason));
    agent::FromAgent message;
    message.mutable_refused()->set_reason(reason);
    // If it does not read, it does not learn why.
    if (connection->channel.SendControl(message.SerializeAsString()).ok()) connection->channel.Flush().IgnoreError();
    connection->is_over = true;
    shutdown(connection->fd.get(), SHUT_WR);
    if (connection == current_) Lose();
  }

  // The current supervisor is listened to no more.
  void Lose() {
    current_ = nullptr;
    work_.Disconnected();
    lease_.Disconnected(looked_);
  }

  void LoseIfCurrent(const Connection* connection) {
    if (connection != current_) return;
    AgentLog("the supervisor's connection has ended");
    Lose();
  }

  void FlushAll() {
    for (auto& connection : connections_) {
      absl::Status status = connection->is_over ? absl::OkStatus() : connection->channel.Flush();
      if (connection.get() == current_ && status.ok()) status = work_.broken();
      const bool is_late = connection.get() != current_ && looked_ >= connection->opened + kMostWaitForHello;
      if (!status.ok() || is_late) connection->is_over = true;
    }
    for (auto at = connections_.begin(); at != connections_.end();) {
      if (!(*at)->is_over) {
        ++at;
        continue;
      }
      LoseIfCurrent(at->get());
      at = connections_.erase(at);
    }
  }

  void BeginEnd(const std::string& why, bool removes_folder, absl::Time now) {
    if (is_ending_) return;
    AgentLog(absl::StrCat("ending: ", why));
    is_ending_ = true;
    // An agent that nobody ever talked to has nothing to keep.
    removes_folder_ = removes_folder || lease_.never_connected();
    kill_at_ = now + cancel_grace_;
    work_.StopAll(/*kill=*/false);
  }

  int Leave() {
    // From here on a new relay starts a new agent; the lock keeps it from doing so in a folder that is being removed.
    unlinkat(options_.folder.fd.get(), "agent.sock", 0);
    options_.listener.Close();
    if (removes_folder_) {
      UniqueFd lock = LockFolder(options_.folder, /*may_wait=*/false);
      const absl::Status status = lock.get() < 0 ? absl::OkStatus() : RemoveNodeFolder(options_.folder);
      if (!status.ok()) AgentLog(status.message());
    }
    if (current_ == nullptr) return kExitOk;
    work_.SayGoodbye();
    const absl::Time deadline = SteadyNow() + kMostFarewell;
    while (current_->channel.Flush().ok() && current_->channel.wants_to_write() && SteadyNow() < deadline) {
      pollfd wait = {current_->fd.get(), POLLOUT, 0};
      poll(&wait, 1, 100);
    }
    return kExitOk;
  }

  AgentOptions options_;
  AgentLease lease_;
  AgentWork work_;
  std::list<std::unique_ptr<Connection>> connections_;
  Connection* current_ = nullptr;
  // When the sockets were last asked: only what they held then, or did not hold, is known. However long a turn of the
  // loop takes, what came meanwhile is read before anybody's silence is judged.
  absl::Time looked_ = SteadyNow();
  std::string token_;
  absl::Duration cancel_grace_ = absl::Seconds(5);
  bool is_ending_ = false;
  bool removes_folder_ = false;
  absl::Time kill_at_ = absl::InfiniteFuture();
};

}  // namespace

int RunAgent(AgentOptions options) {
  agent::Welcome facts;
  facts.set_version(options.version);
  facts.set_pid(getpid());
  facts.set_node_folder(options.folder.path);
  GatherNodeFacts(&facts);
  const GrantedGpus granted = GpusGrantedBySlurm({facts.gpus().begin(), facts.gpus().end()}, options.inherited);
  facts.mutable_gpus()->Assign(granted.gpus.begin(), granted.gpus.end());
  if (!granted.problem.empty()) facts.set_gpu_problem(granted.problem);
  AgentLog(absl::StrCat("agent of node ", options.folder.node, " of run ", options.folder.run_id, ", version ",
                        options.version, ", pid ", getpid(), " on ", facts.host_name()));
  return Agent(std::move(options), std::move(facts)).Run();
}

}  // namespace basin
