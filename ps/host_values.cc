#include "ps/host_values.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/rules/apply.h"
#include "ps/mutants.h"
#include "ps/variable_rules.h"

namespace basin {
namespace {

// Floats that a gradient in 16 bits is made into at once: 32 KiB, which stay in the first cache until they are applied.
constexpr size_t kPieceElements = 8192;

}  // namespace

HostValues::HostValues(const ShardOptions& options, std::shared_ptr<BlockPool> pool)
    : options_(options), pool_(std::move(pool)), rule_(RuleOf(options.rule)), slot_count_(options.slots()) {}

absl::Status HostValues::NoMemory() const {
  return absl::ResourceExhaustedError(absl::StrCat(
      options_.Place(), ": no memory for a block of ", options_.bytes(), " bytes, ", pool_->mapped_bytes(), " of ",
      pool_->limit_bytes(), " bytes are in use; start basin-ps with a larger --memory-limit or use more ps"));
}

absl::Status HostValues::EnsureParameters() {
  if (parameters_) return absl::OkStatus();
  BlockRef block = pool_->Allocate(options_.bytes());
  if (!block) return NoMemory();
  Fill(InitOf(options_.variable.initializer()), FansOf(options_.variable.shape()), options_.begin,
       absl::MakeSpan(block.mutable_floats(), options_.elements()));
  parameters_ = std::move(block);
  return absl::OkStatus();
}

absl::Status HostValues::EnsureSlots() {
  if (slot_count_ == 0 || slots_[slot_count_ - 1]) return absl::OkStatus();
  std::array<BlockRef, kMaxSlots> slots;
  for (size_t i = 0; i < slot_count_; ++i) {
    BlockRef block = pool_->Allocate(options_.bytes());
    if (!block) return NoMemory();
    std::fill_n(block.mutable_floats(), options_.elements(), SlotInitialValue(rule_, static_cast<int>(i)));
    slots[i] = std::move(block);
  }
  slots_ = std::move(slots);
  return absl::OkStatus();
}

// One pass over the shard, in pieces where the gradient has to be made into floats first: so its bytes are read from
// the message, and from nowhere else.
void HostValues::ApplyInPieces(const Push& push, Fresh& fresh) {
  alignas(kShardAlignmentBytes) float room[kPieceElements];
  const size_t elements = options_.elements();
  const size_t piece = push.gradient.IsFloats() ? elements : kPieceElements;
  for (size_t begin = 0, n; begin < elements; begin += n) {
    n = std::min(piece, elements - begin);
    const auto in = [&](const BlockRef& block) { return absl::MakeConstSpan(block.floats() + begin, n); };
    const auto out = [&](BlockRef& unshared, BlockRef& held) {
      return absl::MakeSpan((unshared ? unshared : held).mutable_floats() + begin, n);
    };
    const absl::Span<const float> values = push.gradient.Floats(begin, n, room);
    if (options_.is_statistic()) {
      ApplyStatistic(static_cast<StatisticKind>(options_.variable.statistic()), push.count, values, in(parameters_),
                     out(fresh.parameters, parameters_));
      continue;
    }
    ApplyArguments arguments{.gradient = values,
                             .parameters_in = in(parameters_),
                             .parameters_out = out(fresh.parameters, parameters_),
                             .step = push.count,
                             .learning_rate = push.learning_rate};
    for (size_t i = 0; i < slot_count_; ++i) {
      arguments.slots_in[i] = in(slots_[i]);
      arguments.slots_out[i] = out(fresh.slots[i], slots_[i]);
    }
    basin::Apply(rule_, arguments);
  }
}

absl::Status HostValues::Apply(const Push& push) {
  if (!push.gradient.AllFinite()) return NotFiniteError(options_, push.gradient);
  BASIN_RETURN_IF_ERROR(EnsureParameters());
  BASIN_RETURN_IF_ERROR(EnsureSlots());

  // Every block that somebody else reads is replaced by a fresh one; all are there before anything is written.
  Fresh fresh;
  for (size_t i = 0; i <= slot_count_; ++i) {
    const BlockRef& held = i == 0 ? parameters_ : slots_[i - 1];
    if (held.IsUnique() || BASIN_MUTANT(kServeTornShard)) continue;
    BlockRef block = pool_->Allocate(options_.bytes());
    if (!block) return NoMemory();
    (i == 0 ? fresh.parameters : fresh.slots[i - 1]) = std::move(block);
  }
  ApplyInPieces(push, fresh);
  if (fresh.parameters) parameters_ = std::move(fresh.parameters);
  for (size_t i = 0; i < slot_count_; ++i) {
    if (fresh.slots[i]) slots_[i] = std::move(fresh.slots[i]);
  }
  return absl::OkStatus();
}

absl::Status HostValues::Assign(absl::Span<const char> parameters) {
  const GradientView values{.data = parameters.data(), .elements = options_.elements()};
  if (!values.AllFinite()) return NotFiniteError(options_, values);
  if (!parameters_ || !parameters_.IsUnique()) {
    BlockRef block = pool_->Allocate(options_.bytes());
    if (!block) return NoMemory();
    parameters_ = std::move(block);
  }
  if (!parameters.empty()) std::memcpy(parameters_.mutable_floats(), parameters.data(), parameters.size());
  slots_ = {};
  return absl::OkStatus();
}

absl::StatusOr<wire::Frame> HostValues::Read() {
  BASIN_RETURN_IF_ERROR(EnsureParameters());
  return parameters_.ToFrame(options_.bytes());
}

}  // namespace basin
