#include "bench/harness/report.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace basin::bench {
namespace {

// Three digits that mean something: 0.0123, 1.23, 12.3, 123, 1234.
std::string Number(double value) {
  if (!std::isfinite(value)) return "-";
  const double size = std::fabs(value);
  const int digits = size == 0 ? 0 : std::clamp(2 - static_cast<int>(std::floor(std::log10(size))), 0, 4);
  return absl::StrFormat("%.*f", digits, value);
}

nlohmann::json OrNull(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? nlohmann::json(*value) : nlohmann::json();
}

}  // namespace

std::optional<double> Result::ratio() const {
  if (limit_name.empty() || !(limit > 0)) return std::nullopt;
  return value / limit;
}

std::optional<bool> Result::met() const {
  const std::optional<double> found = ratio();
  if (!goal || !found) return std::nullopt;
  return goal->at_most ? *found <= goal->ratio : *found >= goal->ratio;
}

nlohmann::json ToJson(const nlohmann::json& machine, const std::vector<Result>& results) {
  nlohmann::json list = nlohmann::json::array();
  for (const Result& result : results) {
    const bool limited = result.ratio().has_value();
    list.push_back(
        {{"name", result.name},
         {"value", result.value},
         {"unit", result.unit},
         {"limit_name", limited ? nlohmann::json(result.limit_name) : nlohmann::json()},
         {"limit", limited ? nlohmann::json(result.limit) : nlohmann::json()},
         {"ratio", OrNull(result.ratio())},
         {"p50_us", OrNull(result.p50_us)},
         {"p99_us", OrNull(result.p99_us)},
         {"cpu_s_per_gb", OrNull(result.cpu_s_per_gb)},
         {"peak_rss_bytes", result.peak_rss_bytes ? nlohmann::json(*result.peak_rss_bytes) : nlohmann::json()}});
  }
  return {{"machine", machine}, {"results", list}};
}

std::string Table(const std::vector<Result>& results) {
  using Row = std::array<std::string, 7>;
  std::vector<Row> rows = {{"name", "value", "unit", "limit", "ratio", "goal", "met"}};
  for (const Result& result : results) {
    const std::optional<double> ratio = result.ratio();
    const std::optional<bool> met = result.met();
    rows.push_back(
        {result.name, Number(result.value), result.unit,
         ratio ? absl::StrCat(Number(result.limit), " ", result.limit_name) : "-",
         ratio ? absl::StrFormat("%.2f", *ratio) : "-",
         result.goal ? absl::StrFormat("%s %.2f", result.goal->at_most ? "<=" : ">=", result.goal->ratio) : "-",
         met ? (*met ? "yes" : "NO") : "-"});
  }
  std::array<size_t, 7> width = {};
  for (const Row& row : rows) {
    for (size_t column = 0; column < row.size(); ++column) width[column] = std::max(width[column], row[column].size());
  }
  std::string text;
  for (const Row& row : rows) {
    for (size_t column = 0; column < row.size(); ++column) {
      const std::string pad(width[column] - row[column].size(), ' ');
      const bool number = column == 1 || column == 4;
      absl::StrAppend(&text, column == 0 ? "" : "  ", number ? pad : "", row[column],
                      number || column + 1 == row.size() ? "" : pad);
    }
    text += '\n';
  }
  return text;
}

std::string Line(const Result& result) {
  std::string text = absl::StrCat(result.name, ": ", Number(result.value), " ", result.unit);
  if (const std::optional<double> ratio = result.ratio())
    absl::StrAppendFormat(&text, ", %.2f of %s (%s)", *ratio, result.limit_name, Number(result.limit));
  if (result.p50_us && result.p99_us)
    absl::StrAppend(&text, ", p50 ", Number(*result.p50_us), " us, p99 ", Number(*result.p99_us), " us");
  return text;
}

}  // namespace basin::bench
