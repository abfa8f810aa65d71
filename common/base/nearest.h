// "did you mean": the nearest of some known names.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace basin {

// The known name with the least edit distance (ASCII case counts as equal, a swap of two neighbouring letters is one
// edit), if it is at most a third of the longer name's length away; ties go to the earlier one.
std::optional<std::string> Nearest(absl::string_view name, const std::vector<std::string>& known);

}  // namespace basin
