#include "estimator/launch/run_tool.h"

#include <poll.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "estimator/agent/steady_now.h"
#include "estimator/launch/child_pipes.h"
#include "estimator/launch/spawn.h"

namespace basin {
namespace {

constexpr size_t kMostPrinted = size_t{4} << 20;
constexpr absl::Duration kPatience = absl::Seconds(1);

}  // namespace

absl::StatusOr<ToolResult> RunTool(const std::vector<std::string>& argv, absl::Duration limit) {
  BASIN_ASSIGN_OR_RETURN(const AgentPipe pipe, SpawnPiped(argv[0], argv));
  ChildPipes child(pipe);
  child.CloseInput();
  ToolResult result;
  const absl::Time deadline = SteadyNow() + limit;
  bool printed_ended = false;
  while (!printed_ended || !child.errors_ended()) {
    const absl::Duration left = deadline - SteadyNow();
    if (left <= absl::ZeroDuration() || result.printed.size() > kMostPrinted) {
      child.Finish(absl::ZeroDuration());
      return absl::DeadlineExceededError(
          absl::StrCat(absl::StrJoin(argv, " "), " has not ended within ", absl::FormatDuration(limit)));
    }
    pollfd waits[2] = {{printed_ended ? -1 : pipe.from_agent, POLLIN, 0},
                       {child.errors_ended() ? -1 : pipe.errors, POLLIN, 0}};
    poll(waits, 2, static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(left) + 1, 1000)));
    if (!printed_ended && waits[0].revents != 0) printed_ended = ReadSome(pipe.from_agent, &result.printed) == 0;
    child.ReadErrors();
  }
  result.exit_code = child.Finish(kPatience);
  result.errors = child.errors();
  return result;
}

}  // namespace basin
