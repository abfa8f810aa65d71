// Signals, commands of the control socket, and what a batch system does: how a run is ended from outside.
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "estimator/agent/steady_now.h"
#include "estimator/run/supervision.h"

namespace basin {

void Supervision::ServiceSignals(int signals, ControlSocket* control) {
  signalfd_siginfo info;
  while (read(signals, &info, sizeof(info)) == sizeof(info)) {
    if (info.ssi_signo == SIGUSR1) {
      Do(state_.OnRefused(options_.time_is_over, false, SteadyNow()));
      continue;
    }
    if (info.ssi_signo == SIGTERM) HeedBatch();
    if (info.ssi_signo == SIGTERM && batch_ends_) continue;  // its own: the run is being ended as it said
    const bool by_keyboard = info.ssi_signo == SIGINT && info.ssi_code == SI_KERNEL;
    const bool by_command = info.ssi_signo == SIGINT && !by_keyboard && !options_.sigint_means.empty();
    Cancel(by_command ? options_.sigint_means
                      : absl::StrCat("canceled by SIG", sigabbrev_np(static_cast<int>(info.ssi_signo))),
           interrupts_.OnSignal(by_keyboard, state_.stopping(), SteadyNow()));
  }
  for (const std::string& line : control->Service()) {
    if (line == "cancel") {
      Cancel("canceled by basin cancel", state_.stopping() ? Interrupts::kKill : Interrupts::kCancel);
    }
  }
}

void Supervision::HeedBatch() {
  if (!options_.batch_verdict || requeued_ || state_.stopping() || state_.finished()) return;
  const BatchVerdict verdict = options_.batch_verdict();
  batch_ends_ = verdict.kind != BatchVerdict::kGoesOn;
  switch (verdict.kind) {
    case BatchVerdict::kGoesOn:
      return;
    case BatchVerdict::kCanceled:
      return Cancel(verdict.reason, Interrupts::kCancel);
    case BatchVerdict::kFailed:
      return Do(state_.OnRefused(verdict.reason, false, SteadyNow()));
    case BatchVerdict::kRequeued:
      progress_.Clear();
      Info(verdict.reason);
      requeued_ = true;
      record_.phase = RunPhase::kQueued;
      record_.reason = verdict.reason;
      history_.Record(absl::Now(), record_);
      return;
  }
}

void Supervision::HeedRemoval() {
  if (removal_told_ || !history_.IsRemoved() || state_.finished()) return;
  removal_told_ = true;
  const std::string why = RemovedReason(folder_, run_.record.run_id);
  if (!state_.stopping()) return Do(state_.OnRefused(why, false, SteadyNow()));
  progress_.Clear();
  Warn(why);
}

void Supervision::Cancel(const std::string& why, Interrupts::Answer answer) {
  progress_.Clear();
  switch (answer) {
    case Interrupts::kAsk:
      return Info(absl::StrCat("press Ctrl-C again within ", absl::ToInt64Seconds(Interrupts::kAskedFor),
                               " s to cancel the run (one that should outlive this terminal: basin submit --detach)"));
    case Interrupts::kCancel:
      Info("canceling the run; once more kills all tasks at once");
      break;
    case Interrupts::kKill:
      Info("killing all tasks");
      break;
  }
  history_.Journal(absl::Now(), answer == Interrupts::kKill ? "kill" : "cancel",
                   nlohmann::json({{"reason", why}}).dump());
  Do(state_.OnCancel(SteadyNow(), why));
}

}  // namespace basin
