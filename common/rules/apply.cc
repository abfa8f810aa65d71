#include "common/rules/apply.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>

#include "common/base/status_macros.h"
#include "common/base/vector_clones.h"
#include "common/rules/rule_math.h"

// One loop serves both variants, in place and into another block: iteration i reads and writes index i only, so that no
// iteration depends on another.

namespace basin {
namespace {

BASIN_VECTOR_CLONES void SgdLoop(size_t n, float rate, const float* g, const float* w_in, float* w_out) {
  BASIN_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) w_out[i] = SgdStep(rate, g[i], w_in[i]);
}

BASIN_VECTOR_CLONES void MomentumLoop(size_t n, float rate, float momentum, const float* g, const float* w_in,
                                      float* w_out, const float* v_in, float* v_out) {
  BASIN_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    const MomentumState next = MomentumStep(rate, momentum, g[i], {w_in[i], v_in[i]});
    w_out[i] = next.w;
    v_out[i] = next.v;
  }
}

BASIN_VECTOR_CLONES void NesterovLoop(size_t n, float rate, float momentum, const float* g, const float* w_in,
                                      float* w_out, const float* v_in, float* v_out) {
  BASIN_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    const MomentumState next = NesterovStep(rate, momentum, g[i], {w_in[i], v_in[i]});
    w_out[i] = next.w;
    v_out[i] = next.v;
  }
}

BASIN_VECTOR_CLONES void AdagradLoop(size_t n, float rate, float epsilon, const float* g, const float* w_in,
                                     float* w_out, const float* a_in, float* a_out) {
  BASIN_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    const AdagradState next = AdagradStep(rate, epsilon, g[i], {w_in[i], a_in[i]});
    w_out[i] = next.w;
    a_out[i] = next.a;
  }
}

BASIN_VECTOR_CLONES void AdamLoop(size_t n, AdamNumbers numbers, const float* g, const float* w_in, float* w_out,
                                  const float* m_in, float* m_out, const float* v_in, float* v_out) {
  BASIN_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    const AdamState next = AdamStep(numbers, g[i], {w_in[i], m_in[i], v_in[i]});
    w_out[i] = next.w;
    m_out[i] = next.m;
    v_out[i] = next.v;
  }
}

BASIN_VECTOR_CLONES void FtrlLoop(size_t n, FtrlNumbers numbers, const float* g, const float* w_in, float* w_out,
                                  const float* n_in, float* n_out, const float* z_in, float* z_out) {
  BASIN_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    const FtrlState next = FtrlStep(numbers, g[i], {w_in[i], n_in[i], z_in[i]});
    w_out[i] = next.w;
    n_out[i] = next.n;
    z_out[i] = next.z;
  }
}

BASIN_VECTOR_CLONES void MeanLoop(size_t n, float inverse_count, const float* x, const float* in, float* out) {
  BASIN_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) out[i] = RunningMean(inverse_count, x[i], in[i]);
}

BASIN_VECTOR_CLONES void SumLoop(size_t n, const float* x, const float* in, float* out) {
  BASIN_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) out[i] = in[i] + x[i];
}

// NaN and the infinities are the floats whose exponent bits are all ones.
BASIN_VECTOR_CLONES bool AnyNonFinite(size_t n, const char* x) {
  constexpr uint32_t kExponent = 0x7f800000u;
  uint32_t found = 0;
  for (size_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i * sizeof(bits), sizeof(bits));
    const uint32_t exponent = bits & kExponent;
    found |= static_cast<uint32_t>(exponent == kExponent);
  }
  return found != 0;
}

}  // namespace

void Apply(const RuleSpec& spec, const ApplyArguments& a) {
  const size_t n = a.gradient.size();
  BASIN_CHECK(a.parameters_in.size() == n && a.parameters_out.size() == n);
  for (int slot = 0; slot < SlotCount(spec.kind); ++slot) {
    BASIN_CHECK(a.slots_in[slot].size() == n && a.slots_out[slot].size() == n);
  }
  const float* g = a.gradient.data();
  const float* w_in = a.parameters_in.data();
  float* w_out = a.parameters_out.data();
  const float* first_in = a.slots_in[0].data();
  float* first_out = a.slots_out[0].data();
  switch (spec.kind) {
    case RuleKind::kSgd:
      return SgdLoop(n, a.learning_rate, g, w_in, w_out);
    case RuleKind::kMomentum:
      return (spec.nesterov ? NesterovLoop : MomentumLoop)(n, a.learning_rate, spec.momentum, g, w_in, w_out, first_in,
                                                           first_out);
    case RuleKind::kAdagrad:
      return AdagradLoop(n, a.learning_rate, spec.epsilon, g, w_in, w_out, first_in, first_out);
    case RuleKind::kAdam:
      BASIN_CHECK(a.step >= 1);
      return AdamLoop(n, AdamNumbersAt(a.learning_rate, spec.beta1, spec.beta2, spec.epsilon, a.step), g, w_in, w_out,
                      first_in, first_out, a.slots_in[1].data(), a.slots_out[1].data());
    case RuleKind::kFtrl: {
      // The formula divides by the learning rate. A schedule that ends at 0 freezes the variable, as with other rules.
      if (a.learning_rate == 0) {
        std::copy_n(w_in, w_out == w_in ? 0 : n, w_out);
        std::copy_n(first_in, first_out == first_in ? 0 : n, first_out);
        const float* second_in = a.slots_in[1].data();
        std::copy_n(second_in, a.slots_out[1].data() == second_in ? 0 : n, a.slots_out[1].data());
        return;
      }
      return FtrlLoop(n, FtrlNumbersAt(a.learning_rate, spec.l1, spec.l2, spec.beta), g, w_in, w_out, first_in,
                      first_out, a.slots_in[1].data(), a.slots_out[1].data());
    }
    case RuleKind::kRowwiseAdagrad:
      break;  // rows.h
  }
  BASIN_CHECK(false && "the caller validated the rule");
}

bool AllFinite(const char* floats, size_t n) {
  // In pieces of 16 KiB, so that a bad gradient is found early and the inner loop has no exit to stop it vectorising.
  constexpr size_t kPiece = 4096;
  for (size_t begin = 0; begin < n; begin += kPiece) {
    if (AnyNonFinite(std::min(kPiece, n - begin), floats + begin * sizeof(float))) return false;
  }
  return true;
}

bool AllFinite(absl::Span<const float> values) {
  return AllFinite(reinterpret_cast<const char*>(values.data()), values.size());
}

void ApplyStatistic(StatisticKind statistic, uint64_t count, absl::Span<const float> update, absl::Span<const float> in,
                    absl::Span<float> out) {
  const size_t n = update.size();
  BASIN_CHECK(in.size() == n && out.size() == n && count >= 1);
  switch (statistic) {
    case StatisticKind::kMean:
      // The first value is taken as it is: in + (x - in) would round, and keep a NaN that stood there before.
      if (count == 1) break;
      return MeanLoop(n, static_cast<float>(1.0 / static_cast<double>(count)), update.data(), in.data(), out.data());
    case StatisticKind::kSum:
      return SumLoop(n, update.data(), in.data(), out.data());
    case StatisticKind::kLast:
      break;
  }
  std::copy(update.begin(), update.end(), out.begin());
}

}  // namespace basin
