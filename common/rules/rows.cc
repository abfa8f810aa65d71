#include "common/rules/rows.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "common/base/random.h"
#include "common/base/status_macros.h"
#include "common/rules/row_rules.h"
#include "common/rules/row_storage.h"

// The loops over a row's elements, in pieces of a fixed size: the compiler makes straight vector code of each, and a
// row of 16 has no loop at all.
//
// A loop of few iterations, none of which depends on another, is to become vectors; unrolled first, it would not.
#if defined(__clang__)
#define BASIN_LOOP _Pragma("clang loop vectorize(assume_safety)")
#else
#define BASIN_LOOP _Pragma("GCC ivdep") _Pragma("GCC unroll 1")
#endif

namespace basin {
namespace {

using row_rules::Adagrad;
using row_rules::Adam;
using row_rules::Ftrl;
using row_rules::Momentum;
using row_rules::RowwiseAdagrad;
using row_rules::Sgd;
using row_storage::Bf16;
using row_storage::F16;
using row_storage::F32;
using row_storage::Load;
using row_storage::Store;

constexpr uint32_t kCorrections = 1u << 16;

// Calls piece.Run<n>(first) for pieces of 16, 4 and 1 elements that make up [0, dim).
template <class Piece>
BASIN_INLINE void InPieces(uint32_t dim, const Piece& piece) {
  size_t i = 0;
  for (; i + 16 <= dim; i += 16) piece.template Run<16>(i);
  for (; i + 4 <= dim; i += 4) piece.template Run<4>(i);
  for (; i < dim; ++i) piece.template Run<1>(i);
}

// 16 partial sums of squares, element i in sum i % 16, then added pairwise: the same order, and bits, on every machine.
struct SquaresPiece {
  const char* gradient;
  float* sums;
  template <size_t n>
  BASIN_INLINE void Run(size_t first) const {
    float* begin = sums + first % 16;
    BASIN_LOOP
    for (size_t k = 0; k < n; ++k) {
      const float g = Load<float>(gradient + 4 * (first + k));
      begin[k] += g * g;
    }
  }
};

// A row and what is applied to it. Elements are read and written by index alone, and the gradient lies elsewhere.
template <class Storage>
struct RowView {
  char* row;
  char* slots;
  const char* gradient;
  uint32_t dim;
  uint32_t seed;

  BASIN_INLINE float Gradient(size_t i) const { return Load<float>(gradient + 4 * i); }
  BASIN_INLINE float Value(size_t i) const { return Storage::From(row, i); }
  BASIN_INLINE void SetValue(size_t i, float w) const { Storage::To(row, i, w, seed); }
  BASIN_INLINE float Slot(uint32_t slot, size_t i) const { return Load<float>(slots + 4 * (size_t{dim} * slot + i)); }
  BASIN_INLINE void SetSlot(uint32_t slot, size_t i, float value) const {
    Store(slots + 4 * (size_t{dim} * slot + i), value);
  }
  BASIN_INLINE float RowSlot() const { return Load<float>(slots); }
  BASIN_INLINE void SetRowSlot(float value) const { Store(slots, value); }
  BASIN_INLINE float SumOfSquares() const {
    float sums[16] = {};
    InPieces(dim, SquaresPiece{gradient, sums});
    for (uint32_t width = 8; width >= 1; width /= 2) {
      for (uint32_t k = 0; k < width; ++k) sums[k] += sums[k + width];
    }
    return sums[0];
  }
};

template <class Rule, class View>
struct RulePiece {
  const typename Rule::Numbers& numbers;
  const View& view;
  template <size_t n>
  BASIN_INLINE void Run(size_t first) const {
    BASIN_LOOP
    for (size_t k = 0; k < n; ++k) Rule::Element(numbers, view, first + k);
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
    using View = RowView<Storage>;
    const View view{row, row + Storage::kBytes * numbers.dim, gradients[r], numbers.dim, seed};
    const typename Rule::Numbers of_row = Rule::Begin(numbers, view, step);
    InPieces(numbers.dim, RulePiece<Rule, View>{of_row, view});
  }
}

template <class Storage>
struct ReadPiece {
  const char* row;
  char* out;
  template <size_t n>
  BASIN_INLINE void Run(size_t first) const {
    BASIN_LOOP
    for (size_t k = 0; k < n; ++k) Store(out + 4 * (first + k), Storage::From(row, first + k));
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
    // sqrt(1 - beta2^t) / (1 - beta1^t) for t from 1, until it stays 1: 20,000 floats for the usual betas.
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
    for (uint32_t i = 0; i < dim_; ++i) Store(row + 2 * i, ToF16(values[i], 0x8000));
  }
  if (storage_ == DType::kBF16) {
    for (uint32_t i = 0; i < dim_; ++i) Store(row + 2 * i, ToBf16(values[i], 0x8000));
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

RowNumbers RowRule::NumbersAt(float learning_rate) const {
  RowNumbers numbers = numbers_;
  numbers.learning_rate = learning_rate;
  if (spec_.kind == RuleKind::kFtrl && learning_rate != 0) {
    const FtrlNumbers ftrl = FtrlNumbersAt(learning_rate, spec_.l1, spec_.l2, spec_.beta);
    numbers.inverse_rate = ftrl.inverse_rate;
    numbers.l1 = ftrl.l1;
    numbers.two_l2 = ftrl.two_l2;
    numbers.beta = ftrl.beta;
  }
  return numbers;
}

void RowRule::Apply(float learning_rate, size_t n, char* const* rows, const char* const* gradients,
                    const uint64_t* keys) const {
  if (IsFrozenAt(learning_rate)) return;
  apply_(NumbersAt(learning_rate), n, rows, gradients, keys);
}

}  // namespace basin
