#include "common/rules/rows.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "common/base/random.h"
#include "common/base/status_macros.h"
#include "common/rules/rule_math.h"
#include "common/rules/storage_math.h"

// The loops over a row's elements, in pieces of a fixed size: the compiler makes straight vector code of each, and a
// row of 16 has no loop at all.
#define BASIN_INLINE __attribute__((always_inline)) inline

namespace basin {
namespace {

constexpr uint32_t kCorrections = 1u << 16;

template <class T>
BASIN_INLINE T Load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}
template <class T>
BASIN_INLINE void Store(char* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}

// Element i of a row: to float, and back with the row's random numbers.
struct F32 {
  static constexpr size_t kBytes = 4;
  BASIN_INLINE static float From(const char* row, uint32_t i) { return Load<float>(row + 4 * size_t{i}); }
  BASIN_INLINE static void To(char* row, uint32_t i, float value, uint32_t) { Store(row + 4 * size_t{i}, value); }
};
struct F16 {
  static constexpr size_t kBytes = 2;
  BASIN_INLINE static float From(const char* row, uint32_t i) { return FromF16(Load<uint16_t>(row + 2 * size_t{i})); }
  BASIN_INLINE static void To(char* row, uint32_t i, float value, uint32_t seed) {
    Store(row + 2 * size_t{i}, ToF16(value, RoundingBits(seed, i)));
  }
};
struct Bf16 {
  static constexpr size_t kBytes = 2;
  BASIN_INLINE static float From(const char* row, uint32_t i) { return FromBf16(Load<uint16_t>(row + 2 * size_t{i})); }
  BASIN_INLINE static void To(char* row, uint32_t i, float value, uint32_t seed) {
    Store(row + 2 * size_t{i}, ToBf16(value, RoundingBits(seed, i)));
  }
};

// Calls piece.Run<n>(first) for pieces of 16, 4 and 1 elements that make up [0, dim).
template <class Piece>
BASIN_INLINE void InPieces(uint32_t dim, const Piece& piece) {
  uint32_t i = 0;
  for (; i + 16 <= dim; i += 16) piece.template Run<16>(i);
  for (; i + 4 <= dim; i += 4) piece.template Run<4>(i);
  for (; i < dim; ++i) piece.template Run<1>(i);
}

// Each piece reads all of its inputs before it writes, so that nothing depends on what overlaps what.
template <class Storage>
struct RowView {
  char* row;
  char* slots;
  const char* gradient;
  uint32_t dim;
  uint32_t seed;

