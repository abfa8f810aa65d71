#include "ps/shard_values.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "ps/variable_rules.h"

namespace basin {

size_t ShardOptions::slots() const { return is_statistic() ? 0 : static_cast<size_t>(SlotCount(RuleOf(rule).kind)); }

std::string ShardOptions::Place() const {
  return absl::StrCat("\"", variable.name(), "\" elements [", begin, ", ", end, ")");
}

absl::Status ShardValues::AssignOnDevice(const char*) { return absl::InternalError("the values are on the host"); }
absl::Status ShardValues::ReadOnDevice(char*) { return absl::InternalError("the values are on the host"); }

absl::Status NotFiniteError(const ShardOptions& options, const GradientView& gradient) {
  if (gradient.on_device) {
    return absl::InvalidArgumentError(absl::StrCat("push to ", options.Place(), ": an element is NaN or Inf"));
  }
  // Memory that is shared with the client may be finite again by now: then there is no such element.
  const size_t at = gradient.FirstNotFinite();
  return absl::InvalidArgumentError(
      absl::StrCat("push to ", options.Place(), ": element ", options.begin + at, " is ",
                   at < gradient.elements && std::isnan(gradient.At(at)) ? "NaN" : "Inf"));
}

}  // namespace basin
