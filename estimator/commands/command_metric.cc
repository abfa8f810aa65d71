#include <fcntl.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cerrno>
#include <limits>
#include <memory>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/given_words.h"
#include "estimator/history/metric_lines.h"

namespace basin {
namespace {

struct MetricFlags {
  std::string name, value;
  std::optional<int64_t> step;
};

absl::Status LogMetric(const CommandContext& context, const MetricFlags& flags) {
  BASIN_RETURN_IF_ERROR(CheckMetricName(flags.name));
  MetricPoint point{flags.name, 0, flags.step, absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()), {}};
  // Hexadecimal would be read, and is hardly meant.
  if (flags.value.find_first_of("xX") != std::string::npos || !absl::SimpleAtod(flags.value, &point.value)) {
    return absl::InvalidArgumentError(
        absl::StrCat("metric ", flags.name, ": \"", flags.value, "\" is no number; write one, such as 0.91 or 1e-3"));
  }
  if (context.metrics_file.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("metric ", flags.name,
                     ": this is no task of a run (BASIN_METRICS_FILE is not set); call it from the script that "
                     "`basin submit` runs, or set BASIN_METRICS_FILE to a file that lines are appended to"));
  }
  const std::string& path = context.metrics_file;
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("metric ", flags.name, ": open ", path));
  absl::Cleanup close_fd = [fd] { close(fd); };
  const std::string line = MetricLine(point, /*with_task=*/false);
  const ssize_t wrote = write(fd, line.data(), line.size());  // one write: lines of several processes never mix
  if (wrote == static_cast<ssize_t>(line.size())) return absl::OkStatus();
  return ErrnoStatus(wrote < 0 ? errno : ENOSPC, absl::StrCat("metric ", flags.name, ": write ", path));
}

}  // namespace

void AddMetric(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* metric = app.add_subcommand("metric", "For scripts of a run: reports a metric");
  metric->require_subcommand(1);
  CLI::App* log = metric->add_subcommand(
      "log", "Adds a value to a metric of this run; repeats extend its series. For use inside of a task");
  const auto flags = std::make_shared<MetricFlags>();  // the callback keeps it
  log->add_option("NAME", flags->name, "Its name, such as loss")->type_name("")->required();
  log->add_option("VALUE", flags->value, "A number; nan and inf too")->type_name("")->required();
  WholeNumber(log->add_option("--step", flags->step,
                              "The step that it belongs to; default: none, charts then count the values"),
              std::numeric_limits<int64_t>::min())
      ->type_name("N");
  log->footer(absl::StrCat("Example, in a shell script: basin metric log accuracy 0.91 --step 300\n", kUsualExitCodes));
  log->callback([&context, exit_code, flags] {
    const absl::Status status = LogMetric(context, *flags);
    *exit_code = status.ok() ? kExitOk : Complain(status);
  });
}

}  // namespace basin
