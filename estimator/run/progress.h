// A run's progress on standard error: on a terminal one line that is rewritten, else lines now and then.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "estimator/run/stats.h"

namespace basin {

class Progress {
 public:
  // `terminal_width`: columns of the terminal on standard error; 0: plain lines.
  explicit Progress(int terminal_width) : width_(terminal_width) {}

  absl::Time next() const { return next_; }
  int64_t last_step() const { return last_step_; }
  // From now on by what the cluster tells; `source` may be none.
  void Begin(std::unique_ptr<StatsSource> source, absl::Time now);
  void End();
  void Show(absl::Time now);
  // Bytes on their way to a node, before the tasks run: "n1: snapshot: 12.0 of 300.0 MB". Little is not worth a line.
  // `total`: 0 where it is not known.
  void ShowTransfer(const std::string& what, uint64_t done, uint64_t total, absl::Time now);
  // What is being done on a node before the tasks run, now and then.
  void ShowStep(const std::string& line, absl::Time now);
  // Before other text is written.
  void Clear();

 private:
  void ShowBar(const std::string& line);
  void ShowPassing(std::string line);
  const int width_;
  std::unique_ptr<StatsSource> source_;
  absl::Time next_ = absl::InfiniteFuture();
  absl::Time next_line_ = absl::InfinitePast();
  absl::Time next_transfer_ = absl::InfinitePast();
  absl::Time training_since_ = absl::InfiniteFuture();
  std::string last_line_;
  int64_t last_step_ = 0;
  bool bar_shown_ = false;
};

}  // namespace basin
