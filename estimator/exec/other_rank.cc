// Every rank of `basin exec` but the first: it finds rank 0, and does what that says.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster_spec/cluster_spec.h"
#include "common/base/exit_code.h"
#include "common/base/host_name.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/agent/steady_now.h"
#include "estimator/exec/exec_rank.h"
#include "estimator/exec/exec_task.h"
#include "estimator/exec/line_connection.h"
#include "estimator/exec/meeting_file.h"

namespace basin {
namespace {

constexpr absl::Duration kLookEvery = absl::Milliseconds(100);

class OtherRank {
 public:
  OtherRank(const ExecOptions& options, int signals) : options_(options), signals_(signals), task_(options) {}

  absl::StatusOr<int> Run() {
    BASIN_ASSIGN_OR_RETURN(port_, task_.HoldPort());
    BASIN_RETURN_IF_ERROR(Meet());
    if (!connection_) return *stop_;
    while (!stop_) Wait(absl::InfiniteFuture());
    task_.Terminate();
    const absl::Time kill = SteadyNow() + options_.grace;
    while (!task_.gone()) {
      Wait(kill);
      if (SteadyNow() >= kill) task_.Kill();
    }
    return *stop_;
  }

 private:
  // Until rank 0 has taken this one in. Its file may be an earlier launch's, until rank 0 has replaced it.
  absl::Status Meet() {
    const std::string path = MeetingPath(options_.rendezvous, options_.launched.launch);
    const absl::Time deadline = SteadyNow() + options_.start_timeout;
    std::string last = absl::StrCat("there is no ", path);
    while (SteadyNow() < deadline) {
      absl::StatusOr<std::optional<Meeting>> meeting = ReadMeeting(path);
      if (!meeting.ok()) {
        last = std::string(meeting.status().message());
      } else if (*meeting) {
        const absl::Status met = TryAll(**meeting);
        if (met.code() != absl::StatusCode::kUnavailable) return met;
        last = std::string(met.message());
      }
      pollfd wait = {signals_, POLLIN, 0};
      (void)poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(kLookEvery)));
      // The launcher that ends the ranks has said why, or rank 0 does.
      if (!TakeSignal(signals_).empty()) stop_ = kExitFailed;
      if (stop_) return absl::OkStatus();
    }
    return absl::DeadlineExceededError(absl::StrCat("rank 0 was not found within ",
                                                    absl::FormatDuration(options_.start_timeout), ": ", last,
                                                    "; give a folder that all hosts share with --rendezvous"));
  }

  // FAILED_PRECONDITION: rank 0 does not want this one. UNAVAILABLE: it was not found.
  absl::Status TryAll(const Meeting& meeting) {
    const ExecLayout& layout = options_.layout;
    BASIN_ASSIGN_OR_RETURN(LineConnection connection, CallRankZero(meeting, {{"rank", options_.launched.rank},
                                                                             {"host", HostName()},
                                                                             {"pid", getpid()},
                                                                             {"port", port_},
                                                                             {"size", layout.size},
                                                                             {"ps", layout.ps},
                                                                             {"chief", layout.chief},
                                                                             {"evaluator", layout.evaluator}}));
    early_.clear();
    for (const nlohmann::json& line : connection.Read()) {
      const std::string refused = ValueIn(line, "refused", std::string());
      if (refused.empty()) {
        early_.push_back(line);
      } else if (ValueIn(line, "told", false)) {
        stop_ = kExitUsage;
        return absl::OkStatus();
      } else {
        return absl::FailedPreconditionError(refused);
      }
    }
    token_ = meeting.token;
    connection_.emplace(std::move(connection));
    return absl::OkStatus();
  }

  void Wait(absl::Time until) {
    pollfd waits[] = {{signals_, POLLIN, 0}, {task_.status_fd(), POLLIN, 0}, {connection_->fd(), POLLIN, 0}};
    const absl::Duration left = std::clamp(until - SteadyNow(), absl::ZeroDuration(), absl::Seconds(1));
    if (early_.empty()) (void)poll(waits, 3, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1);
    // A launcher that ends the ranks has said why, or rank 0 does; where that had begun before, it is known how it
    // ends.
    if (!TakeSignal(signals_).empty() && !stop_) stop_ = kExitFailed;
    if (const std::optional<ExecTask::End> end = task_.Poll()) {
      connection_->Send({{"ended", {{"code", end->code}, {"signal", end->signal}}}});
    }
    std::vector<nlohmann::json> lines = std::exchange(early_, {});
    for (nlohmann::json& line : connection_->Read()) lines.push_back(std::move(line));
    for (const nlohmann::json& line : lines) Hear(line);
    if (!connection_->open() && !stop_) {
      Error("rank 0 (ps 0) is gone; this task is ended");
      stop_ = kExitFailed;
    }
  }

  void Hear(const nlohmann::json& line) {
    if (const std::string refused = ValueIn(line, "refused", std::string()); !refused.empty() && !stop_) {
      if (!ValueIn(line, "told", false)) Error(refused);
      stop_ = kExitUsage;
    }
    if (line.contains("stop") && !stop_) stop_ = ValueIn(line["stop"], "exit_code", kExitFailed);
    if (line.contains("start") && !stop_) {
      const absl::Status started = Start(line["start"]);
      if (!started.ok()) connection_->Send({{"not_started", std::string(started.message())}});
    }
  }

  absl::Status Start(const nlohmann::json& line) {
    ExecStart start;
    std::string cluster;
    try {
      line.at("cluster").get_to(cluster);
      line.at("run_id").get_to(start.run_id);
      line.at("shares_host").get_to(start.shares_host);
    } catch (const nlohmann::json::exception&) {
      return absl::InternalError("rank 0 speaks another version's language");
    }
    BASIN_ASSIGN_OR_RETURN(start.cluster, ClusterSpec::FromJson(cluster));
    start.token = token_;
    return task_.Start(start);
  }

  const ExecOptions& options_;
  const int signals_;
  ExecTask task_;
  uint32_t port_ = 0;
  std::optional<LineConnection> connection_;
  std::string token_;
  std::vector<nlohmann::json> early_;  // what came right behind the introduction
  std::optional<int> stop_;            // with which exit code
};

}  // namespace

absl::StatusOr<int> RunOtherRank(const ExecOptions& options, int signals) { return OtherRank(options, signals).Run(); }

}  // namespace basin
