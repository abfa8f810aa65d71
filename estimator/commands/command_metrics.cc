#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "common/base/exit_code.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/given_words.h"
#include "estimator/commands/runs_place.h"
#include "estimator/history/metric_lines.h"
#include "estimator/history/record_json.h"
#include "estimator/history/series.h"

namespace basin {
namespace {

constexpr size_t kSparklineWidth = 40;

struct MetricsFlags : RunFlags {
  std::string name;
  bool csv = false;
};

std::string CsvField(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

void PrintCsv(const std::vector<MetricPoint>& points) {
  std::printf("name,task,step,time,value\n");
  for (const MetricPoint& point : points) {
    std::printf("%s,%s,%s,%.3f,%.17g\n", CsvField(point.name).c_str(), point.task.Name().c_str(),
                point.step ? absl::StrCat(*point.step).c_str() : "", point.time, point.value);
  }
}

void PrintJson(const std::vector<MetricPoint>& points) {
  OrderedJson json = OrderedJson::object();
  for (const MetricPoint& point : points) {
    json[point.name].push_back({{"step", point.step ? OrderedJson(*point.step) : OrderedJson(nullptr)},
                                {"value", NumberToJson(point.value)},
                                {"time", point.time},
                                {"task", point.task.Name()}});
  }
  std::printf("%s\n", Pretty(json).c_str());
}

void PrintText(const std::vector<MetricPoint>& points) {
  SeriesMap all;
  for (const MetricPoint& point : points) all[point.name][point.task].Add(point);
  size_t width = 6;
  for (const auto& [name, tasks] : all) width = std::max(width, name.size());
  std::printf("%s%s%12s %12s %12s %8s  %s\n", Column("METRIC", width).c_str(), Column("TASK", 11).c_str(), "LAST",
              "MIN", "MAX", "POINTS", "COURSE");
  for (const auto& [name, tasks] : all) {
    for (const auto& [task, series] : tasks) {
      std::printf("%s%s%12.6g %12.6g %12.6g %8d  %s\n", Column(name, width).c_str(), Column(task.Name(), 11).c_str(),
                  series.last().value, series.min(), series.max(), static_cast<int>(series.count()),
                  Sparkline(series.Points(), kSparklineWidth).c_str());
    }
  }
}

absl::Status Metrics(const CommandContext& context, const MetricsFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const RunFolder folder, RunOf(context, flags));
  BASIN_ASSIGN_OR_RETURN(std::vector<MetricPoint> points, ReadMetrics(folder.MetricsPath()));
  if (!flags.name.empty()) {
    std::vector<std::string> names;
    for (const MetricPoint& point : points) names.push_back(point.name);
    std::erase_if(points, [&flags](const MetricPoint& point) { return point.name != flags.name; });
    if (points.empty()) {
      std::sort(names.begin(), names.end());
      names.erase(std::unique(names.begin(), names.end()), names.end());
      const std::optional<std::string> near = Nearest(flags.name, names);
      return absl::NotFoundError(absl::StrCat("--name ", flags.name, ": the run has no such metric",
                                              near            ? absl::StrCat("; did you mean ", *near, "?")
                                              : names.empty() ? "; it has none yet"
                                                              : absl::StrCat("; it has ", absl::StrJoin(names, ", "))));
    }
  }
  if (flags.json) {
    PrintJson(points);
  } else if (flags.csv) {
    PrintCsv(points);
  } else if (points.empty()) {
    std::printf(
        "no metrics; training code reports them by client.Step({{\"loss\", ...}}), scripts by `basin metric log loss "
        "0.5`\n");
  } else {
    PrintText(points);
  }
  return absl::OkStatus();
}

}  // namespace

void AddMetrics(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* metrics =
      app.add_subcommand("metrics", "Shows the metrics of a run: by task the last, least and greatest value");
  const auto flags = std::make_shared<MetricsFlags>();  // the callback keeps it
  AddRunOption(*metrics, flags.get());
  NotEmpty(metrics->add_option("--name", flags->name, "Only this metric"))->type_name("NAME");
  CLI::Option* csv = metrics->add_flag("--csv", flags->csv, "Print all points: name,task,step,time,value");
  metrics
      ->add_flag("--json", flags->json,
                 "Print all points as JSON: {\"loss\": [{\"step\", \"value\", \"time\", \"task\"}]}")
      ->excludes(csv);
  metrics->footer(kUsualExitCodes);
  metrics->callback([&context, exit_code, flags] {
    const absl::Status status = Metrics(context, *flags);
    *exit_code = status.ok() ? kExitOk : Complain(status);
  });
}

}  // namespace basin
