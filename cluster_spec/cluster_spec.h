// Who exists: jobs, their tasks, and the address of each. An immutable value with the behaviour of TensorFlow's
// ClusterSpec, but addresses are checked when it is made.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

namespace cluster_spec::v1 {
class ClusterDef;
}

// The last two are in no cluster: what starts the workers of a run with mpi, mpirun itself and its daemon on each other
// node.
enum class Role : uint8_t { kChief = 1, kWorker = 2, kPs = 3, kEvaluator = 4, kMpirun = 5, kOrted = 6 };

// "chief", "worker", "ps", "evaluator", "mpirun", "orted".
absl::string_view Name(Role role);
// The role of that name, and of no other; nullopt where there is none.
std::optional<Role> RoleNamed(absl::string_view name);
// The role that a job of TF_CONFIG has. Aliases of chief: "master" (legacy), "workerpool0" (Vertex's CLUSTER_SPEC,
// where workerpool1 to 3 are worker, ps and evaluator). nullopt for any other name; upper case is another name.
std::optional<Role> RoleOfJob(absl::string_view job);

// One role with an index. The index is TF_CONFIG's: in a sparse cluster it is no position in a list.
struct TaskId {
  Role role = Role::kWorker;
  uint32_t index = 0;

  // "worker/1", for logs, metrics and files' names.
  std::string Name() const;
  // "worker 1", for sentences; "mpirun", for there is but one.
  std::string Sentence() const;
  friend auto operator<=>(const TaskId&, const TaskId&) = default;
  friend std::ostream& operator<<(std::ostream& os, const TaskId& task) { return os << task.Name(); }
};

// "worker/1" or "worker 1"; `master` is taken for chief, "mpirun" needs no index.
absl::StatusOr<TaskId> ParseTaskId(absl::string_view text);

class ClusterSpec final {
 public:
  struct Job {
    std::string name;
    // From task index to host:port; may have gaps, may be empty.
    std::map<int64_t, std::string> tasks;
    bool operator==(const Job&) const = default;
  };

  // No jobs.
  ClusterSpec() = default;

  // Refuses a job named twice, a negative or too large index, an address that is no host:port, and an address given to
  // two tasks; the error names job, index, address, what was expected and what to change.
  static absl::StatusOr<ClusterSpec> Make(std::vector<Job> jobs);
  // The value of TF_CONFIG's `cluster`: job -> list of addresses, or object {index: address}.
  static absl::StatusOr<ClusterSpec> FromJson(absl::string_view json);
  static absl::StatusOr<ClusterSpec> FromProto(const cluster_spec::v1::ClusterDef& proto);

  // Strict JSON; a list where the indices are 0..n-1, else an object. Jobs in the order of insertion.
  std::string ToJson() const;
  // As ToJson, sorted by job name: equal specs have equal texts. FromJson reads it back.
  std::string ToText() const;
  void ToProto(cluster_spec::v1::ClusterDef& out) const;

  // In the order of insertion.
  const std::vector<Job>& jobs() const { return jobs_; }
  bool empty() const { return jobs_.empty(); }
  bool has_job(absl::string_view job) const { return Find(job) != nullptr; }
  // Over all jobs.
  size_t total_tasks() const;

  // NotFound for a job that is not there, in all four.
  absl::StatusOr<size_t> num_tasks(absl::string_view job) const;
  // The present ones, ascending.
  absl::StatusOr<std::vector<int64_t>> task_indices(absl::string_view job) const;
  // By index from 0 to the largest, nullopt in the gaps.
  absl::StatusOr<std::vector<std::optional<std::string>>> job_tasks(absl::string_view job) const;
  // NotFound also where the index is absent.
  absl::StatusOr<std::string> task_address(absl::string_view job, int64_t index) const;

  // The order of jobs does not count, a list equals the object that says the same.
  friend bool operator==(const ClusterSpec& a, const ClusterSpec& b);
  friend std::ostream& operator<<(std::ostream& os, const ClusterSpec& spec) { return os << spec.ToText(); }

 private:
  const Job* Find(absl::string_view job) const;
  std::vector<const Job*> Sorted() const;

  std::vector<Job> jobs_;
};

}  // namespace basin
