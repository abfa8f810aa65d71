#include "estimator/launch/slurm_command.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "estimator/agent/channel.h"

namespace basin {

std::vector<std::string> SrunCommand(const Target& target, const AgentRequest& request,
                                     const std::vector<std::string>& command) {
  std::vector<std::string> argv = {"srun", "--nodes=1", "--ntasks=1", absl::StrCat("--nodelist=", request.host.name),
                                   // Beside the batch script, which has all CPUs of its node; all of the node's memory.
                                   "--overlap", "--mem=0",
                                   // The conversation is a stream: without it slurmstepd waits for line ends.
                                   "--unbuffered", "--mpi=none", "--kill-on-bad-exit=0", "--export=ALL",
                                   absl::StrCat("--job-name=basin-node-", request.node)};
  if (!target.slurm.job_id.empty()) argv.push_back(absl::StrCat("--jobid=", target.slurm.job_id));
  // srun does not take it over from sbatch.
  if (request.node < target.slurm.cpus.size()) {
    argv.push_back(absl::StrCat("--cpus-per-task=", target.slurm.cpus[request.node]));
  }
  argv.insert(argv.end(), command.begin(), command.end());
  return argv;
}

std::string SbatchComplaint(const std::string& errors) {
  const std::pair<const char*, const char*> known[] = {
      {"Invalid partition", "sinfo lists the partitions; correct slurm.partition"},
      {"Invalid account", "sacctmgr show associations user=$USER lists your accounts; correct slurm.account"},
      {"Invalid qos", "correct slurm.qos"},
      {"Invalid feature", "sinfo -o %f lists the features; correct slurm.constraint"},
      {"Requested reservation is invalid", "scontrol show reservation lists them; correct slurm.reservation"},
      {"Requested time limit is invalid",
       "the partition allows less; set slurm.time, or a smaller max_run_duration_seconds"},
      {"Requested node configuration is not available",
       "no node of the partition has as much; lower roles' cpus, memory or gpus, or take another slurm.partition"},
      {"Node count specification invalid", "lower node_count, or take another slurm.partition"},
      {"More processors requested than permitted", "lower node_count, or roles' cpus"},
      {"Invalid generic resource",
       "these nodes offer no such GPUs to Slurm; set use_gpu: false, or name them in slurm.extra: [\"--gres=...\"]"},
      {"Unable to contact slurm controller", "slurmctld does not answer; try again, or ask who runs the cluster"},
      {"Could not establish a configuration source",
       "this machine is no client of a Slurm cluster: submit from a login node of it, or name its configuration by "
       "SLURM_CONF"},
      {"unrecognized option", "correct slurm.extra"},
      {"Job violates accounting/QOS policy", "ask for less, or name another slurm.account or slurm.qos"},
  };
  const std::string said = LastLines(errors);
  for (const auto& [text, fix] : known) {
    if (absl::StrContains(errors, text)) return absl::StrCat("sbatch refused the job: ", said, "; ", fix);
  }
  return absl::StrCat(
      "sbatch refused the job", said.empty() ? ", and did not say why" : absl::StrCat(": ", said),
      "; see what is asked for by basin submit --dry-run, and correct the job's group slurm, or the target's");
}

std::string SrunComplaint(const AgentRequest& request, const std::string& program, const PipeEnd& end) {
  const std::string said = LastLines(end.errors.empty() ? end.printed : end.errors);
  const std::string found =
      absl::StrCat("srun on ", request.host.name, " led to no agent", said.empty() ? "" : absl::StrCat(": ", said));
  if (absl::StrContains(end.errors, "No such file or directory") || absl::StrContains(end.errors, "not found")) {
    return absl::StrCat(found, "; ", program,
                        " must be there on every node: install Basin on a file system that they share, and name its "
                        "folder by programs in the target");
  }
  if (absl::StrContains(end.errors, "Invalid job id") || absl::StrContains(end.errors, "has expired") ||
      absl::StrContains(end.errors, "already completing")) {
    return absl::StrCat(found, "; the allocation is gone");
  }
  return absl::StrCat(found, "; see whether this works in the allocation: srun -w ", request.host.name, " ", program,
                      " --version");
}

}  // namespace basin
