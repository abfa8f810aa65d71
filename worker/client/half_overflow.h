// What is said of a gradient that 16 bits cannot hold.
#pragma once

#include <cmath>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/codec/half.h"

namespace basin {

// "70000, beyond float16's largest, 65504 (send bfloat16, or scale the loss down)": of a finite value, which becomes
// infinite in `type`.
inline std::string TooLargeFor(DType type, float value) {
  return absl::StrCat(value, ", beyond ", type == DType::kF16 ? "float16" : "bfloat16", "'s largest, ",
                      LargestFinite(type),
                      type == DType::kF16 ? " (send bfloat16, or scale the loss down)" : " (scale the loss down)");
}

// INVALID_ARGUMENT: of a variable's gradient that has a number which `type` cannot hold, in a call that is refused
// whole.
inline absl::Status CannotHold(DType type, const std::string& variable, const Unfit& unfit) {
  return absl::InvalidArgumentError(absl::StrCat("gradient of \"", variable, "\" has ",
                                                 std::isnan(unfit.value)   ? "NaN"
                                                 : std::isinf(unfit.value) ? "Inf"
                                                                           : TooLargeFor(type, unfit.value),
                                                 " at element ", unfit.element, "; nothing of this call was sent"));
}

}  // namespace basin
