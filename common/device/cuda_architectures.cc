#include "common/device/cuda_architectures.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace basin {

bool RunsOn(absl::string_view architectures, int major, int minor) {
  for (absl::string_view name : absl::StrSplit(architectures, absl::ByAnyChar(", "), absl::SkipEmpty())) {
    const bool real_only = absl::ConsumeSuffix(&name, "-real"), virtual_only = absl::ConsumeSuffix(&name, "-virtual");
    int number = 0;
    if (!absl::SimpleAtoi(name, &number)) continue;
    if (!virtual_only && number / 10 == major && number % 10 <= minor) return true;
    if (!real_only && number <= major * 10 + minor) return true;
  }
  return false;
}

}  // namespace basin