  template <uint32_t n>
  BASIN_INLINE void Gradient(uint32_t first, float (&g)[n]) const {
    for (uint32_t k = 0; k < n; ++k) g[k] = Load<float>(gradient + 4 * size_t{first + k});
  }
  template <uint32_t n>
  BASIN_INLINE void Values(uint32_t first, float (&w)[n]) const {
    for (uint32_t k = 0; k < n; ++k) w[k] = Storage::From(row, first + k);
  }
  template <uint32_t n>
  BASIN_INLINE void Slot(int slot, uint32_t first, float (&s)[n]) const {
    const char* at = slots + 4 * (size_t{dim} * slot + first);
    for (uint32_t k = 0; k < n; ++k) s[k] = Load<float>(at + 4 * k);
  }
  template <uint32_t n>
  BASIN_INLINE void SetValues(uint32_t first, const float (&w)[n]) const {
    for (uint32_t k = 0; k < n; ++k) Storage::To(row, first + k, w[k], seed);
  }
  template <uint32_t n>
  BASIN_INLINE void SetSlot(int slot, uint32_t first, const float (&s)[n]) const {
    char* at = slots + 4 * (size_t{dim} * slot + first);
    for (uint32_t k = 0; k < n; ++k) Store(at + 4 * k, s[k]);
  }
};

// A rule on one row. `kSteps`: whether it needs the row's steps for itself.
struct Sgd {
  static constexpr bool kSteps = false;
  template <class View>
  struct Piece {
    const RowNumbers& numbers;
    const View& view;
    template <uint32_t n>
    BASIN_INLINE void Run(uint32_t first) const {
      float g[n], w[n];
      view.Gradient(first, g);
      view.Values(first, w);
      for (uint32_t k = 0; k < n; ++k) w[k] = SgdStep(numbers.learning_rate, g[k], w[k]);
      view.SetValues(first, w);
    }
  };
  template <class View>
  BASIN_INLINE static void Row(const RowNumbers& numbers, const View& view, uint64_t) {
    InPieces(numbers.dim, Piece<View>{numbers, view});
  }
};

template <bool nesterov>
struct Momentum {
  static constexpr bool kSteps = false;
  template <class View>
  struct Piece {
    const RowNumbers& numbers;
    const View& view;
    template <uint32_t n>
    BASIN_INLINE void Run(uint32_t first) const {
      float g[n], w[n], v[n];
      view.Gradient(first, g);
      view.Values(first, w);
      view.Slot(0, first, v);
      for (uint32_t k = 0; k < n; ++k) {
        const MomentumState next = nesterov ? NesterovStep(numbers.learning_rate, numbers.momentum, g[k], {w[k], v[k]})
                                            : MomentumStep(numbers.learning_rate, numbers.momentum, g[k], {w[k], v[k]});
        w[k] = next.w;
        v[k] = next.v;
      }
      view.SetValues(first, w);
      view.SetSlot(0, first, v);
    }
  };
  template <class View>
  BASIN_INLINE static void Row(const RowNumbers& numbers, const View& view, uint64_t) {
    InPieces(numbers.dim, Piece<View>{numbers, view});
  }
};

struct Adagrad {
  static constexpr bool kSteps = false;
  template <class View>
  struct Piece {
    const RowNumbers& numbers;
    const View& view;
    template <uint32_t n>
    BASIN_INLINE void Run(uint32_t first) const {
      float g[n], w[n], a[n];
      view.Gradient(first, g);
      view.Values(first, w);
      view.Slot(0, first, a);
      for (uint32_t k = 0; k < n; ++k) {
        const AdagradState next = AdagradStep(numbers.learning_rate, numbers.epsilon, g[k], {w[k], a[k]});
        w[k] = next.w;
        a[k] = next.a;
      }
      view.SetValues(first, w);
      view.SetSlot(0, first, a);
    }
  };
  template <class View>
  BASIN_INLINE static void Row(const RowNumbers& numbers, const View& view, uint64_t) {
    InPieces(numbers.dim, Piece<View>{numbers, view});
  }
};

struct RowwiseAdagrad {
  static constexpr bool kSteps = false;
  // 16 partial sums, element i in sum i % 16, then added pairwise: the same order, and bits, on every machine.
  template <class View>
  BASIN_INLINE static float SumOfSquares(const RowNumbers& numbers, const View& view) {
    float sums[16] = {};
    uint32_t i = 0;
    for (; i + 16 <= numbers.dim; i += 16) {
      float g[16];
      view.Gradient(i, g);
      for (uint32_t k = 0; k < 16; ++k) sums[k] += g[k] * g[k];
    }
    for (uint32_t k = 0; i + k < numbers.dim; ++k) {
      float g[1];
      view.Gradient(i + k, g);
      sums[k] += g[0] * g[0];
    }
    for (uint32_t width = 8; width >= 1; width /= 2) {
      for (uint32_t k = 0; k < width; ++k) sums[k] += sums[k + width];
    }
    return sums[0];
  }
  template <class View>
  BASIN_INLINE static void Row(const RowNumbers& numbers, const View& view, uint64_t) {
    const float a = Load<float>(view.slots) + SumOfSquares(numbers, view) / static_cast<float>(numbers.dim);
    Store(view.slots, a);
    RowNumbers scaled;
    scaled.learning_rate = RowwiseAdagradRate(numbers.learning_rate, numbers.epsilon, a);
    InPieces(numbers.dim, Sgd::Piece<View>{scaled, view});
  }
};

struct Adam {
  static constexpr bool kSteps = true;
  template <class View>
  struct Piece {
    const AdamNumbers& numbers;
    const View& view;
    template <uint32_t n>
    BASIN_INLINE void Run(uint32_t first) const {
      float g[n], w[n], m[n], v[n];
      view.Gradient(first, g);
      view.Values(first, w);
      view.Slot(0, first, m);
      view.Slot(1, first, v);
      for (uint32_t k = 0; k < n; ++k) {
        const AdamState next = AdamStep(numbers, g[k], {w[k], m[k], v[k]});
        w[k] = next.w;
        m[k] = next.m;
        v[k] = next.v;
      }
      view.SetValues(first, w);
      view.SetSlot(0, first, m);
      view.SetSlot(1, first, v);
    }
  };
  template <class View>
  BASIN_INLINE static void Row(const RowNumbers& numbers, const View& view, uint64_t step) {
    AdamNumbers adam{numbers.learning_rate, numbers.beta1,        1.0f - numbers.beta1,
                     numbers.beta2,         1.0f - numbers.beta2, numbers.epsilon};
    if (step <= numbers.correction_count) {
      adam.rate *= numbers.corrections[step - 1];
    } else {
      adam = AdamNumbersAt(numbers.learning_rate, numbers.beta1, numbers.beta2, numbers.epsilon, step);
    }
    InPieces(numbers.dim, Piece<View>{adam, view});
  }
};

struct Ftrl {
  static constexpr bool kSteps = false;
  template <class View>
  struct Piece {
    const FtrlNumbers& numbers;
    const View& view;
    template <uint32_t n>
    BASIN_INLINE void Run(uint32_t first) const {
      float g[n], w[n], s[n], z[n];
      view.Gradient(first, g);
      view.Values(first, w);
      view.Slot(0, first, s);
      view.Slot(1, first, z);
      for (uint32_t k = 0; k < n; ++k) {
        const FtrlState next = FtrlStep(numbers, g[k], {w[k], s[k], z[k]});
        w[k] = next.w;
        s[k] = next.n;
        z[k] = next.z;
      }
      view.SetValues(first, w);
      view.SetSlot(0, first, s);
      view.SetSlot(1, first, z);
    }
  };
  template <class View>
  BASIN_INLINE static void Row(const RowNumbers& numbers, const View& view, uint64_t) {
    const FtrlNumbers ftrl{numbers.inverse_rate, numbers.l1, numbers.two_l2, numbers.beta};
    InPieces(numbers.dim, Piece<View>{ftrl, view});
  }
};

template <class Rule, class Storage>
BASIN_INLINE void ApplyLoop(const RowNumbers& given, size_t n, char* const* rows, const char* const* gradients,
                            const uint64_t* keys) {
  const RowNumbers numbers = given;  // in registers: nothing that is written below is one of them
  for (size_t r = 0; r < n; ++r) {
    char* row = rows[r];
    uint64_t step = 0;
    uint32_t seed = 0;
    if constexpr (Rule::kSteps) {
      step = uint64_t{Load<uint32_t>(row + numbers.steps_offset)} + 1;
      Store(row + numbers.steps_offset, static_cast<uint32_t>(std::min<uint64_t>(step, 0xffffffffu)));
    } else if constexpr (Storage::kBytes == 2) {
      step = static_cast<uint16_t>(Load<uint16_t>(row + numbers.steps_offset) + 1);
      Store(row + numbers.steps_offset, static_cast<uint16_t>(step));
    }
    if constexpr (Storage::kBytes == 2) seed = static_cast<uint32_t>(RandomAt(keys[r], step));
    const RowView<Storage> view{row, row + Storage::kBytes * numbers.dim, gradients[r], numbers.dim, seed};
    Rule::Row(numbers, view, step);
  }
}

template <class Storage>
struct ReadPiece {
  const char* row;
  char* out;
  template <uint32_t n>
  BASIN_INLINE void Run(uint32_t first) const {
    float w[n];
    for (uint32_t k = 0; k < n; ++k) w[k] = Storage::From(row, first + k);
    for (uint32_t k = 0; k < n; ++k) Store(out + 4 * size_t{first + k}, w[k]);
  }
};

template <class Storage>
BASIN_INLINE void ReadLoop(uint32_t dim, size_t n, const char* const* rows, char* const* out) {
  for (size_t r = 0; r < n; ++r) InPieces(dim, ReadPiece<Storage>{rows[r], out[r]});
}

}  // namespace

