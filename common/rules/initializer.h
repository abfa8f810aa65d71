// Initial values. Element i of a variable depends on the seed and i alone, so that shards are filled in any order,
// split in any way and on any ps, and the variable is the same.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace basin {

// The numbers are those of InitKind in common/wire/control.proto.
enum class InitKind : uint8_t {
  kZeros = 1,
  kConstant = 2,       // a
  kUniform = 3,        // in [a, b]
  kNormal = 4,         // mean a, standard deviation b
  kGlorotUniform = 5,  // in [-l, l], l = sqrt(6 / (fan in + fan out)): Glorot, Bengio, AISTATS 2010, eq. 16
  kHeNormal = 6,       // mean 0, standard deviation sqrt(2 / fan in): He, Zhang, Ren, Sun, ICCV 2015, eq. 10
  kAssigned = 7,       // zeros until someone assigns the variable
};

struct InitSpec {
  InitKind kind = InitKind::kZeros;
  float a = 0;
  float b = 0;
  uint64_t seed = 0;

  bool operator==(const InitSpec&) const = default;
};

// How many inputs and outputs one unit has, at least 1 each; double, as a product of dimensions may pass 2^63.
struct Fans {
  double in = 1;
  double out = 1;
};

// Keras' convention: a scalar has (1, 1), a vector (n, n), a matrix (rows, columns), and a convolution's kernel
// [..., inputs, outputs] has both times the product of the leading dimensions.
Fans FansOf(absl::Span<const int64_t> shape);

// InvalidArgument names the field, what was found and what was expected. Numbers that the kind does not use are
// ignored.
absl::Status Validate(const InitSpec& spec);

// Fills elements [begin, begin + out.size()) of the variable; begin counts from the start of the whole variable, not of
// the shard. REQUIRES: Validate(spec) is OK.
void Fill(const InitSpec& spec, Fans fans, uint64_t begin, absl::Span<float> out);

// The initial row of a table's key: a function of spec.seed and the key alone, so that a row is the same on any ps, and
// whether it was made or not. REQUIRES: Validate(spec) is OK; the kind is zeros, constant, uniform or normal.
void FillRow(const InitSpec& spec, uint64_t key, absl::Span<float> out);

}  // namespace basin
