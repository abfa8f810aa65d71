// How far a task has trained, for metrics and the log.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace basin {

// Metrics of the steps since the last report, so that they are told as means and not of single batches.
class TrainingProgress {
 public:
  void Add(double loss, uint64_t examples) {
    loss_ = steps_ == 0 ? loss : loss_ + 0.05 * (loss - loss_);  // exponential mean over about 20 steps
    ++steps_;
    examples_ += examples;
    since_report_ += examples;
    const absl::Time now = absl::Now();
    if (now - report_ >= absl::Seconds(0.5)) {
      examples_per_s_ = static_cast<double>(since_report_) / absl::ToDoubleSeconds(now - report_);
      report_ = now;
      since_report_ = 0;
    }
  }
  double loss() const { return loss_; }
  double examples_per_s() const {
    const double total = absl::ToDoubleSeconds(absl::Now() - start_);
    return examples_per_s_ > 0 ? examples_per_s_ : total > 0 ? static_cast<double>(examples_) / total : 0;
  }
  uint64_t steps() const { return steps_; }
  double seconds() const { return absl::ToDoubleSeconds(absl::Now() - start_); }
  // "done: 100 steps, 12800 examples in 1.0 s (12800 examples/s), loss 0.1234"
  std::string Sentence() const {
    return absl::StrFormat("done: %d steps, %d examples in %.1f s (%.0f examples/s), loss %.4f", steps_, examples_,
                           seconds(), static_cast<double>(examples_) / std::max(1e-9, seconds()), loss_);
  }

 private:
  const absl::Time start_ = absl::Now();
  absl::Time report_ = start_;
  double loss_ = 0;
  double examples_per_s_ = 0;
  uint64_t steps_ = 0, examples_ = 0, since_report_ = 0;
};

}  // namespace basin
