// Rank 0 of `basin exec`: where the others come to, and who decides when the launch is over.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/host_name.h"
#include "common/base/log.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "estimator/agent/steady_now.h"
#include "estimator/exec/exec_rank.h"
#include "estimator/exec/exec_task.h"
#include "estimator/exec/launch_state.h"
#include "estimator/exec/line_connection.h"
#include "estimator/exec/meeting_file.h"

namespace basin {
namespace {

constexpr absl::Duration kIntroduction = absl::Seconds(10);  // of somebody who has connected
constexpr size_t kMostStrangers = 64;                        // beyond the ranks
constexpr absl::Duration kAcceptPause = absl::Seconds(1);    // after one that failed
constexpr absl::Duration kTellEvery = absl::Seconds(10);
constexpr absl::Duration kFarewell = absl::Seconds(5);  // beyond the grace

struct Caller {
  LineConnection connection;
  std::string nonce;
  absl::Time since;
};

struct Member {
  std::optional<LineConnection> connection;  // of rank 0 there is none
  std::string address;                       // from here; empty: this machine's own
  uint32_t port = 0;
  bool here = false;
};

class FirstRank {
 public:
  FirstRank(const ExecOptions& options, int signals)
      : options_(options),
        signals_(signals),
        task_(options),
        state_(options.layout, options.grace),
        members_(options.layout.size),
        token_(SecretHex(32)) {}

  absl::StatusOr<int> Run() {
    const std::string path = MeetingPath(options_.rendezvous, options_.launched.launch);
    BASIN_ASSIGN_OR_RETURN(members_[0].port, task_.HoldPort());
    members_[0].here = true;
    state_.Known(0, HostName(), getpid());
    BASIN_RETURN_IF_ERROR(GiveWay(path));
    if (state_.At(SteadyNow()) == LaunchState::Verdict::kGoesOn) BASIN_RETURN_IF_ERROR(Gather(path));
    if (state_.At(SteadyNow()) == LaunchState::Verdict::kGoesOn) {
      // The others are told the end like any other.
      if (const absl::Status started = StartAll(); !started.ok())
        state_.Fail(std::string(started.message()), ExitCodeFor(started));
    }
    LaunchState::Verdict verdict;
    while ((verdict = state_.At(SteadyNow())) == LaunchState::Verdict::kGoesOn) Wait(state_.NextChange());
    return End(verdict == LaunchState::Verdict::kFailed);
  }

 private:
  // The launch fails where another one of its name still gathers at `path`: its ranks would go to either.
  absl::Status GiveWay(const std::string& path) {
    const absl::StatusOr<std::optional<Meeting>> found = ReadMeeting(path);
    if (absl::IsPermissionDenied(found.status())) return found.status();
    if (found.ok() && *found && (*found)->token != token_ && StillGathers(**found)) {
      state_.Fail(
          absl::StrCat("another launch is gathering there: rank 0 of ", path, " answers on ", (*found)->host,
                       "; give each launch a name of its own with --launch-id, or run it in a folder of its own"),
          kExitFailed);
    }
    return absl::OkStatus();
  }

  // Whether the file is this launch's own: another one that began at the same moment may have replaced it.
  bool IsOwn(const std::string& path) const {
    const absl::StatusOr<std::optional<Meeting>> found = ReadMeeting(path);
    return found.ok() && *found && (*found)->token == token_;
  }

  // Until all ranks are here, or the launch has failed.
  absl::Status Gather(const std::string& path) {
    BASIN_ASSIGN_OR_RETURN(listener_, ListenAnywhere());
    BASIN_RETURN_IF_ERROR(WriteMeeting(path, {HostName(), OwnAddresses(), listener_.port, token_}));
    const absl::Cleanup remove = [this, &path] {
      if (IsOwn(path)) (void)unlink(path.c_str());
    };
    const absl::Time deadline = SteadyNow() + options_.start_timeout;
    absl::Time tell = SteadyNow() + kTellEvery;
    while (true) {
      const std::vector<std::string> missing = Missing();
      if (missing.empty() || state_.At(SteadyNow()) != LaunchState::Verdict::kGoesOn) break;
      const std::string who = absl::StrCat(missing.size() == 1 ? "rank " : "ranks ", absl::StrJoin(missing, ", "));
      if (SteadyNow() >= deadline) {
        state_.Fail(
            absl::StrCat(who, " of ", options_.layout.size, " did not come within ",
                         absl::FormatDuration(options_.start_timeout), "; do all hosts see ", path, ", and reach ",
                         HostName(), ":", listener_.port, "? Give a shared folder with --rendezvous"),
            kExitFailed);
        break;
      }
      if (SteadyNow() >= tell) {
        Info(absl::StrCat("waiting for ", who, " of ", options_.layout.size));
        tell = SteadyNow() + kTellEvery;
      }
      Wait(std::min(deadline, tell));
      BASIN_RETURN_IF_ERROR(GiveWay(path));
    }
    listener_.fd.Close();
    callers_.clear();
    return absl::OkStatus();
  }

