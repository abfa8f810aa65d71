// Kernel ladders: the same work on the CPU, by a naive kernel and by the tuned one that Basin uses, each checked before
// it is timed.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace basin {

struct LadderOptions {
  bool device = true;           // else the CPU's steps alone
  bool cpu = false;             // the CPU's steps, too
  std::string only;             // part of a ladder's name; empty: all
  double seconds = 0.5;         // a step is repeated for so long, and at least kRepeats times
  uint64_t bytes = 1ull << 30;  // of parameters
  uint64_t keys = 1'000'000;    // of a batch that is merged
  uint64_t rows = 100'000'000;  // of the table, or what fits
  static constexpr int kRepeats = 5;
};

// What one step of a ladder does, `work`, once. Where it starts work on the device, it does so in the ladder's stream.
struct LadderStep {
  std::string ladder;  // "apply/rule:adam/bytes:1073741824"
  std::string name;    // "cpu", "naive", "tuned"
  std::string gain;    // what changed from the step before, and why it should help
  double bytes = 0;    // that must move, whoever does it
  double items = 0;    // what is counted: elements, keys, rows
  bool on_device = true;
  std::function<absl::Status()> work;
  std::function<absl::Status()> check;  // after the first work: an error names what differs
};

// Runs steps and keeps what came out. Not thread-safe.
class Ladders {
 public:
  // `stream` is null without a device.
  Ladders(LadderOptions options, cudaStream_t stream) : options_(std::move(options)), stream_(stream) {}

  const LadderOptions& options() const { return options_; }
  cudaStream_t stream() const { return stream_; }
  bool Wants(absl::string_view ladder) const;
  // Does the work once, checks it, then times it. A check that fails is an error, and no time is shown.
  absl::Status Run(const LadderStep& step);
  // Times copies from device memory to device memory, which all ratios refer to: the median of all calls.
  absl::Status MeasureCopy();
  void NotMeasured(std::string what) { not_measured_.push_back(std::move(what)); }

  // One line a step, for people; call after all have run.
  std::string Text() const;
  nlohmann::json Json() const;

 private:
  struct Result {
    LadderStep step;
    std::vector<double> seconds;  // ascending
  };
  absl::Status Time(const LadderStep& step, std::vector<double>* seconds) const;
  double CopyBandwidth() const;

  const LadderOptions options_;
  const cudaStream_t stream_;
  std::vector<Result> results_;
  std::vector<double> copies_;  // bytes a second
  std::vector<std::string> not_measured_;
};

absl::Status CheckCuda(cudaError_t error, absl::string_view what);

// Each adds its steps.
absl::Status RunApplyLadders(Ladders& ladders);
absl::Status RunMergeLadder(Ladders& ladders);
absl::Status RunTableLadder(Ladders& ladders);

}  // namespace basin
