// The rules on rows of embedding tables. A row is one run of bytes, at any address,
//
//   [dim values in the table's storage type | slots in float32 | steps of this row]
//
// where each slot has dim floats (row-wise Adagrad: one), and `steps`, the number of applications, has 4 bytes with
// Adam, 2 with the other rules where the storage has 16 bits (it only varies the rounding), and none otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/base/dtype.h"
#include "common/rules/rule_spec.h"

namespace basin {

// What is the same for all rows of one table and one call.
struct RowNumbers {
  float learning_rate = 0;
  float momentum = 0;
  float beta1 = 0, beta2 = 0, epsilon = 0;
  float inverse_rate = 0, l1 = 0, two_l2 = 0, beta = 0;  // ftrl
  uint32_t dim = 0;
  uint32_t steps_offset = 0;
  const float* corrections = nullptr;  // Adam's, of steps 1 to correction_count
  uint32_t correction_count = 0;
};

// Immutable. The row kernels are chosen once, for the rule, the storage and the widest vectors of this machine; all of
// them give the same bits.
class RowRule final {
 public:
  // REQUIRES: Validate(spec) is OK; storage is kF32, kF16 or kBF16; 1 <= dim.
  RowRule(const RuleSpec& spec, DType storage, uint32_t dim);
  RowRule(const RowRule&) = delete;
  RowRule& operator=(const RowRule&) = delete;

  const RuleSpec& spec() const { return spec_; }
  DType storage() const { return storage_; }
  uint32_t dim() const { return dim_; }
  size_t row_bytes() const { return row_bytes_; }
  // A fresh row: dim initial values, rounded to the nearest; slots as the rule starts them; no steps.
  void Start(const float* values, char* row) const;
  // What Start stores of the values, as floats: for pulls of rows that are not there.
  void Rounded(float* values) const;
  // Writes dim floats of each row to out + i * 4 * dim, which need not be aligned.
  void Read(size_t n, const char* const* rows, char* const* out) const { read_(dim_, n, rows, out); }
  // One application of the rule to each of n rows, in order; gradients[i] are dim floats, at any address. The rounding
  // of 16-bit storage depends on the key and the row's steps alone.
  // REQUIRES: learning_rate is finite and at least 0; the gradients are finite.
  void Apply(float learning_rate, size_t n, char* const* rows, const char* const* gradients,
             const uint64_t* keys) const;
  // Whether Apply changes nothing at this rate: ftrl's formula divides by it.
  bool IsFrozenAt(float learning_rate) const { return spec_.kind == RuleKind::kFtrl && learning_rate == 0; }
  // What Apply works with, for a device's kernels; `corrections` are in this rule's memory.
  RowNumbers NumbersAt(float learning_rate) const;

 private:
  using ApplyFunction = void (*)(const RowNumbers&, size_t, char* const*, const char* const*, const uint64_t*);
  using ReadFunction = void (*)(uint32_t, size_t, const char* const*, char* const*);
  friend struct RowKernels;

  const RuleSpec spec_;
  const DType storage_;
  const uint32_t dim_;
  size_t row_bytes_ = 0;
  RowNumbers numbers_;
  std::vector<float> corrections_;
  ApplyFunction apply_ = nullptr;
  ReadFunction read_ = nullptr;
};

}  // namespace basin
