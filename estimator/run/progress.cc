#include "estimator/run/progress.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/log.h"
#include "estimator/run/progress_view.h"

namespace basin {
namespace {
constexpr absl::Duration kTransferBarEvery = absl::Milliseconds(200);
constexpr absl::Duration kTransferLineEvery = absl::Seconds(5);
constexpr double kMegabyte = 1e6;
constexpr uint64_t kLeastShown = 2'000'000;
}  // namespace

void Progress::Begin(std::unique_ptr<StatsSource> source, absl::Time now) {
  Clear();
  source_ = std::move(source);
  next_ = source_ ? now : absl::InfiniteFuture();
}

void Progress::End() {
  Clear();
  next_ = absl::InfiniteFuture();
  if (source_) source_->Stop();
}

void Progress::Clear() {
  if (bar_shown_) std::fputs("\r\033[K", stderr);
  bar_shown_ = false;
}

void Progress::ShowBar(const std::string& line) {
  std::fprintf(stderr, "\r%s\033[K", line.c_str());
  std::fflush(stderr);
  bar_shown_ = true;
}

void Progress::Show(absl::Time now) {
  if (now < next_) return;
  const bool bar = width_ > 0;
  next_ = now + (bar ? absl::Milliseconds(500) : absl::Seconds(1));
  const absl::StatusOr<std::string> json = source_->Read();
  if (!json.ok()) return;  // not reachable yet, or not any more: both are told by the tasks' own logs
  const absl::StatusOr<ClusterStats> stats = ParseStats(*json);
  if (!stats.ok()) return;
  last_step_ = std::max(last_step_, stats->global_step);
  if (stats->state == "training" && training_since_ == absl::InfiniteFuture()) training_since_ = now;
  if (bar) {
    ShowBar(ProgressBar(*stats, std::max(absl::ZeroDuration(), now - training_since_), width_ - 1));
  } else if (now >= next_line_) {
    const std::string line = ProgressLine(*stats);
    if (line != last_line_) Info(line);
    last_line_ = line;
    next_line_ = now + absl::Seconds(2);
  }
}

void Progress::ShowTransfer(const std::string& what, uint64_t done, uint64_t total, absl::Time now) {
  if (now < next_transfer_ || (total != 0 && total < kLeastShown)) return;
  next_transfer_ = now + (width_ > 0 ? kTransferBarEvery : kTransferLineEvery);
  std::string line = absl::StrFormat("%s: %.1f ", what, done / kMegabyte);
  absl::StrAppend(&line, total == 0 ? "MB" : absl::StrFormat("of %.1f MB", total / kMegabyte));
  ShowPassing(line);
}

void Progress::ShowStep(const std::string& line, absl::Time now) {
  if (now < next_transfer_) return;
  next_transfer_ = now + (width_ > 0 ? kTransferBarEvery : kTransferLineEvery);
  ShowPassing(line);
}

void Progress::ShowPassing(std::string line) {
  if (width_ == 0) return Info(line);
  if (line.size() >= static_cast<size_t>(width_)) line.resize(width_ - 1);
  ShowBar(line);
}

}  // namespace basin
