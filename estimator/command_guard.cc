#include <fcntl.h>

#include <cstdio>

#include "absl/strings/numbers.h"
#include "common/base/exit_code.h"
#include "estimator/commands.h"
#include "estimator/guard.h"

namespace basin {

int GuardCommand(const std::vector<std::string>& arguments) {
  int grace_ms = 0;
  const bool understood = arguments.size() >= 4 && arguments[0] == "--grace-ms" &&
                          absl::SimpleAtoi(arguments[1], &grace_ms) && grace_ms >= 0 && arguments[2] == "--";
  if (!understood || fcntl(kGuardLifelineFd, F_GETFD) < 0 || fcntl(kGuardStatusFd, F_GETFD) < 0) {
    std::fputs("basin guard: it is started by basin submit, with a pipe to it; use basin submit\n", stderr);
    return kExitUsage;
  }
  GuardOptions options;
  options.grace = absl::Milliseconds(grace_ms);
  return RunGuard(options, {arguments.begin() + 3, arguments.end()});
}

}  // namespace basin