// The same loops for each kind of machine. Not for wider ones under a sanitizer, as in apply.cc.
struct RowKernels {
  struct Plain {
    template <class Rule, class Storage>
    static void Apply(const RowNumbers& numbers, size_t n, char* const* rows, const char* const* gradients,
                      const uint64_t* keys) {
      ApplyLoop<Rule, Storage>(numbers, n, rows, gradients, keys);
    }
    template <class Storage>
    static void Read(uint32_t dim, size_t n, const char* const* rows, char* const* out) {
      ReadLoop<Storage>(dim, n, rows, out);
    }
  };
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define BASIN_ROWS_WIDE 1
  struct Avx2 {
    template <class Rule, class Storage>
    __attribute__((target("avx2"))) static void Apply(const RowNumbers& numbers, size_t n, char* const* rows,
                                                      const char* const* gradients, const uint64_t* keys) {
      ApplyLoop<Rule, Storage>(numbers, n, rows, gradients, keys);
    }
    template <class Storage>
    __attribute__((target("avx2"))) static void Read(uint32_t dim, size_t n, const char* const* rows,
                                                     char* const* out) {
      ReadLoop<Storage>(dim, n, rows, out);
    }
  };
  struct Avx512 {
    template <class Rule, class Storage>
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512"))) static void Apply(
        const RowNumbers& numbers, size_t n, char* const* rows, const char* const* gradients, const uint64_t* keys) {
      ApplyLoop<Rule, Storage>(numbers, n, rows, gradients, keys);
    }
    template <class Storage>
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512"))) static void Read(
        uint32_t dim, size_t n, const char* const* rows, char* const* out) {
      ReadLoop<Storage>(dim, n, rows, out);
    }
  };
