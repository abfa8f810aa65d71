#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/given_words.h"
#include "estimator/commands/runs_place.h"
#include "estimator/history/record_json.h"

namespace basin {
namespace {

struct RunsFlags : RunFlags {
  std::string experiment, state;
  size_t limit = 20;
};

absl::Status CheckState(const std::string& state) {
  if (state.empty()) return absl::OkStatus();
  const std::vector<std::string> known = RunPhaseNames();
  for (const std::string& one : known) {
    if (absl::EqualsIgnoreCase(one, state)) return absl::OkStatus();
  }
  const std::optional<std::string> near = Nearest(state, known);
  return absl::InvalidArgumentError(absl::StrCat(
      "--state ", state, ": no state of a run",
      near ? absl::StrCat("; did you mean ", *near, "?") : absl::StrCat("; states are ", absl::StrJoin(known, ", "))));
}

// The one metric that fits on a line: the loss, where there is one.
std::string OneMetric(const RunRecord& record) {
  if (record.metrics.empty()) return "";
  for (const char* first : {"test_accuracy", "accuracy", "test_loss", "loss"}) {
    if (const auto found = record.metrics.find(first); found != record.metrics.end()) {
      return absl::StrCat(first, " ", found->second);
    }
  }
  return absl::StrCat(record.metrics.begin()->first, " ", record.metrics.begin()->second);
}

absl::Status Runs(const CommandContext& context, const RunsFlags& flags) {
  BASIN_RETURN_IF_ERROR(CheckState(flags.state));
  BASIN_ASSIGN_OR_RETURN(const std::string runs, RunsFolderOf(context, flags.runs));
  BASIN_ASSIGN_OR_RETURN(const RunListing listing,
                         ListRuns(runs, IndexPathOf(context), {flags.experiment, flags.state, flags.limit}));
  const std::vector<ListedRun>& listed = listing.runs;
  if (!listing.damaged.empty()) {
    const size_t more = listing.damaged.size() - 1;
    Warn(absl::StrCat(more == 0 ? "a run is" : absl::StrCat(more + 1, " runs are"), " not shown: ", listing.damaged[0],
                      more == 0 ? "" : absl::StrCat(" and ", more, " more"),
                      " cannot be read, or neither run.json nor journal.jsonl there tells of a run; make it readable, "
                      "or remove what is left: basin delete --force RUN"));
  }
  if (flags.json) {
    OrderedJson all = OrderedJson::array();
    for (const ListedRun& run : listed) {
      OrderedJson one = RecordToJsonValue(run.record);
      one["state"] = run.shown.name;
      all.push_back(std::move(one));
    }
    std::printf("%s\n", Pretty(all).c_str());
    return absl::OkStatus();
  }
  if (listed.empty()) {
    std::printf("no runs%s in %s\n", flags.experiment.empty() && flags.state.empty() ? "" : " of this kind",
                runs.c_str());
    return absl::OkStatus();
  }
  size_t id = 3, experiment = 10;
  for (const ListedRun& run : listed) {
    id = std::max(id, run.record.run_id.size());
    experiment = std::max(experiment, run.record.experiment.size());
  }
  const absl::Time now = absl::Now();
  std::string text = absl::StrCat(Column("RUN", id), Column("EXPERIMENT", experiment), Column("STATE", 15),
                                  Column("AGE", 7), Column("TOOK", 7), "LAST METRIC\n");
  for (const ListedRun& run : listed) {
    const RunRecord& record = run.record;
    const std::string took = record.ended ? AgeText(*record.ended - record.created) : "";
    absl::StrAppend(&text, Column(record.run_id, id), Column(record.experiment, experiment), Column(run.shown.name, 15),
                    Column(AgeText(now - record.created), 7), Column(took, 7), ForTerminal(OneMetric(record)), "\n");
  }
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace

void AddRuns(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* runs = app.add_subcommand("runs", "Lists runs, the newest first");
  const auto flags = std::make_shared<RunsFlags>();  // the callback keeps it
  NotEmpty(runs->add_option("--experiment", flags->experiment, "Only runs of this experiment"))->type_name("NAME");
  NotEmpty(runs->add_option("--state", flags->state, "Only runs in this state, such as Running or Failed"))
      ->type_name("STATE");
  WholeNumber(runs->add_option("--limit", flags->limit, "At most so many, 0 for all; default: 20"), 0)->type_name("N");
  AddRunsOption(*runs, flags.get());
  AddJsonOption(*runs, flags.get(), "Print the runs' records as a JSON list");
  runs->footer(kUsualExitCodes);
  runs->callback([&context, exit_code, flags] {
    const absl::Status status = Runs(context, *flags);
    *exit_code = status.ok() ? kExitOk : Complain(status);
  });
}

}  // namespace basin
