// What is said of a gradient that 16 bits cannot hold.
#pragma once

#include <string>

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

}  // namespace basin
