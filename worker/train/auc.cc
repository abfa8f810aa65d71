#include "worker/train/auc.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"

namespace basin {

double Auc(absl::Span<const float> scores, absl::Span<const uint8_t> labels) {
  BASIN_CHECK(scores.size() == labels.size());
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  std::vector<std::pair<float, uint8_t>> sorted;
  sorted.reserve(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isnan(scores[i])) return kNone;
    sorted.emplace_back(scores[i], labels[i]);
  }
  std::sort(sorted.begin(), sorted.end());
  uint64_t negatives = 0, positives = 0;
  double above = 0;  // pairs of a positive above a negative; whole and half numbers below 2^53: exact
  for (size_t begin = 0; begin < sorted.size();) {
    uint64_t equal_negatives = 0, equal_positives = 0;
    size_t end = begin;
    for (; end < sorted.size() && sorted[end].first == sorted[begin].first; ++end) {
      (sorted[end].second == 0 ? equal_negatives : equal_positives) += 1;
    }
    above += static_cast<double>(equal_positives) *
             (static_cast<double>(negatives) + 0.5 * static_cast<double>(equal_negatives));
    negatives += equal_negatives;
    positives += equal_positives;
    begin = end;
  }
  if (negatives == 0 || positives == 0) return kNone;
  return above / static_cast<double>(negatives) / static_cast<double>(positives);
}

}  // namespace basin
