#include "estimator/supervisor.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/progress_view.h"

namespace basin {
namespace {

constexpr int kShownLogLines = 20;
constexpr int kCannotStart = 127;

class Progress {
 public:
  explicit Progress(const SuperviseOptions& options) : options_(options) {}

  absl::Time next() const { return next_; }
  int64_t last_step() const { return last_step_; }
  void Begin(absl::Time now) {
    if (options_.open_stats) source_ = options_.open_stats();
    if (source_) next_ = now;
  }
  void End() {
    Clear();
    next_ = absl::InfiniteFuture();
    if (source_) source_->Stop();
  }
  // Before other text is written.
  void Clear() {
    if (bar_shown_) std::fputs("\r\033[K", stderr);
    bar_shown_ = false;
  }

  void Show(absl::Time now) {
    if (now < next_) return;
    const bool bar = options_.terminal_width > 0;
    next_ = now + (bar ? absl::Milliseconds(500) : absl::Seconds(1));
    const absl::StatusOr<std::string> json = source_->Read();
    if (!json.ok()) return;  // not reachable yet, or not any more: both are told by the tasks' own logs
    const absl::StatusOr<ClusterStats> stats = ParseStats(*json);
    if (!stats.ok()) return;
    last_step_ = std::max(last_step_, stats->global_step);
    if (stats->state == "training" && training_since_ == absl::InfiniteFuture()) training_since_ = now;
    if (bar) {
      const std::string line =
          ProgressBar(*stats, std::max(absl::ZeroDuration(), now - training_since_), options_.terminal_width - 1);
      std::fprintf(stderr, "\r%s\033[K", line.c_str());
      std::fflush(stderr);
      bar_shown_ = true;
    } else if (now >= next_line_) {
      const std::string line = ProgressLine(*stats);
      if (line != last_line_) Info(line);
      last_line_ = line;
      next_line_ = now + absl::Seconds(2);
    }
  }

 private:
  const SuperviseOptions& options_;
  std::unique_ptr<StatsSource> source_;
  absl::Time next_ = absl::InfiniteFuture();
  absl::Time next_line_ = absl::InfinitePast();
  absl::Time training_since_ = absl::InfiniteFuture();
  std::string last_line_;
  int64_t last_step_ = 0;
  bool bar_shown_ = false;
};

class Supervision {
 public:
  Supervision(const Plan& plan, const RunFolder& folder, Launcher& launcher, const SuperviseOptions& options,
              std::vector<TaskId> names)
      : plan_(plan),
        folder_(folder),
        launcher_(launcher),
        state_(std::move(names), options.limits),
        progress_(options) {
    record_.run_id = plan.run_id;
    record_.experiment = plan.experiment;
    record_.created = absl::Now();
    for (const PlannedTask& task : plan.tasks) {
      const bool listens = task.place.port != 0;
      record_.tasks.push_back(
          {task.place.name, listens ? absl::StrCat(task.place.host, ":", task.place.port) : "", 0, {}});
    }
  }

  absl::Status WriteFirstRecord() { return folder_.WriteRecord(record_); }

  RunOutcome Run(int signals) {
    Do(state_.OnBegin(absl::Now()));
    progress_.Begin(absl::Now());
    while (!state_.finished()) {
      progress_.Show(absl::Now());
      const std::vector<LauncherEvent> events =
          launcher_.Wait(std::min(state_.NextDeadline(), progress_.next()), signals);
      for (const LauncherEvent& event : events) Handle(event);
      signalfd_siginfo info;
      while (read(signals, &info, sizeof(info)) == sizeof(info)) Cancel(static_cast<int>(info.ssi_signo));
      Do(state_.OnTime(absl::Now()));
    }
    launcher_.SweepUp();
    return {state_.phase(), state_.exit_code(), record_, progress_.last_step()};
  }

 private:
  void Handle(const LauncherEvent& event) {
    const absl::Time now = absl::Now();
    switch (event.kind) {
      case LauncherEvent::kStarted:
        record_.tasks[event.task].pid = event.pid;
        return Do(state_.OnStarted(event.task, now));
      case LauncherEvent::kExited:
        record_.tasks[event.task].exit = event.exit;
        return Do(state_.OnExited(event.task, event.exit, now));
      case LauncherEvent::kGone:
        return Do(state_.OnGone(event.task, now));
    }
  }

