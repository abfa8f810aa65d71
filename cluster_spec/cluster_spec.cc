#include "cluster_spec/cluster_spec.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cluster_spec/cluster_json.h"
#include "cluster_spec/cluster_spec.pb.h"
#include "cluster_spec/host_port.h"
#include "cluster_spec/json_text.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

std::string Words(const ClusterSpec::Job& job, int64_t index, absl::string_view address) {
  return absl::StrCat("job ", JsonQuote(job.name), " index ", index, " address ", JsonQuote(address));
}

absl::Status CheckJobName(absl::string_view name) {
  bool good = !name.empty() && name.size() <= kMaxNameBytes;
  for (char c : name)
    good = good && (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.');
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("job ", JsonQuote(name.substr(0, kMaxNameBytes)),
                                                 ": expected a name of letters, digits, '_', '-' and '.', at most ",
                                                 kMaxNameBytes, " bytes; rename the job, such as ps or worker"));
}

std::string JobJson(const ClusterSpec::Job& job) {
  const bool dense = job.tasks.empty() || job.tasks.rbegin()->first + 1 == static_cast<int64_t>(job.tasks.size());
  const std::string tasks =
      absl::StrJoin(job.tasks, ", ", [&](std::string* out, const std::pair<const int64_t, std::string>& task) {
        if (!dense) absl::StrAppend(out, "\"", task.first, "\": ");
        absl::StrAppend(out, JsonQuote(task.second));
      });
  return absl::StrCat(JsonQuote(job.name), ": ", dense ? "[" : "{", tasks, dense ? "]" : "}");
}

absl::Status NoJob(absl::string_view job, const ClusterSpec& spec) {
  const std::string names =
      absl::StrJoin(spec.jobs(), ", ", [](std::string* out, const ClusterSpec::Job& j) { out->append(j.name); });
  return absl::NotFoundError(
      absl::StrCat("job ", JsonQuote(job), " is not in the cluster; its jobs: ", names.empty() ? "none" : names));
}

}  // namespace

absl::string_view Name(Role role) {
  switch (role) {
    case Role::kChief:
      return "chief";
    case Role::kWorker:
      return "worker";
    case Role::kPs:
      return "ps";
    case Role::kEvaluator:
      return "evaluator";
    case Role::kMpirun:
      return "mpirun";
    case Role::kOrted:
      return "orted";
  }
  return "?";
}

std::optional<Role> RoleNamed(absl::string_view name) {
  for (const Role role : {Role::kChief, Role::kWorker, Role::kPs, Role::kEvaluator, Role::kMpirun, Role::kOrted}) {
    if (Name(role) == name) return role;
  }
  return std::nullopt;
}

std::optional<Role> RoleOfJob(absl::string_view job) {
  if (job == "chief" || job == "master" || job == "workerpool0") return Role::kChief;
  if (job == "worker" || job == "workerpool1") return Role::kWorker;
  if (job == "ps" || job == "workerpool2") return Role::kPs;
  if (job == "evaluator" || job == "workerpool3") return Role::kEvaluator;
  return std::nullopt;
}

std::string TaskId::Name() const { return absl::StrCat(basin::Name(role), "/", index); }
std::string TaskId::Sentence() const {
  return role == Role::kMpirun ? "mpirun" : absl::StrCat(basin::Name(role), " ", index);
}

absl::StatusOr<TaskId> ParseTaskId(absl::string_view text) {
  if (text == Name(Role::kMpirun)) return TaskId{Role::kMpirun, 0};
  const size_t cut = text.find_first_of("/ ");
  if (cut != absl::string_view::npos) {
    std::optional<Role> role = RoleOfJob(text.substr(0, cut));
    if (!role) role = RoleNamed(text.substr(0, cut));
    const std::optional<int64_t> index = ParseIndex(text.substr(cut + 1));
    if (role && index && *index >= 0 && *index < static_cast<int64_t>(kMaxTasks))
      return TaskId{*role, static_cast<uint32_t>(*index)};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("task ", JsonQuote(text),
                   ": expected a role (chief, worker, ps, evaluator) and an index; write it such as worker/1"));
}

absl::StatusOr<ClusterSpec> ClusterSpec::Make(std::vector<Job> jobs) {
  size_t total = 0;
  std::map<std::string, std::string> owners;
  for (auto job = jobs.begin(); job != jobs.end(); ++job) {
    BASIN_RETURN_IF_ERROR(CheckJobName(job->name));
    if (std::any_of(jobs.begin(), job, [&](const Job& earlier) { return earlier.name == job->name; }))
      return absl::InvalidArgumentError(
          absl::StrCat("job ", JsonQuote(job->name), ": expected each job once, found it twice; merge the two"));
    total += job->tasks.size();
    if (total > kMaxTasks)
      return absl::InvalidArgumentError(absl::StrCat("job ", JsonQuote(job->name), ": expected at most ", kMaxTasks,
                                                     " tasks in the cluster, found more; split it into several runs"));
    for (const auto& [index, address] : job->tasks) {
      if (index < 0)
        return absl::InvalidArgumentError(
            absl::StrCat(Words(*job, index, address), ": expected an index of 0 or more; count from 0"));
      if (index >= static_cast<int64_t>(kMaxTasks))
        return absl::InvalidArgumentError(
            absl::StrCat(Words(*job, index, address), ": expected an index below ", kMaxTasks, "; count from 0"));
      const auto parsed = ParseHostPort(address);
      if (!parsed.ok())
        return absl::InvalidArgumentError(absl::StrCat(Words(*job, index, address), ": ", parsed.status().message()));
      const auto [owner, fresh] =
          owners.emplace(parsed->Canonical(), absl::StrCat("job ", JsonQuote(job->name), " index ", index));
      if (!fresh)
        return absl::InvalidArgumentError(absl::StrCat(Words(*job, index, address),
                                                       ": expected an address of its own, but ", owner->second,
                                                       " has it too; give one of them another port or host"));
    }
  }
  ClusterSpec out;
  out.jobs_ = std::move(jobs);
  return out;
}

