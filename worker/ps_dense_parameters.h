// A program's parameters on parameter servers: an update is one push with the pull of what it has led to behind it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "basin/client.h"
#include "worker/train/dense_parameters.h"
#include "worker/train/timeline.h"

namespace basin {

class PsDenseParameters final : public DenseParameters {
 public:
  // `declared` and `variables` are the program's, in its order; `learning_rate` that of the declared rule. `pipeline`:
  // gradients are written while an update is under way. Memory is pinned for `device`. `client`, `device` and
  // `timeline` (null: none) must outlive it.
  PsDenseParameters(Client& client, Device& device, const std::vector<VariableDecl>& declared,
                    const std::vector<std::pair<std::string, Variable>>& variables, float learning_rate, bool pipeline,
                    Timeline* timeline);

  // Before the first step.
  absl::Status PullFirst();

  ParameterSpans parameters() const override { return parameters_[current_].read; }
  GradientSpans gradients() override { return gradients_[writing_].write; }
  void Ready(size_t) override {}
  absl::Status StartUpdate(double loss, float learning_rate) override;
  absl::Status Settle() override;

 private:
  // One set of the program's parameters, or of gradients for them. Gradients are `pushed`: they lie in memory that a
  // server of the same host reads without a copy. (What is pulled is copied anyway, and ordinary memory may have huge
  // pages.)
  struct Values {
    Values(Device& device, const std::vector<VariableDecl>& variables, bool pushed);
    std::vector<std::unique_ptr<float, void (*)(void*)>> buffers;
    std::vector<PinnedMemory> pinned;
    std::vector<absl::Span<const float>> read;
    std::vector<absl::Span<float>> write;
  };

  Client& client_;
  Timeline* const timeline_;
  std::vector<Values> gradients_;  // two with the pipeline: one set is pushed, one is written
  Values parameters_[2];           // one is read, one is pulled
  size_t writing_ = 0, current_ = 0;
  std::vector<std::vector<Source>> push_;  // by set of gradients
  std::vector<Target> pull_[2];
  std::optional<Call> under_way_;
  absl::Time started_, made_ = absl::Now();
  uint64_t steps_ = 0;  // updates started
  float learning_rate_;
};

}  // namespace basin
