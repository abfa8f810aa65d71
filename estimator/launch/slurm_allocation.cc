#include "estimator/launch/slurm_allocation.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/agent/steady_now.h"
#include "estimator/launch/slurm_tools.h"

namespace basin {
namespace {

constexpr absl::Duration kPause = absl::Milliseconds(200);

}  // namespace

std::string AllocationHere(const EnvironmentVariable& variable) { return variable("SLURM_JOB_ID").value_or(""); }

absl::Status EnterAllocation(const EnvironmentVariable& variable, Target* target) {
  target->slurm.job_id = AllocationHere(variable);
  if (const std::string components = variable("SLURM_HET_SIZE").value_or(""); !components.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "Slurm's job ", target->slurm.job_id, " is a heterogeneous one of ", components,
        " components (SLURM_HET_SIZE), of which Basin would see the first alone; allocate the nodes as one "
        "component (salloc -N2, without \":\"), or unset SLURM_JOB_ID to submit a job of its own"));
  }
  const std::optional<std::string> list = variable("SLURM_JOB_NODELIST");
  if (!list || list->empty()) {
    return absl::FailedPreconditionError(absl::StrCat("SLURM_JOB_ID is ", target->slurm.job_id,
                                                      ", but SLURM_JOB_NODELIST is not set; call basin in the "
                                                      "allocation's own shell, or unset SLURM_JOB_ID to submit "
                                                      "a job of its own"));
  }
  BASIN_ASSIGN_OR_RETURN(const std::vector<std::string> names, HostNamesOf(*list));
  target->nodes.clear();
  for (const std::string& name : names) target->nodes.push_back({name, name, "", 0});
  target->slurm.cpus.clear();
  if (const std::optional<std::string> cpus = variable("SLURM_JOB_CPUS_PER_NODE"); cpus && !cpus->empty()) {
    BASIN_ASSIGN_OR_RETURN(target->slurm.cpus, ParseCpusPerNode(*cpus));
  }
  return absl::OkStatus();
}

int RestartsHere(const EnvironmentVariable& variable) {
  int restarts = 0;
  const std::optional<std::string> text = variable("SLURM_RESTART_COUNT");
  return text && absl::SimpleAtoi(*text, &restarts) && restarts > 0 ? restarts : 0;
}

std::function<BatchVerdict()> VerdictOfAllocation(const std::string& job_id, int restarts, absl::Duration lease) {
  // The supervisor's loop waits meanwhile, and an agent that hears nothing for a lease ends its tasks.
  const absl::Duration limit = lease / 2;
  return [job_id, restarts, limit]() -> BatchVerdict {
    const absl::Time until = SteadyNow() + limit;
    absl::StatusOr<std::optional<SlurmJob>> job = AskSlurm(job_id, limit);
    // Slurm signals all that its job has started, and so also the one who asks.
    for (absl::Time next; !job.ok() && (next = SteadyNow() + kPause) < until;) {
      absl::SleepFor(kPause);
      job = AskSlurm(job_id, until - next);
    }
    if (!job.ok()) Warn(std::string(job.status().message()));
    if (!job.ok() || !*job) return {};
    return VerdictOf(**job, restarts);
  };
}

}  // namespace basin
