#include "estimator/exec/launched_rank.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

using Variable = std::function<std::optional<std::string>(const std::string& name)>;

// The variables of one kind of launcher. Where several are set (mpirun within a job of Slurm), the first one started
// this process.
struct Launcher {
  const char* name;
  const char* rank;
  const char* sizes[3];     // the first that is set counts
  const char* launches[2];  // together they name the launch
};
constexpr Launcher kLaunchers[] = {
    {"openmpi", "OMPI_COMM_WORLD_RANK", {"OMPI_COMM_WORLD_SIZE"}, {"PMIX_NAMESPACE"}},
    {"pmi", "PMI_RANK", {"PMI_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}, {"SLURM_JOB_ID", "SLURM_STEP_ID"}},
    {"pmix", "PMIX_RANK", {"PMIX_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}, {"PMIX_NAMESPACE"}},
    {"slurm", "SLURM_PROCID", {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}, {"SLURM_JOB_ID", "SLURM_STEP_ID"}},
};

absl::StatusOr<uint32_t> Number(const char* name, const std::string& text) {
  uint32_t number = 0;
  if (absl::SimpleAtoi(text, &number)) return number;
  return absl::InvalidArgumentError(absl::StrCat(name, " is \"", text, "\", which is no number"));
}

std::string AsFileName(const std::string& text) {
  std::string name;
  for (const char c : text) name.push_back(absl::ascii_isalnum(c) || c == '.' || c == '-' ? c : '_');
  return name;
}

absl::StatusOr<LaunchedRank> Read(const Launcher& launcher, const std::string& rank, const Variable& variable) {
  LaunchedRank found;
  BASIN_ASSIGN_OR_RETURN(found.rank, Number(launcher.rank, rank));
  for (const char* name : launcher.sizes) {
    if (found.size > 0 || name == nullptr) continue;
    const std::optional<std::string> size = variable(name);
    if (!size) continue;
    BASIN_ASSIGN_OR_RETURN(found.size, Number(name, *size));
  }
  found.launch = launcher.name;
  for (const char* name : launcher.launches) {
    const std::optional<std::string> part = name == nullptr ? std::nullopt : variable(name);
    if (part && !part->empty()) absl::StrAppend(&found.launch, "-", *part);
  }
  return found;
}

}  // namespace

absl::StatusOr<LaunchedRank> ReadLaunchedRank(const Variable& variable, const RankFlags& flags) {
  LaunchedRank found;
  bool launched = false;
  for (const Launcher& launcher : kLaunchers) {
    const std::optional<std::string> rank = variable(launcher.rank);
    if (!rank || launched) continue;
    BASIN_ASSIGN_OR_RETURN(found, Read(launcher, *rank, variable));
    launched = true;
  }
  if (!launched && !(flags.rank && flags.size)) {
    return absl::FailedPreconditionError(
        "this is no rank of a launch: none of OMPI_COMM_WORLD_RANK, PMI_RANK, PMIX_RANK, SLURM_PROCID is set; start it "
        "by a launcher, such as mpirun -np 4 basin exec --ps 1 -- CMD, or give --rank and --size");
  }
  if (!launched) found.launch = "ranks";
  if (flags.rank) found.rank = *flags.rank;
  if (flags.size) found.size = *flags.size;
  if (!flags.launch.empty()) found.launch = flags.launch;
  found.launch = AsFileName(found.launch);
  if (found.size == 0) {
    return absl::InvalidArgumentError(
        "the launcher says this process's rank, but not how many ranks there are; give --size");
  }
  if (found.rank >= found.size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", found.rank, " of ", found.size, " ranks: expected 0 to ", found.size - 1));
  }
  return found;
}

}  // namespace basin
