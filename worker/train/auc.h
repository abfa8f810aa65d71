// Area under the ROC curve.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace basin {

// The probability that a positive's score is above a negative's, equal scores counting half: exact, by sorting
// (Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27, 2006). Labels are 0 or 1. NaN where
// there is no positive, no negative, or a score is NaN. REQUIRES: equal lengths.
double Auc(absl::Span<const float> scores, absl::Span<const uint8_t> labels);

}  // namespace basin
