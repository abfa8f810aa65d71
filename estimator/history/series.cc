#include "estimator/history/series.h"

#include <algorithm>
#include <cmath>

namespace basin {

void Series::Add(const MetricPoint& point) {
  last_ = {point.step ? static_cast<double>(*point.step) : static_cast<double>(count_), point.value, point.time};
  if (std::isfinite(point.value)) {
    min_ = any_number_ ? std::min(min_, point.value) : point.value;
    max_ = any_number_ ? std::max(max_, point.value) : point.value;
    any_number_ = true;
  } else if (!any_number_) {
    min_ = max_ = std::nan("");
  }
  ++count_;
  sum_.step += last_.step;
  sum_.value += last_.value;
  sum_.time += last_.time;
  if (++summed_ < stride_) return;
  const auto n = static_cast<double>(stride_);
  points_.push_back({sum_.step / n, sum_.value / n, sum_.time / n});
  sum_ = {};
  summed_ = 0;
  if (points_.size() < kPointsMax) return;
  for (size_t i = 0; i + 1 < points_.size(); i += 2) {
    const Point &a = points_[i], &b = points_[i + 1];
    points_[i / 2] = {(a.step + b.step) / 2, (a.value + b.value) / 2, (a.time + b.time) / 2};
  }
  points_.resize(points_.size() / 2);
  stride_ *= 2;
}

std::vector<Series::Point> Series::Points() const {
  std::vector<Point> points = points_;
  if (count_ == 0) return points;
  // The newest point stands for itself, also where it is part of a mean.
  if (stride_ > 1 || points.empty()) points.push_back(last_);
  return points;
}

std::string Sparkline(const std::vector<Series::Point>& points, size_t width) {
  static constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  // Points that share a column show as their mean.
  std::vector<double> columns(std::min(width, points.size()));
  double low = INFINITY, high = -INFINITY;
  for (size_t i = 0; i < columns.size(); ++i) {
    const size_t from = i * points.size() / columns.size(), to = (i + 1) * points.size() / columns.size();
    for (size_t k = from; k < to; ++k) columns[i] += points[k].value / static_cast<double>(to - from);
    if (!std::isfinite(columns[i])) continue;
    low = std::min(low, columns[i]);
    high = std::max(high, columns[i]);
  }
  std::string line;
  for (const double value : columns) {
    if (!std::isfinite(value)) {
      line += " ";
      continue;
    }
    const double height = high > low ? (value - low) / (high - low) : 0.5;
    line += kBlocks[std::clamp(static_cast<int>(height * 8), 0, 7)];
  }
  return line;
}

}  // namespace basin
