// A pushed gradient as it lies in a message: float32, or float16 or bfloat16 for half of the bytes, at any address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/types/span.h"
#include "common/base/dtype.h"

namespace basin {

// What an entry's dtype may be with a push to float32 parameters; nullopt: none of f32, f16, bf16.
std::optional<DType> GradientType(uint8_t dtype);
// "f32, f16 or bf16"
inline constexpr char kGradientTypes[] = "f32, f16 or bf16";
// "dtype i8", "dtype 77": of an entry, for messages.
std::string DTypeInWords(uint8_t dtype);

struct GradientView {
  DType type = DType::kF32;  // kF32, kF16, kBF16
  const char* data = nullptr;
  bool on_device = false;  // in the memory of the shard's device: the host does not look at it
  size_t elements = 0;

  bool AllFinite() const;
  // The first element that is NaN or infinite, or `elements`.
  size_t FirstNotFinite() const;
  float At(size_t i) const;

  // Whether the message's bytes can be read as floats where they lie.
  bool IsFloats() const;
  // Elements [begin, begin + n) as floats: where they lie, if IsFloats; else written to `room`, which has n.
  absl::Span<const float> Floats(size_t begin, size_t n, float* room) const;
};

}  // namespace basin
