#include "absl/strings/str_cat.h"
#include "bench/harness/measurement.h"
#include "bench/harness/statistics.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

// The first round of each warms up caches, memory and connections, and is not counted.
constexpr double kWarmUpShare = 0.4;

absl::Status Named(const Measurement& measurement, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(measurement.name(), ": ", status.message()));
}

}  // namespace

absl::StatusOr<std::vector<Result>> Run(Experiment& experiment, const RunOptions& options) {
  const size_t count = experiment.measurements.size();
  const auto say = [&](const std::string& text) {
    if (options.progress) options.progress(text);
  };
  for (const auto& measurement : experiment.measurements) {
    say(absl::StrCat("starting ", measurement->name()));
    BASIN_RETURN_IF_ERROR(Named(*measurement, measurement->Start()));
  }
  std::vector<std::vector<double>> values(count);
  for (int round = -1; round < options.rounds; ++round) {
    for (size_t i = 0; i < count; ++i) {
      Measurement& measurement = *experiment.measurements[i];
      say(round < 0 ? absl::StrCat("warming up ", measurement.name())
                    : absl::StrCat("round ", round + 1, " of ", options.rounds, ": ", measurement.name()));
      const absl::StatusOr<double> value =
          measurement.Round(round < 0 ? options.seconds * kWarmUpShare : options.seconds);
      BASIN_RETURN_IF_ERROR(Named(measurement, value.status()));
      if (round >= 0) values[i].push_back(*value);
    }
  }
  for (const auto& measurement : experiment.measurements) {
    say(absl::StrCat("checking ", measurement->name()));
    BASIN_RETURN_IF_ERROR(Named(*measurement, measurement->Finish()));
  }
  std::vector<Result> results;
  for (const Row& row : experiment.rows) {
    const Measurement& measurement = *experiment.measurements[static_cast<size_t>(row.measurement)];
    Result result;
    result.name = measurement.name();
    result.unit = measurement.unit();
    result.value = Median(values[static_cast<size_t>(row.measurement)]);
    if (row.limit >= 0) {
      result.limit_name = experiment.measurements[static_cast<size_t>(row.limit)]->name();
      result.limit = Median(values[static_cast<size_t>(row.limit)]);
    } else if (row.fixed_limit > 0) {
      result.limit_name = "goal";
      result.limit = row.fixed_limit;
    }
    result.goal = row.goal;
    measurement.Describe(result);
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace basin::bench
