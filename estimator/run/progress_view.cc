#include "estimator/run/progress_view.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace basin {
namespace {

constexpr const char* kBetween = "  ";

std::vector<std::string> Figures(const ClusterStats& stats) {
  const TrainingSummary summary = Summarize(stats);
  std::vector<std::string> parts;
  // A script need not tell how many examples a step has.
  parts.push_back(summary.examples_per_s ? absl::StrFormat("examples/s %.0f", *summary.examples_per_s)
                                         : absl::StrFormat("steps/s %.1f", summary.steps_per_s));
  if (summary.loss) parts.push_back(absl::StrFormat("loss %.3f", *summary.loss));
  if (summary.test_accuracy) parts.push_back(absl::StrFormat("test accuracy %.3f", *summary.test_accuracy));
  if (summary.test_auc) parts.push_back(absl::StrFormat("test AUC %.3f", *summary.test_auc));
  parts.push_back(absl::StrFormat("staleness %.1f (max %d)", summary.staleness_mean, summary.staleness_max));
  return parts;
}

std::string WaitingLine(const ClusterStats& stats) {
  const std::string waiting = Summarize(stats).waiting;
  return absl::StrCat("waiting: ", waiting.empty() ? "the model is not declared yet" : waiting);
}

}  // namespace

std::string ShortDuration(absl::Duration duration) {
  const int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(duration));
  if (seconds >= 3600) return absl::StrFormat("%dh%02dm", seconds / 3600, seconds / 60 % 60);
  if (seconds >= 60) return absl::StrFormat("%dm%02ds", seconds / 60, seconds % 60);
  return absl::StrCat(seconds, "s");
}

std::string ProgressLine(const ClusterStats& stats) {
  if (stats.state == "waiting") return WaitingLine(stats);
  std::vector<std::string> parts = {absl::StrCat("step ", stats.global_step)};
  if (stats.progress) parts.push_back(absl::StrFormat("%.0f%%", std::floor(*stats.progress * 100)));
  for (std::string& figure : Figures(stats)) parts.push_back(std::move(figure));
  return absl::StrJoin(parts, kBetween);
}

std::string ProgressBar(const ClusterStats& stats, absl::Duration elapsed, int width) {
  std::string line;
  if (stats.state == "waiting") {
    line = WaitingLine(stats);
  } else {
    std::vector<std::string> parts;
    if (stats.progress) {
      const int cells = std::clamp(width / 5, 5, 30);
      const int full = static_cast<int>(*stats.progress * cells);
      std::string bar(full, '=');
      if (full < cells) bar += '>';
      bar.resize(cells, ' ');
      parts.push_back(absl::StrFormat("[%s] %3.0f%%", bar, std::floor(*stats.progress * 100)));
      if (*stats.progress > 0.01 && *stats.progress < 1) {
        parts.push_back(absl::StrCat("ETA ", ShortDuration(elapsed * ((1 - *stats.progress) / *stats.progress))));
      }
    }
    parts.push_back(absl::StrCat("step ", stats.global_step));
    for (std::string& figure : Figures(stats)) parts.push_back(std::move(figure));
    for (const std::string& part : parts) {
      const std::string longer = line.empty() ? part : absl::StrCat(line, kBetween, part);
      if (static_cast<int>(longer.size()) > width) break;
      line = longer;
    }
  }
  if (static_cast<int>(line.size()) > width) line.resize(width);
  return line;
}

}  // namespace basin