  std::vector<std::string> Missing() const {
    std::vector<std::string> missing;
    for (size_t rank = 0; rank < members_.size(); ++rank) {
      if (!members_[rank].here) missing.push_back(absl::StrCat(rank));
    }
    return missing;
  }

  // Each rank's address is the one that it came from; that of this machine the one that others came to.
  absl::Status StartAll() {
    std::string own = "127.0.0.1";
    for (const Member& member : members_) {
      if (member.address.empty() || !member.connection) continue;
      own = OwnAddress(member.connection->fd());
      break;
    }
    std::vector<std::string> hosts, addresses;
    for (const Member& member : members_) {
      hosts.push_back(member.address.empty() ? own : member.address);
      addresses.push_back(absl::StrCat(hosts.back(), ":", member.port));
    }
    BASIN_ASSIGN_OR_RETURN(const ClusterSpec cluster, ClusterOf(options_.layout, addresses));
    const std::string run_id = absl::StrCat(options_.launched.launch, "-", SecretHex(3));
    Info(absl::StrCat("run ", run_id, ": ", cluster.ToText()));
    for (uint32_t rank = 0; rank < members_.size(); ++rank) {
      const bool shares_host = std::count(hosts.begin(), hosts.end(), hosts[rank]) > 1;
      if (rank == 0) {
        const absl::Status started = task_.Start({cluster, run_id, token_, shares_host});
        if (!started.ok()) state_.NotStarted(0, std::string(started.message()));
      } else {
        members_[rank].connection->Send(
            {{"start", {{"cluster", cluster.ToJson()}, {"run_id", run_id}, {"shares_host", shares_host}}}});
      }
    }
    return absl::OkStatus();
  }

  // Waits for something to happen, at most until `until`, and takes it in.
  void Wait(absl::Time until) {
    std::vector<pollfd> waits = {
        {signals_, POLLIN, 0}, {task_.status_fd(), POLLIN, 0}, {MayAccept() ? listener_.fd.get() : -1, POLLIN, 0}};
    for (const Caller& caller : callers_) waits.push_back({caller.connection.fd(), POLLIN, 0});
    for (const Member& member : members_) {
      if (member.connection && member.connection->open()) waits.push_back({member.connection->fd(), POLLIN, 0});
    }
    const absl::Duration left = std::clamp(until - SteadyNow(), absl::ZeroDuration(), absl::Seconds(1));
    (void)poll(waits.data(), waits.size(), static_cast<int>(absl::ToInt64Milliseconds(left)) + 1);
    if (const std::string signal = TakeSignal(signals_); !signal.empty())
      state_.Fail(absl::StrCat("stopped by ", signal), kExitFailed);
    if (const std::optional<ExecTask::End> end = task_.Poll()) {
      state_.Ended(0, end->code, end->signal, SteadyNow());
    }
    AcceptCallers();
    HearCallers();
    for (uint32_t rank = 1; rank < members_.size(); ++rank) HearMember(rank);
  }

  bool MayAccept() const {
    return listener_.fd.get() >= 0 && callers_.size() < members_.size() + kMostStrangers && SteadyNow() >= accept_at_;
  }

