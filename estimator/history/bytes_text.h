// A number of bytes for people. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/str_format.h"

namespace basin {

// "812 B", "1.2 kB", "14.0 MB": powers of 1000.
inline std::string BytesText(uint64_t bytes) {
  const char* unit = "B";
  auto value = static_cast<double>(bytes);
  for (const char* next : {"kB", "MB", "GB", "TB"}) {
    if (value < 1000) break;
    value /= 1000;
    unit = next;
  }
  return absl::StrFormat("%.*f %s", unit[0] == 'B' ? 0 : 1, value, unit);
}

}  // namespace basin