#endif

  template <class Machine, class Storage>
  static void ChooseRule(RowRule* rule) {
    rule->read_ = &Machine::template Read<Storage>;
    switch (rule->spec_.kind) {
      case RuleKind::kSgd:
        rule->apply_ = &Machine::template Apply<Sgd, Storage>;
        return;
      case RuleKind::kMomentum:
        rule->apply_ = rule->spec_.nesterov ? &Machine::template Apply<Momentum<true>, Storage>
                                            : &Machine::template Apply<Momentum<false>, Storage>;
        return;
      case RuleKind::kAdagrad:
        rule->apply_ = &Machine::template Apply<Adagrad, Storage>;
        return;
      case RuleKind::kAdam:
        rule->apply_ = &Machine::template Apply<Adam, Storage>;
        return;
      case RuleKind::kFtrl:
        rule->apply_ = &Machine::template Apply<Ftrl, Storage>;
        return;
      case RuleKind::kRowwiseAdagrad:
        rule->apply_ = &Machine::template Apply<RowwiseAdagrad, Storage>;
        return;
    }
    BASIN_CHECK(false && "the caller validated the rule");
  }

  template <class Machine>
  static void ChooseStorage(RowRule* rule) {
    if (rule->storage_ == DType::kF32) return ChooseRule<Machine, F32>(rule);
    if (rule->storage_ == DType::kF16) return ChooseRule<Machine, F16>(rule);
    BASIN_CHECK(rule->storage_ == DType::kBF16);
    ChooseRule<Machine, Bf16>(rule);
  }

  static void Choose(RowRule* rule) {
#if defined(BASIN_ROWS_WIDE)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
      return ChooseStorage<Avx512>(rule);
    if (__builtin_cpu_supports("avx2")) return ChooseStorage<Avx2>(rule);
#endif
    ChooseStorage<Plain>(rule);
  }
};