  void Cancel(int signal) {
    const bool again = state_.phase() == RunPhase::kCancelRequested || state_.failed_task().has_value();
    progress_.Clear();
    Info(again ? "killing all tasks" : "canceling the run; once more kills all tasks at once");
    Do(state_.OnCancel(absl::Now(), absl::StrCat("canceled by SIG", sigabbrev_np(signal))));
  }

  // Tasks that cannot be started are events again, which may ask for more: until all is quiet.
  void Do(std::vector<RunAction> actions) {
    for (size_t i = 0; i < actions.size(); ++i) {
      const RunAction action = actions[i];
      switch (action.kind) {
        case RunAction::kStart: {
          if (state_.failed_task()) break;  // an earlier one could not be started, and no later one is
          const PlannedTask& task = plan_.tasks[action.task];
          const absl::Status started = launcher_.Start(action.task, task, folder_.LogPath(task.place.name));
          if (started.ok()) break;
          Error(absl::StrCat(task.place.name.Sentence(), ": ", started.message()));
          Append(state_.OnExited(action.task, {kCannotStart, 0}, absl::Now()), &actions);
          // Neither this one nor those after it will ever be heard of.
          for (size_t later = action.task; later < plan_.tasks.size(); ++later) {
            Append(state_.OnGone(later, absl::Now()), &actions);
          }
          break;
        }
        case RunAction::kTerm:
          launcher_.Terminate(action.task);
          break;
        case RunAction::kKill:
          launcher_.Kill(action.task);
          break;
        case RunAction::kFinish:
          record_.ended = absl::Now();
          break;
      }
    }
    TellChanges();
  }

  static void Append(const std::vector<RunAction>& more, std::vector<RunAction>* actions) {
    actions->insert(actions->end(), more.begin(), more.end());
  }

  void TellChanges() {
    if (state_.failed_task() && !failure_told_) {
      failure_told_ = true;
      progress_.End();
      TellFailure();
    }
    if (state_.phase() == RunPhase::kFinalizing && !state_.failed_task()) progress_.End();
    if (state_.phase() == RunPhase::kCancelRequested) progress_.End();
    if (state_.phase() == record_.phase) return;
    record_.phase = state_.phase();
    record_.reason = state_.reason();
    if (const absl::Status written = folder_.WriteRecord(record_); !written.ok()) {
      Warn(absl::StrCat("the run goes on, but its record is not up to date: ", written.message()));
    }
  }

  void TellFailure() {
    const TaskId& name = plan_.tasks[*state_.failed_task()].place.name;
    const std::string log = folder_.LogPath(name);
    Error(absl::StrCat(state_.reason(), "; the other tasks are stopped"));
    const std::vector<std::string> lines = LastLines(log, kShownLogLines);
    Info(absl::StrCat("last lines of ", log, lines.empty() ? " (empty)" : ":"));
    for (const std::string& line : lines) Info(absl::StrCat("  ", line));
  }

  const Plan& plan_;
  const RunFolder& folder_;
  Launcher& launcher_;
  RunState state_;
  Progress progress_;
  RunRecord record_;
  bool failure_told_ = false;
};

}  // namespace

absl::StatusOr<RunOutcome> Supervise(const Plan& plan, const RunFolder& folder, Launcher& launcher,
                                     const SuperviseOptions& options) {
  signal(SIGPIPE, SIG_IGN);
  sigset_t watched;
  sigemptyset(&watched);
  for (const int one : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&watched, one);
  pthread_sigmask(SIG_BLOCK, &watched, nullptr);
  const int signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) return ErrnoStatus(errno, "signalfd");
  absl::Cleanup close_signals = [signals] { close(signals); };
  std::vector<TaskId> names;
  for (const PlannedTask& task : plan.tasks) names.push_back(task.place.name);
  Supervision supervision(plan, folder, launcher, options, std::move(names));
  BASIN_RETURN_IF_ERROR(supervision.WriteFirstRecord());
  return supervision.Run(signals);
}

}  // namespace basin
