#include "estimator/run/supervisor.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/run/supervision.h"

namespace basin {

std::string AgentRunId(const SupervisedRun& run) {
  return run.attempt == 1 ? run.record.run_id : absl::StrCat(run.record.run_id, "-attempt-", run.attempt);
}

std::string RemovedReason(const RunFolder& folder, const std::string& run_id) {
  return absl::StrCat("the run's folder ", folder.path(),
                      " was removed, so that nothing of the run can be kept; end a run by basin cancel ", run_id,
                      ", and remove it by basin delete ", run_id);
}

absl::StatusOr<RunOutcome> Supervise(const SupervisedRun& run, const RunFolder& folder, Launcher& launcher,
                                     RunHistory& history, const SuperviseOptions& options) {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_DFL);
  sigset_t watched;
  sigemptyset(&watched);
  for (const int one : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&watched, one);
  if (options.batch_verdict) sigaddset(&watched, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &watched, nullptr);
  const UniqueFd signals(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  if (signals.get() < 0) return ErrnoStatus(errno, "signalfd");
  BASIN_ASSIGN_OR_RETURN(const std::string token, ReadFile(folder.TokenPath(), 4096));
  BASIN_ASSIGN_OR_RETURN(ControlSocket control, ControlSocket::Listen(folder.path()));
  Supervision supervision(run, folder, launcher, history, options, std::string(absl::StripAsciiWhitespace(token)));
  return supervision.Run(signals.get(), &control);
}

}  // namespace basin
