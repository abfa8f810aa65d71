// Applying a gradient, by rule and size, beside the plainest update there is.
#include <benchmark/benchmark.h>

#include <vector>

#include "common/rules/apply.h"

namespace basin {
namespace {

// The limit: one stream read, one read and written.
void BM_AddInPlace(benchmark::State& state) {
  const auto count = static_cast<size_t>(state.range(0)) / sizeof(float);
  std::vector<float> d(count, 1), s(count, 0.5f);
  for (auto _ : state) {
    float* to = d.data();
    const float* from = s.data();
    for (size_t i = 0; i < count; ++i) to[i] += from[i];
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_AddInPlace)->ArgName("bytes")->Arg(1 << 20)->Arg(64 << 20);

void BM_Apply(benchmark::State& state, RuleKind kind) {
  const auto count = static_cast<size_t>(state.range(0)) / sizeof(float);
  RuleSpec rule;
  rule.kind = kind;
  std::vector<float> gradient(count, 0.5f), parameters(count, 1);
  std::vector<std::vector<float>> slots;
  for (int slot = 0; slot < SlotCount(kind); ++slot) slots.emplace_back(count, SlotInitialValue(rule, slot));
  ApplyArguments arguments;
  arguments.gradient = gradient;
  arguments.parameters_in = parameters;
  arguments.parameters_out = absl::MakeSpan(parameters);
  for (size_t slot = 0; slot < slots.size(); ++slot) {
    arguments.slots_in[slot] = slots[slot];
    arguments.slots_out[slot] = absl::MakeSpan(slots[slot]);
  }
  arguments.learning_rate = 1e-6f;
  for (auto _ : state) {
    // As a shard does it: checked while in cache, then applied.
    bool finite = AllFinite(gradient);
    benchmark::DoNotOptimize(finite);
    Apply(rule, arguments);
    ++arguments.step;
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
// The formatter would put spaces into the names.
// clang-format off
BENCHMARK_CAPTURE(BM_Apply, rule:sgd, RuleKind::kSgd)->ArgName("bytes")->Arg(1 << 20)->Arg(64 << 20);
BENCHMARK_CAPTURE(BM_Apply, rule:momentum, RuleKind::kMomentum)->ArgName("bytes")->Arg(1 << 20)->Arg(64 << 20);
BENCHMARK_CAPTURE(BM_Apply, rule:adagrad, RuleKind::kAdagrad)->ArgName("bytes")->Arg(1 << 20)->Arg(64 << 20);
BENCHMARK_CAPTURE(BM_Apply, rule:adam, RuleKind::kAdam)->ArgName("bytes")->Arg(1 << 20)->Arg(64 << 20);
// clang-format on

}  // namespace
}  // namespace basin
