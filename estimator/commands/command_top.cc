#include <signal.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster_spec/cluster_view.h"
#include "cluster_spec/tf_config.h"
#include "common/base/exit_code.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/given_words.h"
#include "estimator/run/top_view.h"

namespace basin {
namespace {

struct TopFlags {
  StatsAddress address;
  bool json = false;
  int64_t timeout_seconds = 30;
};

absl::StatusOr<StatsAddress> AddressFor(const CommandContext& context, const TopFlags& flags) {
  StatsAddress address = flags.address;
  if (address.token_file.empty()) address.token_file = context.token_file;
  if (address.run_id.empty()) address.run_id = context.run_id;
  if (!address.ps.empty()) return address;
  if (!context.tf_config) {
    return absl::InvalidArgumentError("top: which cluster? Give --ps HOST:PORT of ps 0, or set TF_CONFIG");
  }
  BASIN_ASSIGN_OR_RETURN(const TfConfig config, ParseTfConfig(*context.tf_config));
  const absl::StatusOr<std::string> ps = config.cluster.task_address("ps", 0);
  if (!ps.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("top: TF_CONFIG names no ps 0 (", ps.status().message(), "); give --ps HOST:PORT"));
  }
  address.ps = *ps;
  return address;
}

// The first answer may take as long as the user allows: the cluster may still be starting.
absl::StatusOr<std::string> FirstAnswer(StatsSource& source, const StatsAddress& address, absl::Duration limit) {
  const absl::Time deadline = absl::Now() + limit;
  while (true) {
    absl::StatusOr<std::string> json = source.Read();
    if (json.ok() || !absl::IsUnavailable(json.status()) || absl::Now() >= deadline) {
      if (json.ok()) return json;
      return absl::Status(json.status().code(),
                          absl::StrCat("top: ps 0 at ", address.ps, ": ", json.status().message()));
    }
    absl::SleepFor(absl::Milliseconds(200));
  }
}

int Top(const CommandContext& context, const TopFlags& flags) {
  const absl::StatusOr<StatsAddress> address = AddressFor(context, flags);
  if (!address.ok()) return Complain(address.status());
  const absl::StatusOr<std::unique_ptr<StatsSource>> source = context.open_stats(*address);
  if (!source.ok()) {
    return Complain(absl::Status(source.status().code(),
                                 absl::StrCat("top: ps 0 at ", address->ps, ": ", source.status().message())));
  }
  absl::StatusOr<std::string> json = FirstAnswer(**source, *address, absl::Seconds(flags.timeout_seconds));
  const bool live = !flags.json && isatty(STDOUT_FILENO) != 0;
  while (true) {
    if (!json.ok()) return Complain(json.status());
    if (flags.json) {
      std::printf("%s\n", json->c_str());
      return kExitOk;
    }
    const absl::StatusOr<ClusterStats> stats = ParseStats(*json);
    if (!stats.ok()) return Complain(stats.status());
    // On a terminal: from the upper left corner, clearing what was there.
    std::printf("%s%s", live ? "\033[H\033[2J" : "", RenderTop(*stats).c_str());
    std::fflush(stdout);
    if (!live || stats->state == "finished") return kExitOk;
    absl::SleepFor(absl::Seconds(1));
    json = (*source)->Read();
  }
}

}  // namespace

void AddTop(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* top = app.add_subcommand(
      "top",
      "Shows a living cluster: workers, clocks, lag, staleness, rates, who waits for whom. On a terminal until the "
      "run ends or Ctrl-C; otherwise once");
  const auto flags = std::make_shared<TopFlags>();  // the callback keeps it
  top->add_option("--ps", flags->address.ps, "The address of ps 0; default: that of TF_CONFIG")->type_name("HOST:PORT");
  top->add_option("--token-file", flags->address.token_file, "File with the run's token; default: BASIN_TOKEN_FILE")
      ->type_name("FILE");
  top->add_option("--run-id", flags->address.run_id, "Refuse any other run; default: BASIN_RUN_ID")->type_name("ID");
  WholeNumber(top->add_option("--timeout", flags->timeout_seconds, "Seconds to wait for the first answer; default: 30"),
              0)
      ->type_name("SECONDS");
  top->add_flag("--json", flags->json, "Print the stats once, as JSON");
  top->footer("Exit code: 0 shown, 1 the cluster does not answer (any more), 2 wrong input.");
  top->callback([&context, exit_code, flags] { *exit_code = Top(context, *flags); });
}

}  // namespace basin
