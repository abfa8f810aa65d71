// Numbers nobody can guess, from the kernel.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace basin {

// 2 * `bytes` lower-case hex digits. For run tokens and run ids.
std::string SecretHex(int bytes);
uint64_t SecretU64();
// Compares without telling by its time where the first difference is.
bool SecretEquals(absl::string_view a, absl::string_view b);

}  // namespace basin
