// The element types of the wire, complete from the first version; float32 is what rules can train today.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace basin {

// The numbers are on the wire and in files: never reuse one.
enum class DType : uint8_t {
  kF64 = 1,
  kF32 = 2,
  kF16 = 3,
  kBF16 = 4,
  kI64 = 5,
  kI32 = 6,
  kI8 = 7,
  kU8 = 8,
  kBool = 9,
};

constexpr size_t SizeOf(DType type) {
  switch (type) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  return 0;
}

// "f32" and so on; "?" for a number that is none.
absl::string_view Name(DType type);
// nullopt for a number that no version of the wire has given out.
std::optional<DType> DTypeFromNumber(uint32_t number);

}  // namespace basin
