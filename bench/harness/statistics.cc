#include "bench/harness/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace basin::bench {

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const size_t middle = values.size() / 2;
  std::sort(values.begin(), values.end());
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double Percentile(std::vector<double> values, double fraction) {
  if (values.empty()) return 0;
  const auto rank = static_cast<size_t>(std::ceil(fraction * static_cast<double>(values.size())));
  const auto at = values.begin() + static_cast<ptrdiff_t>(std::clamp<size_t>(rank, 1, values.size()) - 1);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

double SlowestOverMean(const std::vector<double>& done) {
  if (done.empty()) return 1;
  const double mean = std::accumulate(done.begin(), done.end(), 0.0) / static_cast<double>(done.size());
  return mean > 0 ? *std::min_element(done.begin(), done.end()) / mean : 0;
}

void LatencySample::Add(double microseconds) {
  if (seen_++ % every_ != 0) return;
  values_.push_back(microseconds);
  if (values_.size() < most_) return;
  for (size_t i = 0; 2 * i < values_.size(); ++i) values_[i] = values_[2 * i];
  values_.resize((values_.size() + 1) / 2);
  every_ *= 2;
}

void LatencySample::Clear() {
  seen_ = 0;
  every_ = 1;
  values_.clear();
}

}  // namespace basin::bench
