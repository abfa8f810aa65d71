// Texts. Debian's Abseil does not alias absl::string_view to std::string_view; ToStd and ToAbsl convert at the edges.
#pragma once

#include <string>
#include <string_view>

#include "absl/strings/string_view.h"

namespace basin {

inline std::string_view ToStd(absl::string_view s) { return {s.data(), s.size()}; }
inline absl::string_view ToAbsl(std::string_view s) { return {s.data(), s.size()}; }

// Well-formed, shortest forms, no surrogates: what a proto3 string and JSON may hold.
bool IsUtf8(absl::string_view text);

}  // namespace basin