  void AcceptCallers() {
    while (MayAccept()) {
      UniqueFd fd(accept4(listener_.fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (fd.get() < 0) {
        // Without a descriptor to give, the caller stays in the queue, and the listener readable.
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) accept_at_ = SteadyNow() + kAcceptPause;
        return;
      }
      callers_.push_back({LineConnection(std::move(fd)), SecretHex(16), SteadyNow()});
      callers_.back().connection.Send({{"basin_exec", 1}, {"nonce", callers_.back().nonce}});
    }
  }

  void HearCallers() {
    for (Caller& caller : callers_) {
      const std::vector<nlohmann::json> lines = caller.connection.Read();
      if (!lines.empty()) Introduce(caller, lines.front());
      if (SteadyNow() > caller.since + kIntroduction) caller.connection.Close();
    }
    callers_.erase(std::remove_if(callers_.begin(), callers_.end(),
                                  [](const Caller& caller) { return !caller.connection.open(); }),
                   callers_.end());
  }

  // To rank 0 of another launch, which found this one's file.
  void Answer(Caller& caller, const nlohmann::json& line) {
    const std::string nonce = ValueIn(line, "nonce", std::string());
    if (SecretEquals(ValueIn(line, "proof", std::string()), MeetingProof(token_, "a rank", nonce, caller.nonce))) {
      caller.connection.Send({{"proof", MeetingProof(token_, "rank 0", caller.nonce, nonce)}});
      Warn(absl::StrCat("another launch of the same name was refused (rank 0, pid ", ValueIn(line, "pid", 0), " on ",
                        ValueIn(line, "host", std::string()),
                        "); where ranks of it have come here instead of this launch's own, start both again, each "
                        "with its --launch-id"));
    }
    caller.connection.Close();
  }

  // Takes a caller that knows the token in as the rank that it says it is.
  void Introduce(Caller& caller, const nlohmann::json& line) {
    if (ValueIn(line, "asks", false)) return Answer(caller, line);
    uint32_t rank = 0, port = 0;
    int pid = 0;
    std::string nonce, proof, host;
    ExecLayout layout;
    try {
      line.at("nonce").get_to(nonce);
      line.at("proof").get_to(proof);
      line.at("rank").get_to(rank);
      line.at("host").get_to(host);
      line.at("pid").get_to(pid);
      line.at("port").get_to(port);
      line.at("size").get_to(layout.size);
      line.at("ps").get_to(layout.ps);
      line.at("chief").get_to(layout.chief);
      line.at("evaluator").get_to(layout.evaluator);
    } catch (const nlohmann::json::exception&) {
      caller.connection.Close();
      return;
    }
    if (!SecretEquals(proof, MeetingProof(token_, "a rank", nonce, caller.nonce))) {
      caller.connection.Close();
      return;
    }
    caller.connection.Send({{"proof", MeetingProof(token_, "rank 0", caller.nonce, nonce)}});
    std::string problem;
    if (layout != options_.layout) {
      problem =
          absl::StrCat("rank ", rank, " (pid ", pid, " on ", host,
                       ") was started with other flags (--ps, --chief, --evaluator) or in another number of ranks "
                       "than rank 0; give all the same, and each launch of a folder a --launch-id");
    } else if (rank == 0 || rank >= members_.size() || members_[rank].here) {
      problem = absl::StrCat("pid ", pid, " on ", host, " says that it is rank ", rank,
                             ", which is here already; two launches in one folder need names of their own "
                             "(--launch-id)");
    }
    if (!problem.empty()) {
      // Where this launch ends with it, it is told here, once.
      const bool ends_all = layout != options_.layout;
      caller.connection.Send({{"refused", problem}, {"told", ends_all}});
      if (ends_all) state_.Fail(problem, kExitUsage);
      caller.connection.Close();
      return;
    }
    const std::string from = PeerAddress(caller.connection.fd());
    if (!caller.connection.open() || from.empty()) {  // it has said who it is, and gone
      caller.connection.Close();
      return;
    }
    Member& member = members_[rank];
    member.address = absl::StartsWith(from, "127.") ? "" : from;
    member.port = port;
    member.here = true;
    member.connection.emplace(std::move(caller.connection));
    state_.Known(rank, host, pid);
  }

  void HearMember(uint32_t rank) {
    Member& member = members_[rank];
    if (!member.connection) return;
    for (const nlohmann::json& line : member.connection->Read()) {
      if (line.contains("ended")) {
        const nlohmann::json& end = line["ended"];
        state_.Ended(rank, ValueIn(end, "code", kExitFailed), ValueIn(end, "signal", 0), SteadyNow());
      }
      if (line.contains("not_started")) state_.NotStarted(rank, ValueIn(line, "not_started", std::string()));
    }
    // It may have closed while something was sent to it.
    if (!member.connection->open()) state_.Lost(rank, SteadyNow());
  }

  // Tells all, and waits until they are gone.
  int End(bool failed) {
    if (failed) Error(state_.reason());
    for (Member& member : members_) {
      if (member.connection && member.connection->open())
        member.connection->Send({{"stop", {{"exit_code", state_.exit_code()}}}});
    }
    task_.Terminate();
    const absl::Time kill = SteadyNow() + options_.grace, leave = kill + kFarewell;
    const auto all_gone = [this] {
      return task_.gone() && std::none_of(members_.begin(), members_.end(), [](const Member& member) {
               return member.connection && member.connection->open();
             });
    };
    while (!all_gone() && SteadyNow() < leave) {
      Wait(SteadyNow() < kill ? kill : leave);
      if (SteadyNow() >= kill) task_.Kill();
    }
    return state_.exit_code();
  }

  const ExecOptions& options_;
  const int signals_;
  ExecTask task_;
  LaunchState state_;
  std::vector<Member> members_;  // by rank
  const std::string token_;
  Listener listener_;
  std::vector<Caller> callers_;  // who has connected, and has not said who it is
  absl::Time accept_at_ = absl::InfinitePast();
};

}  // namespace

absl::StatusOr<int> RunFirstRank(const ExecOptions& options, int signals) { return FirstRank(options, signals).Run(); }

}  // namespace basin