absl::StatusOr<ClusterSpec> ClusterSpec::FromJson(absl::string_view json) {
  BASIN_ASSIGN_OR_RETURN(const JsonDocument document, ParseJson(json, "cluster"));
  return ReadCluster(document, document.root);
}

absl::StatusOr<ClusterSpec> ClusterSpec::FromProto(const cluster_spec::v1::ClusterDef& proto) {
  std::vector<Job> jobs;
  for (const auto& from : proto.job()) {
    Job job{from.name(), {}};
    for (const auto& task : from.tasks()) job.tasks[task.index()] = task.address();
    jobs.push_back(std::move(job));
  }
  return Make(std::move(jobs));
}

std::string ClusterSpec::ToJson() const {
  return absl::StrCat(
      "{", absl::StrJoin(jobs_, ", ", [](std::string* out, const Job& job) { out->append(JobJson(job)); }), "}");
}

std::string ClusterSpec::ToText() const {
  return absl::StrCat(
      "{", absl::StrJoin(Sorted(), ", ", [](std::string* out, const Job* job) { out->append(JobJson(*job)); }), "}");
}

void ClusterSpec::ToProto(cluster_spec::v1::ClusterDef& out) const {
  out.Clear();
  for (const Job* job : Sorted()) {
    auto* to = out.add_job();
    to->set_name(job->name);
    for (const auto& [index, address] : job->tasks) {
      auto* task = to->add_tasks();
      task->set_index(static_cast<int32_t>(index));
      task->set_address(address);
    }
  }
}

size_t ClusterSpec::total_tasks() const {
  size_t total = 0;
  for (const Job& job : jobs_) total += job.tasks.size();
  return total;
}

absl::StatusOr<size_t> ClusterSpec::num_tasks(absl::string_view job) const {
  const Job* found = Find(job);
  if (found == nullptr) return NoJob(job, *this);
  return found->tasks.size();
}

absl::StatusOr<std::vector<int64_t>> ClusterSpec::task_indices(absl::string_view job) const {
  const Job* found = Find(job);
  if (found == nullptr) return NoJob(job, *this);
  std::vector<int64_t> out;
  for (const auto& task : found->tasks) out.push_back(task.first);
  return out;
}

absl::StatusOr<std::vector<std::optional<std::string>>> ClusterSpec::job_tasks(absl::string_view job) const {
  const Job* found = Find(job);
  if (found == nullptr) return NoJob(job, *this);
  std::vector<std::optional<std::string>> out;
  for (const auto& [index, address] : found->tasks) {
    out.resize(static_cast<size_t>(index));
    out.emplace_back(address);
  }
  return out;
}

absl::StatusOr<std::string> ClusterSpec::task_address(absl::string_view job, int64_t index) const {
  const Job* found = Find(job);
  if (found == nullptr) return NoJob(job, *this);
  const auto task = found->tasks.find(index);
  if (task != found->tasks.end()) return task->second;
  const std::string present =
      absl::StrJoin(found->tasks, ", ", [](std::string* out, const auto& t) { absl::StrAppend(out, t.first); });
  return absl::NotFoundError(absl::StrCat("job ", JsonQuote(job), " has no task with index ", index,
                                          "; its indices: ", present.empty() ? "none" : present));
}

bool operator==(const ClusterSpec& a, const ClusterSpec& b) {
  const auto same = [](const ClusterSpec::Job* x, const ClusterSpec::Job* y) { return *x == *y; };
  const auto left = a.Sorted(), right = b.Sorted();
  return std::equal(left.begin(), left.end(), right.begin(), right.end(), same);
}

const ClusterSpec::Job* ClusterSpec::Find(absl::string_view job) const {
  for (const Job& candidate : jobs_) {
    if (candidate.name == job) return &candidate;
  }
  return nullptr;
}

std::vector<const ClusterSpec::Job*> ClusterSpec::Sorted() const {
  std::vector<const Job*> out;
  for (const Job& job : jobs_) out.push_back(&job);
  std::sort(out.begin(), out.end(), [](const Job* a, const Job* b) { return a->name < b->name; });
  return out;
}

}  // namespace basin
