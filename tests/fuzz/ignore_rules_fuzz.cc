// Input: a path, a line feed, then an ignore file. Any of them is taken, and a file says of a path what its lines say
// one by one, the last that matches deciding.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "estimator/snapshot/ignore_rules.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits('\n', 1));
  const auto& [path, content] = parts;
  for (const bool is_folder : {false, true}) {
    basin::IgnoreVerdict expected = basin::IgnoreVerdict::kUnnamed;
    absl::string_view lines = content;
    absl::ConsumePrefix(&lines, "\xEF\xBB\xBF");
    for (const absl::string_view line : absl::StrSplit(lines, '\n')) {
      const basin::IgnorePattern pattern(line);
      if (!pattern.Matches(path, is_folder)) continue;
      BASIN_CHECK(pattern.active());
      expected = pattern.negated() ? basin::IgnoreVerdict::kKept : basin::IgnoreVerdict::kIgnored;
    }
    BASIN_CHECK(basin::IgnoreFile(content).Judge(path, is_folder) == expected);
  }
  return 0;
}
