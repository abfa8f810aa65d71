// What becomes of many measured numbers: pure, so that it can be tested.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace basin::bench {

// The middle number, or the mean of the two in the middle. 0 where there is none.
double Median(std::vector<double> values);

// The smallest number that at least `fraction` of all are not above (nearest rank). 0 where there is none.
// REQUIRES: 0 < fraction <= 1.
double Percentile(std::vector<double> values, double fraction);

// How evenly work was done: the least over the mean. 1 where there is none, 0 where somebody did nothing.
double SlowestOverMean(const std::vector<double>& done);

// Keeps a bounded sample of a stream of latencies: all of them, then every second, then every fourth...
class LatencySample {
 public:
  explicit LatencySample(size_t most = size_t{1} << 18) : most_(most) {}
  void Add(double microseconds);
  void Clear();
  const std::vector<double>& values() const { return values_; }

 private:
  size_t most_;
  uint64_t seen_ = 0, every_ = 1;
  std::vector<double> values_;
};

}  // namespace basin::bench
