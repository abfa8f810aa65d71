#include <fcntl.h>

#include <cstdio>

#include "absl/strings/numbers.h"
#include "common/base/exit_code.h"
#include "estimator/agent/guard.h"
#include "estimator/commands/commands.h"

namespace basin {

int GuardCommand(const std::vector<std::string>& arguments) {
  int grace_ms = 0;
  bool understood = arguments.size() >= 4 && arguments[0] == "--grace-ms" &&
                    absl::SimpleAtoi(arguments[1], &grace_ms) && grace_ms >= 0;
  size_t at = 2;
  GuardOptions options;
  if (understood && arguments[at] == "--passes-listener") {
    options.passes_listener = true;
    ++at;
    understood = fcntl(kPassedListenerFd, F_GETFD) >= 0;
  }
  if (understood && at + 1 < arguments.size() && arguments[at] == "--containers") {
    options.containers = arguments[at + 1];
    at += 2;
  }
  understood = understood && at + 1 < arguments.size() && arguments[at] == "--";
  if (!understood || fcntl(kGuardLifelineFd, F_GETFD) < 0 || fcntl(kGuardStatusFd, F_GETFD) < 0) {
    std::fputs("basin guard: it is started by basin submit, with a pipe to it; use basin submit\n", stderr);
    return kExitUsage;
  }
  options.grace = absl::Milliseconds(grace_ms);
  return RunGuard(options, {arguments.begin() + static_cast<ptrdiff_t>(at) + 1, arguments.end()});
}

}  // namespace basin
