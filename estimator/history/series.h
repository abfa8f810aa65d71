// A metric over a run, thinned out so that a chart of it stays small however long the run is. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "estimator/history/metric_lines.h"

namespace basin {

// One metric of one task: at most kPointsMax points, each the mean of as many neighbours as the others; the last
// point as it came.
class Series {
 public:
  struct Point {
    double step = 0;  // where a point has none: how many came before it
    double value = 0;
    double time = 0;
  };
  static constexpr size_t kPointsMax = 512;

  void Add(const MetricPoint& point);
  // With the newest point last.
  std::vector<Point> Points() const;
  uint64_t count() const { return count_; }
  // Over all points that are numbers; NaN where there is none.
  double min() const { return min_; }
  double max() const { return max_; }
  const Point& last() const { return last_; }

 private:
  std::vector<Point> points_;  // each the mean of `stride_`
  uint64_t stride_ = 1;
  Point sum_;
  uint64_t summed_ = 0;
  uint64_t count_ = 0;
  double min_ = 0, max_ = 0;
  bool any_number_ = false;
  Point last_;
};

// By metric, then by task.
using SeriesMap = std::map<std::string, std::map<TaskId, Series>>;

// Eight heights of block characters, at most `width` of them: "▁▃▅█". A value that is no number is a blank.
std::string Sparkline(const std::vector<Series::Point>& points, size_t width);

}  // namespace basin
