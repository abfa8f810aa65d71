#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/exec/exec_rank.h"

namespace basin {
namespace {

struct ExecFlags {
  ExecOptions options;
  // As they were given: what is no number is named here, with an example.
  std::optional<std::string> ps, rank, size;
  std::string launch;
  std::string ports = "20000-29999";
  double start_timeout_s = 600, grace_s = 5;
};

constexpr char kExample[] = ", such as basin exec --ps 1 -- python3 train.py";

absl::StatusOr<std::optional<uint32_t>> FlagNumber(const char* name, const std::optional<std::string>& text,
                                                   absl::string_view expected) {
  uint32_t number = 0;
  if (!text) return std::nullopt;
  if (absl::SimpleAtoi(*text, &number)) return number;
  return absl::InvalidArgumentError(absl::StrCat(name, " ", *text, ": expected ", expected));
}

absl::StatusOr<int> Exec(const CommandContext& context, ExecFlags& flags) {
  ExecOptions& options = flags.options;
  BASIN_ASSIGN_OR_RETURN(const std::optional<uint32_t> ps,
                         FlagNumber("--ps", flags.ps, absl::StrCat("a number of ranks, 1 or more", kExample)));
  if (!ps) {
    return absl::InvalidArgumentError(
        absl::StrCat("--ps is missing: expected how many of the ranks are parameter servers", kExample));
  }
  options.layout.ps = *ps;
  RankFlags rank;
  rank.launch = flags.launch;
  BASIN_ASSIGN_OR_RETURN(rank.rank,
                         FlagNumber("--rank", flags.rank, "this rank, 0 or more, such as --rank 0 --size 3"));
  BASIN_ASSIGN_OR_RETURN(rank.size,
                         FlagNumber("--size", flags.size, "the number of ranks, 2 or more, such as --rank 0 --size 3"));
  BASIN_ASSIGN_OR_RETURN(options.launched, ReadLaunchedRank(context.variable, rank));
  options.layout.size = options.launched.size;
  BASIN_RETURN_IF_ERROR(Check(options.layout));
  if (options.command.empty()) {
    return absl::InvalidArgumentError(
        "no command is given for the workers; write it behind --, such as basin exec --ps 1 -- python3 train.py");
  }
  const std::vector<std::string> ports = absl::StrSplit(flags.ports, '-');
  if (ports.size() != 2 || !absl::SimpleAtoi(ports[0], &options.first_port) ||
      !absl::SimpleAtoi(ports[1], &options.last_port) || options.first_port < 1 || options.last_port > 65535 ||
      options.first_port > options.last_port) {
    return absl::InvalidArgumentError(absl::StrCat("--ports ", flags.ports,
                                                   ": expected FIRST-LAST within 1-65535, such "
                                                   "as 20000-29999"));
  }
  if (options.rendezvous.empty()) {
    char folder[4096];
    options.rendezvous = getcwd(folder, sizeof folder) == nullptr ? "." : folder;
  }
  if (access(options.rendezvous.c_str(), F_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("--rendezvous ", options.rendezvous,
                                            ": there is no such folder on this host; give one that all ranks share"));
  }
  options.start_timeout = absl::Seconds(flags.start_timeout_s);
  options.grace = absl::Seconds(flags.grace_s);
  return RunExecRank(options);
}

}  // namespace

void AddExec(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* exec = app.add_subcommand(
      "exec", "Makes a cluster of the ranks that mpirun or srun has started; each is one task of it");
  exec->footer(
      "Examples:\n"
      "  mpirun -np 4 basin exec --ps 2 -- python3 train.py\n"
      "  srun -n 5 basin exec --ps 2 --evaluator -- basin-worker --program mlp --data DATA\n"
      "\n"
      "The first ranks run basin-ps, the others the command, with TF_CONFIG, BASIN_RUN_ID and BASIN_TOKEN_FILE set. "
      "The\n"
      "rank comes from OMPI_COMM_WORLD_RANK, PMI_RANK, PMIX_RANK or SLURM_PROCID. The ps end when training is over. "
      "The\n"
      "first task that fails ends all ranks.\n"
      "Exit code of every rank: 0 all ended well, that of the first task that failed (128 + N where signal N ended "
      "it), 1\n"
      "where ranks do not meet or are lost, 2 wrong input.");
  const auto flags = std::make_shared<ExecFlags>();  // the callback keeps it
  ExecOptions& options = flags->options;
  exec->add_option("--ps", flags->ps, "Ranks that are parameter servers: 0 to N-1. Must be given")
      ->type_name("N")
      ->group("Roles");
  exec->add_flag("--chief", options.layout.chief, "The rank behind the ps is the chief; otherwise worker 0 leads")
      ->group("Roles");
  exec->add_flag("--evaluator", options.layout.evaluator, "The last rank is the evaluator")->group("Roles");
  exec->add_option("--lanes", options.lanes,
                   "Lanes of a ps (default: 1 where other ranks run on its host, otherwise one a core)")
      ->check(CLI::Range(1, 256))
      ->group("Roles");
  exec->add_option("--rendezvous", options.rendezvous,
                   "Folder that all ranks see, where they find each other (default: the working directory)")
      ->type_name("FOLDER")
      ->group("Finding each other");
  exec->add_option("--launch-id", flags->launch,
                   "Name of this launch among those that share the folder (default: the launcher's job id)")
      ->group("Finding each other");
  exec->add_option("--rank", flags->rank, "This rank, where the launcher's variables do not say it")
      ->type_name("N")
      ->group("Finding each other");
  exec->add_option("--size", flags->size, "Number of ranks, where the launcher's variables do not say it")
      ->type_name("N")
      ->group("Finding each other");
  exec->add_option("--ports", flags->ports, "Ports for tasks, after 2222")
      ->capture_default_str()
      ->group("Finding each other");
  exec->add_option("--start-timeout", flags->start_timeout_s, "Seconds until all ranks must be there")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 1e9))
      ->group("Finding each other");
  exec->add_option("--grace", flags->grace_s,
                   "Seconds that a task which is stopped has to end by itself, and the ps when training is over")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3600.0))
      ->group("Roles");
  exec->add_option("command", options.command, "What chief, workers and evaluator run, behind --")
      ->type_name("-- CMD...");
  exec->callback([&context, exit_code, flags] {
    const absl::StatusOr<int> ended = Exec(context, *flags);
    *exit_code = ended.ok() ? *ended : Complain(ended.status());
  });
}

}  // namespace basin
