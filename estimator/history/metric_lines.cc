#include "estimator/history/metric_lines.h"

#include <cmath>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/text.h"
#include "estimator/history/record_json.h"

namespace basin {
namespace {

// Bare NaN and Infinity as values, as strings. Applied only to a line that is no JSON otherwise.
std::string WithQuotedNumbers(absl::string_view line) {
  return absl::StrReplaceAll(line, {{": NaN", ": \"NaN\""},
                                    {":NaN", ":\"NaN\""},
                                    {": Infinity", ": \"Infinity\""},
                                    {":Infinity", ":\"Infinity\""},
                                    {": -Infinity", ": \"-Infinity\""},
                                    {":-Infinity", ":\"-Infinity\""}});
}

}  // namespace

absl::Status CheckMetricName(absl::string_view name) {
  const auto shown = [name] { return Line(OrderedJson(std::string(name))); };
  if (name.empty()) return absl::InvalidArgumentError("a metric's name is empty; give one, such as loss");
  if (name.size() > kMetricNameBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("metric ", shown().substr(0, 40), "...: the name has ", name.size(),
                                                   " bytes, at most ", kMetricNameBytesMax, " are allowed"));
  }
  for (const char c : name) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      return absl::InvalidArgumentError(absl::StrCat("metric ", shown(), ": the name holds a control character"));
    }
  }
  if (!IsUtf8(name)) {
    return absl::InvalidArgumentError(absl::StrCat("metric ", shown(), ": the name is not UTF-8"));
  }
  return absl::OkStatus();
}

std::optional<MetricPoint> ParseMetricLine(absl::string_view line, double arrived) {
  if (!line.empty() && line.back() == '\n') line.remove_suffix(1);
  if (line.empty() || line.size() > kMetricLineBytesMax) return std::nullopt;
  OrderedJson json = OrderedJson::parse(ToStd(line), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) json = OrderedJson::parse(WithQuotedNumbers(line), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  MetricPoint point;
  point.name = TextField(json, "name");
  if (!CheckMetricName(point.name).ok()) return std::nullopt;
  const auto value = json.find("value");
  const std::optional<double> number = value == json.end() ? std::nullopt : NumberFromJson(*value);
  if (!number) return std::nullopt;
  point.value = *number;
  // Counters of other languages come as 12.0.
  if (const auto step = json.find("step"); step != json.end() && step->is_number()) {
    const double at = step->get<double>();
    if (step->is_number_integer()) {
      point.step = step->get<int64_t>();
    } else if (std::abs(at) < 9e15 && at == std::floor(at)) {
      point.step = static_cast<int64_t>(at);
    }
  }
  const auto time = json.find("time");
  point.time = time != json.end() && time->is_number() ? time->get<double>() : arrived;
  if (const absl::StatusOr<TaskId> task = ParseTaskId(TextField(json, "task")); task.ok()) point.task = *task;
  return point;
}

std::string MetricLine(const MetricPoint& point, bool with_task) {
  OrderedJson json = {{"name", point.name}, {"value", NumberToJson(point.value)}};
  if (point.step) json["step"] = *point.step;
  json["time"] = std::round(point.time * 1000) / 1000;
  if (with_task) json["task"] = point.task.Name();
  return Line(json) + "\n";
}

absl::StatusOr<std::vector<MetricPoint>> ReadMetrics(const std::string& path) {
  std::vector<MetricPoint> points;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (std::optional<MetricPoint> point = ParseMetricLine(line, /*arrived=*/0)) points.push_back(*std::move(point));
  }
  if (file.bad()) return absl::UnavailableError(absl::StrCat("read ", path, ": failed"));
  return points;
}

}  // namespace basin