RowRule::RowRule(const RuleSpec& spec, DType storage, uint32_t dim) : spec_(spec), storage_(storage), dim_(dim) {
  const bool wide_slots = spec.kind != RuleKind::kRowwiseAdagrad;
  const size_t slot_floats = static_cast<size_t>(SlotCount(spec.kind)) * (wide_slots ? dim : 1);
  numbers_ = {.momentum = spec.momentum,
              .beta1 = spec.beta1,
              .beta2 = spec.beta2,
              .epsilon = spec.epsilon,
              .dim = dim,
              .steps_offset = static_cast<uint32_t>(SizeOf(storage) * dim + 4 * slot_floats)};
  const size_t steps_bytes = spec.kind == RuleKind::kAdam ? 4 : SizeOf(storage) == 2 ? 2 : 0;
  row_bytes_ = numbers_.steps_offset + steps_bytes;
  if (spec.kind == RuleKind::kAdam) {
    // sqrt(1 - beta2^t) / (1 - beta1^t) for t from 1, until it stays 1: 17,000 floats for the usual betas.
    double power1 = 1, power2 = 1;
    while (corrections_.size() < kCorrections && (corrections_.empty() || power1 > 1e-9 || power2 > 1e-9)) {
      power1 *= spec.beta1;
      power2 *= spec.beta2;
      corrections_.push_back(static_cast<float>(std::sqrt(1 - power2) / (1 - power1)));
    }
    numbers_.corrections = corrections_.data();
    numbers_.correction_count = static_cast<uint32_t>(corrections_.size());
  }
  RowKernels::Choose(this);
}

void RowRule::Start(const float* values, char* row) const {
  if (storage_ == DType::kF32) std::memcpy(row, values, 4 * size_t{dim_});
  if (storage_ == DType::kF16) {
    for (uint32_t i = 0; i < dim_; ++i) Store(row + 2 * size_t{i}, ToF16(values[i], 0x8000));
  }
  if (storage_ == DType::kBF16) {
    for (uint32_t i = 0; i < dim_; ++i) Store(row + 2 * size_t{i}, ToBf16(values[i], 0x8000));
  }
  char* at = row + SizeOf(storage_) * dim_;
  const uint32_t floats = spec_.kind == RuleKind::kRowwiseAdagrad ? 1 : dim_;
  for (int slot = 0; slot < SlotCount(spec_.kind); ++slot) {
    const float initial = SlotInitialValue(spec_, slot);
    for (uint32_t i = 0; i < floats; ++i, at += 4) Store(at, initial);
  }
  std::memset(at, 0, static_cast<size_t>(row + row_bytes_ - at));
}

void RowRule::Rounded(float* values) const {
  if (storage_ == DType::kF16) {
    for (uint32_t i = 0; i < dim_; ++i) values[i] = FromF16(ToF16(values[i], 0x8000));
  }
  if (storage_ == DType::kBF16) {
    for (uint32_t i = 0; i < dim_; ++i) values[i] = FromBf16(ToBf16(values[i], 0x8000));
  }
}

void RowRule::Apply(float learning_rate, size_t n, char* const* rows, const char* const* gradients,
                    const uint64_t* keys) const {
  RowNumbers numbers = numbers_;
  numbers.learning_rate = learning_rate;
  if (spec_.kind == RuleKind::kFtrl) {
    if (learning_rate == 0) return;  // it would divide; frozen, as in apply.cc
    const FtrlNumbers ftrl = FtrlNumbersAt(learning_rate, spec_.l1, spec_.l2, spec_.beta);
    numbers.inverse_rate = ftrl.inverse_rate;
    numbers.l1 = ftrl.l1;
    numbers.two_l2 = ftrl.two_l2;
    numbers.beta = ftrl.beta;
  }
  apply_(numbers, n, rows, gradients, keys);
}

}  // namespace basin
