// A program's parameters as a copy in each rank: gradients are averaged over the ranks by all-reduce, and every rank
// applies the same rule to the same average. The gradients are written straight into the buffers that travel, and a
// buffer sets out when the backward pass has filled it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/rules/rule_spec.h"
#include "worker/train/all_reduce_group.h"
#include "worker/train/dense_parameters.h"
#include "worker/train/dense_update.h"
#include "worker/train/fusion.h"
#include "worker/train/timeline.h"

namespace basin {

// `group` and `timeline` (null: none) must outlive it. What is no number in one rank fails the step in all of them:
// each rank takes part in the sums, and Settle tells. Parameters of a failed step are not to be used.
class AllReduceParameters final : public DenseParameters {
 public:
  // REQUIRES: Validate(rule) is OK, at least one variable.
  AllReduceParameters(const std::vector<VariableDecl>& variables, const RuleSpec& rule, uint64_t fusion_bytes,
                      AllReduceGroup& group, Timeline* timeline);

  // Before each step: which part of the step's examples this rank's batch is; the parts of all ranks sum up to 1.
  void SetShare(double share) { share_ = static_cast<float>(share); }

  ParameterSpans parameters() const override { return update_.spans(); }
  GradientSpans gradients() override { return gradients_; }
  void Ready(size_t variable) override;
  // Errors of Ready, but no ABORTED: the other ranks wait for this one, and all learn of it in Settle.
  absl::Status StartUpdate(double loss, float learning_rate) override;
  // ABORTED, in all ranks: names the rank whose loss or gradient was no number.
  absl::Status Settle() override;

  std::vector<std::vector<float>>& values() { return update_.parameters(); }
  // Of the last step that was settled: mean over the examples of all ranks.
  double mean_loss() const { return mean_loss_; }
  size_t buffers() const { return buffers_.size(); }

 private:
  struct Buffer {
    FusedBuffer layout;
    std::vector<float> values;
    size_t waits_for = 0;  // variables of this step that are not ready
    size_t ticket = 0;
    std::string text;  // which gradients these are
    absl::Time started;
  };

  void Start(Buffer& buffer);
  // What the last buffer carries behind its gradients.
  float* Tail() { return buffers_.back().values.data() + buffers_.back().layout.elements; }
  absl::Status Failure(const std::string& not_finite);

  AllReduceGroup& group_;
  Timeline* const timeline_;
  DenseUpdate update_;
  std::vector<std::string> names_;  // of the variables
  std::vector<Buffer> buffers_;     // in the order in which they start
  std::vector<size_t> buffer_of_;   // by variable
  std::vector<absl::Span<float>> gradients_;
  float share_ = 1;
  float learning_rate_ = 0;
  uint64_t step_ = 0;   // the one that is computed or under way, from 1
  size_t started_ = 0;  // buffers of this step
  bool under_way_ = false;
  std::string failure_;  // of this rank, in this step
  absl::Status broken_;  // a sum could not be started
  double mean_loss_ = 0;
};

}  // namespace basin
