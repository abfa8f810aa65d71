#include "worker/ps_dense_parameters.h"

#include <cstdlib>

#include "absl/strings/str_format.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/model_file.h"

namespace basin {

PsDenseParameters::Values::Values(Device& device, const std::vector<VariableDecl>& variables, bool pushed) {
  for (const VariableDecl& variable : variables) {
    const size_t elements = variable.elements(), bytes = elements * sizeof(float);
    buffers.emplace_back(static_cast<float*>(pushed ? basin_allocate(bytes) : std::calloc(elements, sizeof(float))),
                         pushed ? &basin_deallocate : &std::free);
    BASIN_CHECK(buffers.back() != nullptr || elements == 0);
    pinned.push_back(device.Pin(buffers.back().get(), bytes));
    read.emplace_back(buffers.back().get(), elements);
    write.emplace_back(buffers.back().get(), elements);
  }
}

PsDenseParameters::PsDenseParameters(Client& client, Device& device, const std::vector<VariableDecl>& declared,
                                     const std::vector<std::pair<std::string, Variable>>& variables,
                                     float learning_rate, bool pipeline, Timeline* timeline)
    : client_(client),
      timeline_(timeline),
      parameters_{Values(device, declared, /*pushed=*/false), Values(device, declared, /*pushed=*/false)},
      learning_rate_(learning_rate) {
  for (int set = 0; set < (pipeline ? 2 : 1); ++set) gradients_.emplace_back(device, declared, /*pushed=*/true);
  for (const Values& gradients : gradients_) {
    push_.emplace_back();
    for (size_t i = 0; i < variables.size(); ++i) {
      push_.back().emplace_back(variables[i].second, gradients.read[i].data(), gradients.read[i].size());
    }
  }
  for (size_t set = 0; set < 2; ++set) {
    for (size_t i = 0; i < variables.size(); ++i) {
      const absl::Span<float> target = parameters_[set].write[i];
      pull_[set].emplace_back(variables[i].second, target.data(), target.size());
    }
  }
  if (timeline_ != nullptr) timeline_->NameRow(1, "push and pull");
}

absl::Status PsDenseParameters::PullFirst() { return ToAbslStatus(client_.Pull(pull_[current_]).Wait()); }

absl::Status PsDenseParameters::StartUpdate(double loss, float learning_rate) {
  BASIN_RETURN_IF_ERROR(CheckLoss(loss, ++steps_));
  if (learning_rate != learning_rate_) {
    BASIN_RETURN_IF_ERROR(ToAbslStatus(client_.SetLearningRate(learning_rate)));
    learning_rate_ = learning_rate;
  }
  started_ = absl::Now();
  under_way_.emplace(client_.PushPull(push_[writing_], pull_[1 - current_]));
  writing_ = (writing_ + 1) % gradients_.size();
  return absl::OkStatus();
}

absl::Status PsDenseParameters::Settle() {
  if (!under_way_) return absl::OkStatus();
  BASIN_RETURN_IF_ERROR(ToAbslStatus(under_way_->Wait()));
  under_way_.reset();
  current_ = 1 - current_;
  if (timeline_ != nullptr) {
    uint64_t bytes = 0;
    for (const absl::Span<const float> values : parameters_[0].read) bytes += values.size() * sizeof(float);
    timeline_->Add("push and pull", 1, started_, absl::Now(), steps_, bytes);
  }
  if (steps_ == 1) {
    Info(absl::StrFormat("first step, after %.3f s in the loop", absl::ToDoubleSeconds(absl::Now() - made_)));
  }
  return absl::OkStatus();
}

}  // namespace basin
