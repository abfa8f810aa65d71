// A program's parameters on parameter servers: an update is one push with the pull of what it has led to behind it.
//
// Where the device has memory of its own, parameters and gradients are there, and the client moves them: an update is a
// push and pull for each of some groups of variables, in the order of the backward pass, each behind the kernels that
// make its gradients, and the next forward pass waits for all of them on the device.
#pragma once

#include <memory>
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
  // `declared` and `variables` are the program's, in its order. `pipeline`: gradients are written while an update is
  // under way. All that is passed must outlive it; `timeline` may be null.
  PsDenseParameters(Client& client, Device& device, const std::vector<VariableDecl>& declared,
                    const std::vector<std::pair<std::string, Variable>>& variables, bool pipeline, Timeline* timeline);

  // Before the first step: makes the memory, and pulls. RESOURCE_EXHAUSTED: the device has none left.
  absl::Status Start();

  MemoryOf values() const override { return device_.is_host() ? MemoryOf::kHost : MemoryOf::kDevice; }
  ParameterSpans parameters() const override { return parameters_[current_].read; }
  GradientSpans gradients() override { return gradients_[writing_].write; }
  void Ready(size_t variable) override;
  absl::Status StartUpdate(double loss, float learning_rate) override;
  absl::Status Settle() override;
  absl::Status SettleInOrder() override;

 private:
  // One set of the program's parameters, or of gradients for them.
  struct Values {
    std::vector<DeviceMemory> memory;
    std::vector<absl::Span<const float>> read;
    std::vector<absl::Span<float>> write;
  };
  // On the host, gradients are `pushed`: they lie in memory that a server of the same host reads without a copy. (What
  // is pulled is copied anyway, and ordinary memory may have huge pages.)
  absl::StatusOr<Values> Make(bool pushed) const;
  // What the client is told of one set, by group.
  template <typename Buffer, typename Span>
  std::vector<std::vector<Buffer>> ByGroup(const std::vector<Span>& spans, const Location& where) const;
  // Waits for the update under way.
  absl::Status Collect();
  void Show();

  Client& client_;
  Device& device_;
  const std::vector<VariableDecl>& declared_;
  const std::vector<std::pair<std::string, Variable>>& variables_;
  const bool pipeline_;
  Timeline* const timeline_;
  std::vector<std::vector<size_t>> groups_;  // of variables that travel together; the last is ready last
  std::vector<Values> gradients_;            // with the pipeline one set is pushed, one is written
  std::vector<Values> parameters_;           // one is read, one is pulled; see Start
  size_t writing_ = 0, current_ = 0;
  std::vector<std::vector<std::vector<Source>>> push_;  // by set of gradients, by group
  std::vector<std::vector<std::vector<Target>>> pull_;  // by set of parameters, by group
  std::vector<uint64_t> made_;   // of the groups that are ready: the device's marks behind their gradients
  std::vector<Call> under_way_;  // by group; their outcome is not known yet
  bool shown_ = true;            // by parameters(): the update started last
  absl::Time started_, constructed_ = absl::Now();
  uint64_t steps_ = 0;  // updates started
};

}  // namespace basin
