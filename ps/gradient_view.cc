#include "ps/gradient_view.h"

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/codec/half.h"
#include "common/rules/apply.h"

namespace basin {

std::optional<DType> GradientType(uint8_t dtype) {
  const std::optional<DType> type = DTypeFromNumber(dtype);
  return type && (*type == DType::kF32 || IsHalf(*type)) ? type : std::nullopt;
}

std::string DTypeInWords(uint8_t dtype) {
  const std::optional<DType> type = DTypeFromNumber(dtype);
  return type ? absl::StrCat("dtype ", Name(*type)) : absl::StrCat("dtype ", dtype);
}

bool GradientView::AllFinite() const {
  return IsHalf(type) ? HalvesAreFinite(type, data, elements) : basin::AllFinite(data, elements);
}

size_t GradientView::FirstNotFinite() const {
  size_t i = 0;
  while (i < elements && std::isfinite(At(i))) ++i;
  return i;
}

float GradientView::At(size_t i) const {
  float value;
  return Floats(i, 1, &value)[0];
}

bool GradientView::IsFloats() const {
  return type == DType::kF32 && reinterpret_cast<uintptr_t>(data) % alignof(float) == 0;
}

absl::Span<const float> GradientView::Floats(size_t begin, size_t n, float* room) const {
  const char* const at = data + begin * SizeOf(type);
  if (IsFloats()) return absl::MakeConstSpan(reinterpret_cast<const float*>(at), n);
  if (IsHalf(type)) {
    Widen(type, at, n, room);
  } else if (n > 0) {
    std::memcpy(room, at, n * sizeof(float));
  }
  return absl::MakeConstSpan(room, n);
}

}  // namespace basin
