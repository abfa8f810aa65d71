// The rules in this process alone: every shard is checked and applied as a server does it, without network or server.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/harness/exact_sums.h"
#include "bench/harness/huge_array.h"
#include "bench/harness/task.h"
#include "common/base/status_macros.h"
#include "common/rules/apply.h"

namespace basin::bench {
namespace {

constexpr size_t kShardFloats = (size_t{1} << 20) / sizeof(float);  // as placement cuts large variables

// spec: "rule", "bytes". The arrays lie as those of the limit beside it. A round answers with payload bytes: those of
// the gradient.
class ApplyTask final : public Task {
 public:
  absl::StatusOr<Json> Start(const Json& spec) override {
    const std::optional<RuleKind> kind = RuleKindFromName(spec.value("rule", "sgd"));
    if (!kind) return absl::InvalidArgumentError(absl::StrCat("there is no rule ", spec.value("rule", "")));
    rule_ = ExactRule(*kind);
    const size_t count = spec.value("bytes", size_t{64} << 20) / sizeof(float);
    BASIN_RETURN_IF_ERROR(AddArray(count, 0.0f));
    gradient_ = arrays_[0].floats();
    FillGradient(0, gradient_);
    BASIN_RETURN_IF_ERROR(AddArray(count, 0.0f));
    parameters_ = arrays_[1].floats();
    for (int slot = 0; slot < SlotCount(*kind); ++slot) {
      BASIN_RETURN_IF_ERROR(AddArray(count, SlotInitialValue(rule_, slot)));
      slots_.push_back(arrays_.back().floats());
    }
    return Json::object();
  }

  absl::StatusOr<Json> Do(const Json& command) override {
    if (command.value("do", "") == "verify") {
      BASIN_RETURN_IF_ERROR(CheckVariable("of the process", 0, ExpectedAfter(rule_, passes_), parameters_));
      return Json::object();
    }
    const double seconds = command.value("seconds", 0.5);
    uint64_t bytes = 0;
    const Clock::time_point start = Clock::now();
    do {
      BASIN_RETURN_IF_ERROR(Pass());
      bytes += gradient_.size() * sizeof(float);
    } while (SecondsSince(start) < seconds && passes_ < kMostPushes);
    return Json{{"bytes", bytes}, {"seconds", SecondsSince(start)}};
  }

 private:
  absl::Status AddArray(size_t count, float value) {
    BASIN_ASSIGN_OR_RETURN(HugeArray array, HugeArray::Make(count, arrays_.size(), value));
    arrays_.push_back(std::move(array));
    return absl::OkStatus();
  }

  absl::Status Pass() {
    ++passes_;
    for (size_t begin = 0; begin < gradient_.size(); begin += kShardFloats) {
      const size_t count = std::min(kShardFloats, gradient_.size() - begin);
      ApplyArguments shard;
      shard.gradient = {gradient_.data() + begin, count};
      if (!AllFinite(shard.gradient)) return absl::InternalError("a gradient of whole numbers counts as not finite");
      shard.parameters_in = {parameters_.data() + begin, count};
      shard.parameters_out = {parameters_.data() + begin, count};
      for (size_t slot = 0; slot < slots_.size(); ++slot) {
        shard.slots_in[slot] = {slots_[slot].data() + begin, count};
        shard.slots_out[slot] = {slots_[slot].data() + begin, count};
      }
      shard.step = passes_;
      shard.learning_rate = rule_.learning_rate;
      Apply(rule_, shard);
    }
    return absl::OkStatus();
  }

  RuleSpec rule_;
  uint64_t passes_ = 0;
  std::vector<HugeArray> arrays_;
  absl::Span<float> gradient_, parameters_;
  std::vector<absl::Span<float>> slots_;
};

}  // namespace

std::unique_ptr<Task> MakeApplyTask() { return std::make_unique<ApplyTask>(); }

}  // namespace basin::bench
