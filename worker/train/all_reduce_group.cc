#include "worker/train/all_reduce_group.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"

namespace basin {

absl::Status CheckSame(AllReduceGroup& group, absl::string_view what, absl::string_view text) {
  BASIN_ASSIGN_OR_RETURN(const std::vector<std::string> texts, group.Gather(text));
  std::string verdict;
  for (size_t rank = 1; rank < texts.size() && verdict.empty(); ++rank) {
    if (texts[rank] == texts[0]) continue;
    const std::vector<std::string> expected = absl::StrSplit(texts[0], '\n');
    const std::vector<std::string> found = absl::StrSplit(texts[rank], '\n');
    size_t line = 0;
    while (line < std::min(expected.size(), found.size()) && expected[line] == found[line]) ++line;
    const auto at = [line](const std::vector<std::string>& lines) {
      return line < lines.size() ? lines[line] : std::string("nothing");
    };
    verdict = absl::StrCat(what, " of rank ", rank, ": ", at(found), "; rank 0 has ", at(expected));
  }
  BASIN_RETURN_IF_ERROR(group.Broadcast(&verdict));
  return verdict.empty() ? absl::OkStatus() : absl::InvalidArgumentError(verdict);
}

}  // namespace basin
