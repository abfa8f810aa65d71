// A run's progress as text. Pure.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "estimator/run/stats.h"

namespace basin {

// "step 1200  42%  examples/s 35210  loss 0.412  test accuracy 0.861  staleness 1.2 (max 4)"; what is not known is left
// out. While the cluster waits: "waiting: ...".
std::string ProgressLine(const ClusterStats& stats);

// One line for a terminal of `width` columns, never longer: a bar, percent, time left, then ProgressLine's figures as
// far as they fit. `elapsed`: since training began.
std::string ProgressBar(const ClusterStats& stats, absl::Duration elapsed, int width);

// "1h02m", "3m07s", "42s".
std::string ShortDuration(absl::Duration duration);

}  // namespace basin
