#include "ps/device/cuda_values.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/status_macros.h"
#include "common/rules/apply.h"
#include "ps/variable_rules.h"

namespace basin {

CudaValues::CudaValues(const ShardOptions& options, CudaShards& device)
    : options_(options), device_(device), rule_(RuleOf(options.rule)), slot_count_(options.slots()) {}

// ---- First touch ----

void CudaValues::EnsureParameters() {
  if (held_.parameters != nullptr) return;
  held_.parameters = device_.TakeBlock(options_.bytes());
  Fill(InitOf(options_.variable.initializer()), FansOf(options_.variable.shape()), options_.begin,
       absl::MakeSpan(device_.Upload(held_.parameters, options_.bytes()), options_.elements()));
}

void CudaValues::EnsureSlots() {
  for (size_t i = 0; i < slot_count_; ++i) {
    if (held_.slots[i] != nullptr) continue;
    held_.slots[i] = device_.TakeBlock(options_.bytes());
    std::fill_n(device_.Upload(held_.slots[i], options_.bytes()), options_.elements(),
                SlotInitialValue(rule_, static_cast<int>(i)));
  }
}

// ---- Changes ----

absl::Status CudaValues::Apply(const Push& push) {
  const size_t block = BlockPlan::BlockBytes(options_.bytes());
  BASIN_RETURN_IF_ERROR(device_.MakeRoom(block, (1 + slot_count_) * block));
  EnsureParameters();
  EnsureSlots();
  CudaApplyItem item;
  item.rule = options_.is_statistic()
                  ? MakeCudaStatistic(static_cast<StatisticKind>(options_.variable.statistic()), push.count)
                  : MakeCudaRule(rule_, push.learning_rate, push.count);
  item.elements = options_.elements();
  item.parameters_in = held_.parameters;
  item.parameters_out = fresh_.parameters = device_.TakeBlock(options_.bytes());
  for (size_t i = 0; i < slot_count_; ++i) {
    item.slots_in[i] = held_.slots[i];
    item.slots_out[i] = fresh_.slots[i] = device_.TakeBlock(options_.bytes());
  }
  gradient_ = push.gradient;
  begun_ = true;
  device_.BeginApply(this, item, push.gradient);
  return absl::OkStatus();
}

absl::Status CudaValues::Assign(absl::Span<const char> parameters) {
  const GradientView values{.data = parameters.data(), .elements = options_.elements()};
  if (!values.AllFinite()) return NotFiniteError(options_, values);
  const size_t block = BlockPlan::BlockBytes(options_.bytes());
  BASIN_RETURN_IF_ERROR(device_.MakeRoom(block, block));
  fresh_.parameters = device_.TakeBlock(options_.bytes());
  float* const upload = device_.Upload(fresh_.parameters, options_.bytes());
  if (!parameters.empty()) std::memcpy(upload, parameters.data(), parameters.size());
  begun_ = true;
  device_.BeginAssign(this, options_.bytes());
  return absl::OkStatus();
}

// As a push to a statistic that keeps the last one: so the kernel that copies it looks at it too.
absl::Status CudaValues::AssignOnDevice(const char* parameters) {
  BASIN_RETURN_IF_ERROR(device_.MakeRoom(BlockPlan::BlockBytes(options_.bytes()), 0));
  gradient_ = {.data = parameters, .on_device = true, .elements = options_.elements()};
  CudaApplyItem item;
  item.rule = MakeCudaStatistic(StatisticKind::kLast, 1);
  item.elements = options_.elements();
  item.parameters_in = reinterpret_cast<const float*>(parameters);  // which that does not use
  item.parameters_out = fresh_.parameters = device_.TakeBlock(options_.bytes());
  begun_ = true;
  device_.BeginApply(this, item, gradient_);
  return absl::OkStatus();
}

void CudaValues::Ended(const absl::Status& ran, bool not_finite) {
  begun_ = false;
  outcome_ = ran;
  if (ran.ok() && not_finite) outcome_ = NotFiniteError(options_, gradient_);
  if (outcome_.ok()) {
    std::swap(held_, fresh_);
    copy_ = std::move(fresh_copy_);
    if (copy_) device_.Keep(this);
  }
  GiveBack(std::exchange(fresh_, {}));
  fresh_copy_ = BlockRef();
}

void CudaValues::GiveBack(const Blocks& blocks) {
  device_.GiveBack(blocks.parameters, options_.bytes());
  for (float* slot : blocks.slots) device_.GiveBack(slot, options_.bytes());
}

absl::Status CudaValues::Settle() {
  if (begun_) static_cast<void>(device_.Run());  // Ended tells
  return std::exchange(outcome_, absl::OkStatus());
}

absl::Status CudaValues::Touch() {
  const bool touched = held_.parameters != nullptr || begun_;
  BASIN_RETURN_IF_ERROR(device_.MakeRoom(0, touched ? 0 : BlockPlan::BlockBytes(options_.bytes())));
  if (!touched) EnsureParameters();
  return absl::OkStatus();
}

absl::Status CudaValues::ReadOnDevice(char* to) {
  BASIN_RETURN_IF_ERROR(Touch());
  device_.CopyOnDevice(to, begun_ ? fresh_.parameters : held_.parameters, options_.bytes());
  return absl::OkStatus();
}

absl::StatusOr<wire::Frame> CudaValues::Read() {
  BASIN_RETURN_IF_ERROR(Touch());
  BlockRef& copy = begun_ ? fresh_copy_ : copy_;
  if (!copy) {
    BASIN_ASSIGN_OR_RETURN(copy, device_.Download(begun_ ? fresh_.parameters : held_.parameters, options_.bytes()));
    if (!begun_) device_.Keep(this);
  }
  return copy.ToFrame(options_.bytes());
}

}  // namespace basin
