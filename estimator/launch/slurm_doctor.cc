#include "estimator/launch/slurm_doctor.h"

#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "estimator/agent/channel.h"
#include "estimator/job/role_needs.h"
#include "estimator/launch/slurm_command.h"
#include "estimator/launch/slurm_script.h"
#include "estimator/launch/slurm_tools.h"

namespace basin {
namespace {

constexpr absl::Duration kLimit = absl::Seconds(20);

// What no other machine sees.
constexpr const char* kLocalFileSystems[] = {"btrfs", "ext4", "overlay", "tmpfs", "xfs"};

std::string FileSystemOf(const std::string& folder) {
  // The nearest folder that exists: the runs' may not yet.
  std::filesystem::path place = folder;
  std::error_code error;
  while (!std::filesystem::exists(place, error) && place.has_relative_path()) place = place.parent_path();
  struct statfs info;
  if (statfs(place.c_str(), &info) != 0) return "";
  const std::pair<unsigned long, const char*> known[] = {
      {0x9123683EUL, "btrfs"}, {0xEF53UL, "ext4"},      {0x794C7630UL, "overlay"}, {0x01021994UL, "tmpfs"},
      {0x58465342UL, "xfs"},   {0x6969UL, "nfs"},       {0x0BD00BD0UL, "lustre"},  {0x47504653UL, "gpfs"},
      {0x00C36400UL, "ceph"},  {0x19830326UL, "beegfs"}};
  for (const auto& [magic, name] : known) {
    if (static_cast<unsigned long>(info.f_type) == magic) return name;
  }
  return "";
}

absl::StatusOr<ToolResult> TestSubmission(const std::string& script) {
  char path[] = "/tmp/basin-doctor-XXXXXX";
  const int fd = mkstemp(path);
  if (fd < 0) return absl::UnavailableError("no file can be made in /tmp");
  const bool wrote = write(fd, script.data(), script.size()) == static_cast<ssize_t>(script.size());
  close(fd);
  absl::StatusOr<ToolResult> result =
      wrote ? RunSbatch({"sbatch", "--test-only", path}, kLimit) : absl::UnavailableError("the disk of /tmp is full");
  unlink(path);
  return result;
}

struct Partition {
  std::string name;
  bool is_default = false;
  std::string available;  // "up"
  std::string limit;
  std::vector<std::string> nodes;  // "2 idle"
};

std::vector<Partition> ParsePartitions(const std::string& printed) {
  std::vector<Partition> partitions;
  for (const absl::string_view line : absl::StrSplit(printed, '\n', absl::SkipWhitespace())) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (words.size() != 5) continue;
    absl::string_view name = words[0];
    const bool is_default = absl::ConsumeSuffix(&name, "*");
    if (partitions.empty() || partitions.back().name != name) {
      partitions.push_back({std::string(name), is_default, words[1], words[2], {}});
    }
    partitions.back().nodes.push_back(absl::StrCat(words[3], " ", words[4]));
  }
  return partitions;
}

class SlurmDiagnosis {
 public:
  SlurmDiagnosis(const Target& target, const Job& job, const SlurmSeen& seen)
      : target_(target), job_(job), seen_(seen) {}

  std::vector<DoctorFinding> All() {
    const std::string version(
        absl::StripAsciiWhitespace(seen_.version.ok() ? absl::string_view(seen_.version->printed) : ""));
    if (!seen_.version.ok() || seen_.version->exit_code != 0 || version.empty()) {
      Add("slurm", DoctorState::kProblem, NoVersion(),
          "call basin on a login node of the cluster, or install Slurm's client there (Debian: slurm-client)");
      return std::move(findings_);
    }
    Add("slurm", DoctorState::kOk, version, "");
    if (Answers()) {
      ThePartition();
      Submission();
    }
    RunsFolder();
    return std::move(findings_);
  }

 private:
  void Add(const char* check, DoctorState state, const std::string& found, const std::string& fix) {
    findings_.push_back({target_.name, check, state, found, fix});
  }

  std::string NoVersion() const {
    if (!seen_.version.ok()) return absl::StrCat("sinfo: ", seen_.version.status().message());
    const std::string said = LastLines(absl::StrCat(seen_.version->errors, seen_.version->printed));
    return absl::StrCat("sinfo --version ended with ", seen_.version->exit_code,
                        said.empty() ? ", and said nothing" : absl::StrCat(": ", said));
  }

