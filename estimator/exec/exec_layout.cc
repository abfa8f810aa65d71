#include "estimator/exec/exec_layout.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace basin {

absl::Status Check(const ExecLayout& layout) {
  if (layout.ps == 0) {
    return absl::InvalidArgumentError("--ps 0: a cluster needs at least one parameter server; give --ps 1");
  }
  // 64 bits: --ps may be as large as it likes.
  const uint64_t needed = uint64_t{layout.ps} + 1 + (layout.evaluator ? 1 : 0);
  if (layout.size >= needed) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--ps ", layout.ps, layout.chief ? " --chief" : "", layout.evaluator ? " --evaluator" : "", " needs at least ",
      needed, " ranks, ", layout.size, " were started; start more, such as mpirun -np ", needed, ", or ask for fewer"));
}

TaskId TaskOfRank(const ExecLayout& layout, uint32_t rank) {
  if (rank < layout.ps) return {Role::kPs, rank};
  if (layout.evaluator && rank + 1 == layout.size) return {Role::kEvaluator, 0};
  if (layout.chief && rank == layout.ps) return {Role::kChief, 0};
  return {Role::kWorker, rank - layout.ps - (layout.chief ? 1 : 0)};
}

absl::StatusOr<ClusterSpec> ClusterOf(const ExecLayout& layout, const std::vector<std::string>& addresses) {
  std::vector<ClusterSpec::Job> jobs;
  for (uint32_t rank = 0; rank < layout.size; ++rank) {
    const TaskId task = TaskOfRank(layout, rank);
    if (task.role == Role::kEvaluator) continue;
    const std::string name(Name(task.role));
    if (jobs.empty() || jobs.back().name != name) jobs.push_back({name, {}});
    jobs.back().tasks[task.index] = addresses[rank];
  }
  return ClusterSpec::Make(std::move(jobs));
}

}  // namespace basin
