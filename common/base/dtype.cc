#include "common/base/dtype.h"

namespace basin {

absl::string_view Name(DType type) {
  switch (type) {
    case DType::kF64:
      return "f64";
    case DType::kF32:
      return "f32";
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
    case DType::kI64:
      return "i64";
    case DType::kI32:
      return "i32";
    case DType::kI8:
      return "i8";
    case DType::kU8:
      return "u8";
    case DType::kBool:
      return "bool";
  }
  return "?";
}

std::optional<DType> DTypeFromNumber(uint32_t number) {
  if (number < 1 || number > 9) return std::nullopt;
  return static_cast<DType>(number);
}

}  // namespace basin
