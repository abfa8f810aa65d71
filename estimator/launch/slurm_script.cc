#include "estimator/launch/slurm_script.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "estimator/job/role_needs.h"
#include "estimator/launch/ssh_command.h"

namespace basin {
namespace {

// Agents, snapshots and environments before the tasks start.
constexpr int64_t kSecondsBefore = 600;
// Slurm looks at time limits once a minute at the most.
constexpr int64_t kSecondsAfter = 60;
constexpr char kGres[] = "--gres=";

// A value as #SBATCH lines have it: their quoting knows '"' and '\'.
std::string Quoted(const std::string& value) {
  const bool plain = value.find_first_of(" \t\"'\\#") == std::string::npos;
  return plain ? value : absl::StrCat("\"", absl::StrReplaceAll(value, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
}

// Of "--gres=gpu:2,lustre:1": whether one of the resources is a GPU.
bool NamesGpu(absl::string_view gres) {
  for (absl::string_view one : absl::StrSplit(gres, ',')) {
    if (!absl::ConsumePrefix(&one, "gres:")) absl::ConsumePrefix(&one, "gres/");
    if (one == "gpu" || absl::StartsWith(one, "gpu:") || absl::StartsWith(one, "gpu=")) return true;
  }
  return false;
}

bool AsksForGpus(const SlurmOptions& options) {
  return std::any_of(options.extra.begin(), options.extra.end(), [](absl::string_view word) {
    if (absl::ConsumePrefix(&word, kGres)) return NamesGpu(word);
    return absl::StartsWith(word, "--gpus") || absl::StartsWith(word, "-G");
  });
}

// --mem, --mem-per-cpu, --mem-per-gpu, also shortened; not --mem-bind.
bool AsksForMemory(const std::string& word) {
  const std::string name = word.substr(0, word.find('='));
  return name == "--mem" || absl::StartsWith(name, "--mem-per-") ||
         (absl::StartsWith("--mem-per-", name) && name.size() > 5);
}

absl::Status CheckMemoryIsSaidOnce(const Job& job, const SlurmOptions& options) {
  const auto extra = std::find_if(options.extra.begin(), options.extra.end(), AsksForMemory);
  if (extra == options.extra.end()) return absl::OkStatus();
  for (const auto& [role, resources] : job.roles) {
    if (resources.memory_bytes == 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("slurm.extra: ", *extra, " conflicts with roles: {", Name(role),
                     ": {memory: ...}}, from which Basin makes --mem of a node itself; remove one of the two"));
  }
  return absl::OkStatus();
}

std::string TimeText(int64_t seconds) {
  const int64_t minutes = (seconds + 59) / 60;
  return absl::StrFormat("%d-%02d:%02d:00", minutes / 1440, minutes / 60 % 24, minutes % 60);
}

}  // namespace

int64_t SlurmTimeLimit(const Job& job, const SlurmOptions& options) {
  if (!options.time.empty()) return SlurmTimeSeconds(options.time);
  if (job.max_run_duration_seconds == 0) return 0;
  return kSecondsBefore + job.max_run_duration_seconds + job.cancel_grace_seconds + 2 * kSecondsAfter;
}

int64_t SlurmSignalLead(const Job& job, const SlurmOptions& options) {
  const int64_t lead = job.cancel_grace_seconds + kSecondsAfter;
  const int64_t limit = SlurmTimeLimit(job, options);
  return limit == 0 ? lead : std::min(lead, std::max<int64_t>(1, limit / 4));
}

absl::StatusOr<std::string> SlurmScript(const Job& job, const SlurmOptions& options, const std::string& program,
                                        const std::string& folder) {
  BASIN_RETURN_IF_ERROR(CheckMemoryIsSaidOnce(job, options));
  BASIN_RETURN_IF_ERROR(CheckNodeMemory(job));
  std::string text = "#!/bin/bash\n";
  absl::Status fits;
  const auto check = [&fits](absl::string_view name, const std::string& value) {
    if (std::none_of(value.begin(), value.end(), absl::ascii_iscntrl)) return;
    fits.Update(absl::InvalidArgumentError(absl::StrCat(
        name, " is \"", absl::CEscape(value), "\": a script for sbatch holds no control characters; take them out")));
  };
  check("the path of basin", program);
  check("the run's folder", folder);
  const auto add = [&](absl::string_view name, const std::string& value) {
    check(name, value);
    absl::StrAppend(&text, "#SBATCH --", name, value.empty() ? "" : "=", Quoted(value), "\n");
  };
  const NodeNeeds needs = NeedsOfNodes(job);
  add("job-name", absl::StrCat("basin-", job.experiment));
  add("nodes", absl::StrCat(job.node_count));
  add("ntasks-per-node", "1");
  add("cpus-per-task", absl::StrCat(needs.cpus));
  if (needs.memory_bytes > 0) add("mem", absl::StrCat((needs.memory_bytes + (1 << 20) - 1) >> 20, "M"));
  const bool adds_gpus = needs.gpus > 0 && !AsksForGpus(options);
  if (adds_gpus) {
    // Of several --gres sbatch takes the last.
    std::string gres = absl::StrCat("gpu:", needs.gpus);
    for (absl::string_view word : options.extra) {
      if (absl::ConsumePrefix(&word, kGres)) absl::StrAppend(&gres, ",", word);
    }
    add("gres", gres);
  }
  const std::string partition = PartitionOfRoles(job).empty() ? options.partition : PartitionOfRoles(job);
  const std::pair<const char*, const std::string&> words[] = {{"partition", partition},
                                                              {"account", options.account},
                                                              {"qos", options.qos},
                                                              {"reservation", options.reservation},
                                                              {"constraint", options.constraint}};
  for (const auto& [name, value] : words) {
    if (!value.empty()) add(name, value);
  }
  if (!options.time.empty()) {
    add("time", options.time);
  } else if (const int64_t limit = SlurmTimeLimit(job, options); limit > 0) {
    add("time", TimeText(limit));
  }
  add("signal", absl::StrCat("B:USR1@", SlurmSignalLead(job, options)));
  add(options.requeue ? "requeue" : "no-requeue", "");
  add("output", absl::StrReplaceAll(folder, {{"%", "%%"}}) + "/supervisor.log");
  add("open-mode", "append");
  for (const std::string& word : options.extra) {
    check("slurm.extra", word);
    if (adds_gpus && absl::StartsWith(word, kGres)) continue;
    absl::StrAppend(&text, "#SBATCH ", Quoted(word), "\n");
  }
  // In place of the shell, so that Slurm's signals reach it.
  absl::StrAppend(&text, "exec ", ShellWord(program), " supervise ", ShellWord(folder), "\n");
  BASIN_RETURN_IF_ERROR(fits);
  return text;
}

}  // namespace basin
