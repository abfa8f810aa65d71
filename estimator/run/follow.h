// Watching a run that another process supervises, by its folder alone.
#pragma once

#include <cstdio>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "estimator/history/run_folder.h"

namespace basin {

enum class FollowEnd {
  kOver,          // the run has come to its end
  kUnsupervised,  // its supervisor is gone, and the run is not over
  kDetached       // a signal: the run goes on
};

struct FollowOptions {
  // Shows what the tasks have printed before, too.
  bool from_the_beginning = false;
  // Of a run that nobody supervises and that is not over: asked again and again, whether somebody will, or has just
  // written its end. An error ends the following. None: it is unsupervised.
  std::function<absl::StatusOr<bool>()> will_go_on;
  // Told each SIGINT and SIGTERM; whether to stop following. None: yes.
  std::function<bool(int signal, bool by_keyboard)> on_signal;
};

// Shows changes of state on standard error and what the tasks print on `lines` (standard output, but for --json), from
// now on, until one of the above is so. SIGINT and SIGTERM end it, and nothing else.
absl::StatusOr<FollowEnd> FollowRun(const RunFolder& folder, std::FILE* lines, const FollowOptions& options = {});

}  // namespace basin