  bool Answers() {
    const bool is_up = seen_.ping.ok() && seen_.ping->exit_code == 0;
    const std::string said = !seen_.ping.ok() ? std::string(seen_.ping.status().message())
                                              : LastLines(absl::StrCat(seen_.ping->printed, seen_.ping->errors));
    Add("controller", is_up ? DoctorState::kOk : DoctorState::kProblem, said,
        is_up ? "" : "slurmctld does not answer; try again, or ask who runs the cluster");
    return is_up;
  }

  void ThePartition() {
    const std::vector<Partition> all =
        seen_.partitions.ok() ? ParsePartitions(seen_.partitions->printed) : std::vector<Partition>();
    const std::string of_roles = PartitionOfRoles(job_);
    const std::string wanted = of_roles.empty() ? target_.slurm.options.partition : of_roles;
    std::vector<std::string> names;
    for (const Partition& one : all) {
      names.push_back(one.name);
      if (wanted.empty() ? !one.is_default : one.name != wanted) continue;
      const std::string found = absl::StrCat(one.name, wanted.empty() ? " (the default)" : "", ": ", one.available,
                                             ", time limit ", one.limit, ", nodes: ", absl::StrJoin(one.nodes, ", "));
      const bool is_up = one.available == "up";
      return Add("partition", is_up ? DoctorState::kOk : DoctorState::kProblem, found,
                 is_up ? "" : "jobs wait there until it is up; take another slurm.partition");
    }
    Add("partition", DoctorState::kProblem,
        wanted.empty() ? "there is no default partition" : absl::StrCat("there is no partition ", wanted),
        absl::StrCat("set slurm.partition; sinfo lists: ", names.empty() ? "none" : absl::StrJoin(names, ", ")));
  }

  void Submission() {
    if (!seen_.test.ok()) {
      return Add("submit", DoctorState::kProblem, std::string(seen_.test.status().message()), "");
    }
    const std::string said = LastLines(seen_.test->errors.empty() ? seen_.test->printed : seen_.test->errors);
    if (seen_.test->exit_code == 0) {
      return Add("submit", DoctorState::kOk, absl::StrCat("sbatch --test-only: ", absl::StripPrefix(said, "sbatch: ")),
                 "");
    }
    Add("submit", DoctorState::kProblem, SbatchComplaint(said), "");
  }

  void RunsFolder() {
    const bool is_local = std::any_of(std::begin(kLocalFileSystems), std::end(kLocalFileSystems),
                                      [this](const char* name) { return seen_.runs_file_system == name; });
    const std::string found =
        absl::StrCat("runs lie in ", seen_.runs_folder,
                     seen_.runs_file_system.empty() ? "" : absl::StrCat(" (", seen_.runs_file_system, ")"));
    Add("runs", is_local ? DoctorState::kWarning : DoctorState::kOk, found,
        is_local ? "the nodes must see this folder under the same path; where they do not, give --runs DIR or set "
                   "BASIN_RUNS to one on a file system that they share"
                 : "");
  }

  const Target& target_;
  const Job& job_;
  const SlurmSeen& seen_;
  std::vector<DoctorFinding> findings_;
};

}  // namespace

SlurmSeen LookAtSlurm(const Target& target, const Job& job, const std::string& program,
                      const std::string& runs_folder) {
  SlurmSeen seen;
  seen.runs_folder = runs_folder;
  seen.runs_file_system = FileSystemOf(runs_folder);
  seen.version = RunTool({"sinfo", "--version"}, kLimit);
  if (!seen.version.ok()) return seen;
  seen.ping = RunTool({"scontrol", "ping"}, kLimit);
  seen.partitions = RunTool({"sinfo", "-h", "-o", "%P %a %l %D %T"}, kLimit);
  const absl::StatusOr<std::string> script = SlurmScript(job, target.slurm.options, program, runs_folder);
  seen.test = script.ok() ? TestSubmission(*script) : script.status();
  return seen;
}

std::vector<DoctorFinding> DiagnoseSlurm(const Target& target, const Job& job, const SlurmSeen& seen) {
  return SlurmDiagnosis(target, job, seen).All();
}

}  // namespace basin
