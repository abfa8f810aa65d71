#include "estimator/exec/exec_rank.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace basin {

absl::StatusOr<int> RunExecRank(const ExecOptions& options) {
  SetLogPrefix(absl::StrCat("basin exec, ", TaskOfRank(options.layout, options.launched.rank).Sentence()));
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_DFL);
  prctl(PR_SET_CHILD_SUBREAPER, 1);  // what a killed guard leaves comes here (ExecTask)
  sigset_t watched;
  sigemptyset(&watched);
  for (const int one : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&watched, one);
  sigprocmask(SIG_BLOCK, &watched, nullptr);
  const UniqueFd signals(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  if (signals.get() < 0) return ErrnoStatus(errno, "signalfd");
  return options.launched.rank == 0 ? RunFirstRank(options, signals.get()) : RunOtherRank(options, signals.get());
}

std::string TakeSignal(int signals) {
  signalfd_siginfo info;
  if (read(signals, &info, sizeof info) != sizeof info) return "";
  switch (info.ssi_signo) {
    case SIGINT:
      return "SIGINT";
    case SIGHUP:
      return "SIGHUP";
    default:
      return "SIGTERM";
  }
}

}  // namespace basin
