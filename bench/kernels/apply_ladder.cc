// Rules on dense parameters: common/rules/apply and cuda_apply.
#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/kernels/ladder.h"
#include "bench/kernels/naive_kernels.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_memory.h"
#include "common/rules/apply.h"
#include "common/rules/cuda_apply.h"

namespace basin {
namespace {

constexpr float kRate = 0.01f;
constexpr uint64_t kStep = 3;
// Streams of samples.
constexpr uint64_t kGradient = 1, kParameter = 2, kSlot = 3;
// Elements that are compared with the host: so many at the beginning, in the middle and at the end.
constexpr uint64_t kCompared = 1 << 16;
constexpr uint32_t kShards = 512;
constexpr uint64_t kShardElements = 1024;

// Elements [first, first + count) of what a step reads, and after Apply of what it writes.
struct Piece {
  uint64_t first;
  std::vector<float> gradient, parameters;
  std::vector<std::vector<float>> slots;

  Piece(const RuleSpec& rule, uint64_t begin, uint64_t count) : first(begin) {
    const auto fill = [&](uint64_t stream, float low, std::vector<float>* out) {
      out->resize(count);
      for (uint64_t i = 0; i < count; ++i) (*out)[i] = SampleAt(stream, begin + i, low);
    };
    fill(kGradient, -0.5f, &gradient);
    fill(kParameter, -0.5f, &parameters);
    slots.resize(static_cast<size_t>(SlotCount(rule.kind)));
    for (size_t slot = 0; slot < slots.size(); ++slot) fill(kSlot + slot, 0, &slots[slot]);
  }
  bool ApplyOnHost(const RuleSpec& rule) {
    ApplyArguments arguments;
    arguments.gradient = gradient;
    arguments.parameters_in = parameters;
    arguments.parameters_out = absl::MakeSpan(parameters);
    for (size_t slot = 0; slot < slots.size(); ++slot) {
      arguments.slots_in[slot] = slots[slot];
      arguments.slots_out[slot] = absl::MakeSpan(slots[slot]);
    }
    arguments.step = kStep;
    arguments.learning_rate = kRate;
    const bool finite = AllFinite(gradient);
    Apply(rule, arguments);
    return finite;
  }
};

struct Memory {
  CudaMemory gradient, parameters_in, parameters_out, slots_in[kMaxSlots], slots_out[kMaxSlots], item, not_finite;
};

absl::Status Same(const std::vector<float>& expected, const float* there, uint64_t first, absl::string_view what) {
  std::vector<float> found(expected.size());
  BASIN_RETURN_IF_ERROR(
      CheckCuda(cudaMemcpy(found.data(), there + first, found.size() * sizeof(float), cudaMemcpyDeviceToHost), "copy"));
  for (size_t i = 0; i < found.size(); ++i) {
    if (std::memcmp(&found[i], &expected[i], sizeof(float)) == 0) continue;
    return absl::InternalError(
        absl::StrCat(what, ": element ", first + i, " is ", found[i], ", expected ", expected[i]));
  }
  return absl::OkStatus();
}

absl::Status Compare(const RuleSpec& rule, const CudaApplyItem& item, const Memory& memory) {
  uint32_t not_finite = 1;
  BASIN_RETURN_IF_ERROR(
      CheckCuda(cudaMemcpy(&not_finite, memory.not_finite.data(), sizeof(not_finite), cudaMemcpyDeviceToHost), "copy"));
  if (not_finite != 0) return absl::InternalError("a gradient was found not to be finite");
  const uint64_t count = std::min(kCompared, item.elements);
  for (const uint64_t first : {uint64_t{0}, (item.elements - count) / 2, item.elements - count}) {
    Piece piece(rule, first, count);
    piece.ApplyOnHost(rule);
    BASIN_RETURN_IF_ERROR(Same(piece.parameters, item.parameters_out, first, "parameters"));
    for (size_t slot = 0; slot < piece.slots.size(); ++slot) {
      BASIN_RETURN_IF_ERROR(Same(piece.slots[slot], item.slots_out[slot], first, SlotName(rule.kind, slot)));
    }
  }
  return absl::OkStatus();
}

absl::Status Allocate(Ladders& ladders, const RuleSpec& rule, uint64_t elements, Memory* memory, CudaApplyItem* item) {
  const auto make = [&](CudaMemory* piece, uint64_t stream, float low) -> absl::Status {
    BASIN_RETURN_IF_ERROR(piece->Resize("cuda", elements * sizeof(float)));
    return CheckCuda(StartFillSamples(ladders.stream(), stream, low, elements, piece->as<float>()), "fill");
  };
  BASIN_RETURN_IF_ERROR(make(&memory->gradient, kGradient, -0.5f));
  BASIN_RETURN_IF_ERROR(make(&memory->parameters_in, kParameter, -0.5f));
  BASIN_RETURN_IF_ERROR(memory->parameters_out.Resize("cuda", elements * sizeof(float)));
  BASIN_RETURN_IF_ERROR(memory->item.Resize("cuda", sizeof(CudaApplyItem)));
  BASIN_RETURN_IF_ERROR(memory->not_finite.Resize("cuda", sizeof(uint32_t)));
  item->rule = MakeCudaRule(rule, kRate, kStep);
  item->gradient = memory->gradient.as<float>();
  item->parameters_in = memory->parameters_in.as<float>();
  item->parameters_out = memory->parameters_out.as<float>();
  item->elements = elements;
  for (int slot = 0; slot < SlotCount(rule.kind); ++slot) {
    BASIN_RETURN_IF_ERROR(make(&memory->slots_in[slot], kSlot + slot, 0));
    BASIN_RETURN_IF_ERROR(memory->slots_out[slot].Resize("cuda", elements * sizeof(float)));
    item->slots_in[slot] = memory->slots_in[slot].as<float>();
    item->slots_out[slot] = memory->slots_out[slot].as<float>();
  }
  return absl::OkStatus();
}

// The first elements of all, as a lane's batch of small shards.
absl::Status RunShards(Ladders& ladders, const LadderStep& of_all, const RuleSpec& rule, const CudaApplyItem& all,
                       const Memory& memory) {
  if (all.elements < kShards * kShardElements) return absl::OkStatus();
  std::vector<CudaApplyItem> items(kShards, all);
  for (uint64_t i = 0; i < kShards; ++i) {
    const uint64_t begin = i * kShardElements;
    items[i].gradient += begin;
    items[i].parameters_in += begin;
    items[i].parameters_out += begin;
    for (int slot = 0; slot < SlotCount(rule.kind); ++slot) {
      items[i].slots_in[slot] += begin;
      items[i].slots_out[slot] += begin;
    }
    items[i].elements = kShardElements;
  }
  const uint64_t chunks = CountChunks(items.data(), kShards);
  CudaMemory items_there, not_finite;
  BASIN_RETURN_IF_ERROR(items_there.Resize("cuda", kShards * sizeof(CudaApplyItem)));
  BASIN_RETURN_IF_ERROR(not_finite.Resize("cuda", kShards * sizeof(uint32_t)));
  BASIN_RETURN_IF_ERROR(CheckCuda(cudaMemcpyAsync(items_there.data(), items.data(), kShards * sizeof(CudaApplyItem),
                                                  cudaMemcpyHostToDevice, ladders.stream()),
                                  "copy items"));
  LadderStep step = of_all;
  step.ladder =
      absl::StrCat("apply/rule:", Name(rule.kind), "/shards:", kShards, "/bytes:", kShardElements * sizeof(float));
  step.gain = "the same kernel on a batch of small shards: one launch for all of them";
  step.bytes = of_all.bytes / of_all.items * kShards * kShardElements;
  step.items = kShards * kShardElements;
  step.work = [&] {
    return CheckCuda(
        StartApply(ladders.stream(), items_there.as<CudaApplyItem>(), kShards, chunks, not_finite.as<uint32_t>()),
        "apply");
  };
  CudaApplyItem compared = all;
  compared.elements = kShards * kShardElements;
  step.check = [&] { return Compare(rule, compared, memory); };
  return ladders.Run(step);
}

absl::Status RunRule(Ladders& ladders, RuleKind kind) {
  RuleSpec rule;
  rule.kind = kind;
  const uint64_t elements = ladders.options().bytes / sizeof(float);
  const double arrays = 3 + 2 * SlotCount(kind);  // the gradient is read; parameters and slots are read and written
  LadderStep step{.ladder = absl::StrCat("apply/rule:", Name(kind), "/bytes:", elements * sizeof(float)),
                  .bytes = arrays * static_cast<double>(elements) * sizeof(float),
                  .items = static_cast<double>(elements)};
  if (!ladders.Wants(step.ladder)) return absl::OkStatus();
  if (ladders.options().cpu) {
    Piece all(rule, 0, elements);
    bool finite = true;
    LadderStep cpu = step;
    cpu.name = "cpu";
    cpu.gain = "one thread: a check of each gradient, then vectorised loops in place";
    cpu.on_device = false;
    cpu.work = [&] {
      finite = all.ApplyOnHost(rule) && finite;
      return absl::OkStatus();
    };
    cpu.check = [&] { return finite ? absl::OkStatus() : absl::InternalError("a gradient was not finite"); };
    BASIN_RETURN_IF_ERROR(ladders.Run(cpu));
  }
  if (!ladders.options().device) return absl::OkStatus();
  Memory memory;
  CudaApplyItem item;
  BASIN_RETURN_IF_ERROR(Allocate(ladders, rule, elements, &memory, &item));
  const auto clear = [&] {
    return CheckCuda(cudaMemsetAsync(item.parameters_out, 0xff, elements * sizeof(float), ladders.stream()), "clear");
  };
  auto* const not_finite = memory.not_finite.as<uint32_t>();
  LadderStep naive = step;
  naive.name = "naive";
  naive.gain =
      "the device's bandwidth; a thread an element, and the gradient is read twice: to check it and to apply it";
  naive.work = [&] { return CheckCuda(StartNaiveApply(ladders.stream(), item, not_finite), "naive apply"); };
  naive.check = [&] { return Compare(rule, item, memory); };
  BASIN_RETURN_IF_ERROR(clear());
  BASIN_RETURN_IF_ERROR(ladders.Run(naive));

  const uint64_t chunks = CountChunks(&item, 1);
  // In the stream: a plain copy of memory that is not pinned may return before it has arrived.
  BASIN_RETURN_IF_ERROR(
      CheckCuda(cudaMemcpyAsync(memory.item.data(), &item, sizeof(item), cudaMemcpyHostToDevice, ladders.stream()),
                "copy an item"));
  LadderStep tuned = step;
  tuned.name = "tuned";
  tuned.gain =
      "check and apply in one pass, into fresh blocks, so that each gradient is read once; four floats an access, "
      "several of them under way in each thread";
  tuned.work = [&] {
    return CheckCuda(StartApply(ladders.stream(), memory.item.as<CudaApplyItem>(), 1, chunks, not_finite), "apply");
  };
  tuned.check = naive.check;
  BASIN_RETURN_IF_ERROR(clear());
  BASIN_RETURN_IF_ERROR(ladders.Run(tuned));
  BASIN_RETURN_IF_ERROR(clear());
  return RunShards(ladders, tuned, rule, item, memory);
}

}  // namespace

absl::Status RunApplyLadders(Ladders& ladders) {
  for (const RuleKind kind : {RuleKind::kSgd, RuleKind::kMomentum, RuleKind::kAdagrad, RuleKind::kAdam}) {
    BASIN_RETURN_IF_ERROR(RunRule(ladders, kind));
  }
  return absl::OkStatus();
}

}  // namespace basin
