#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "estimator/job/plan.h"
#include "estimator/job/plan_command.h"

namespace basin {

std::string PlanToText(const Plan& plan) {
  std::string text = absl::StrCat("run ", plan.run_id, " of experiment ", plan.experiment, ", ", plan.tasks.size(),
                                  plan.tasks.size() == 1 ? " task\n" : " tasks\n");
  for (const std::string& line : plan.setup) absl::StrAppend(&text, "before each task: ", line, "\n");
  if (!plan.secrets.empty()) {
    absl::StrAppend(&text, "from this environment, stored nowhere: ", absl::StrJoin(plan.secrets, ", "), "\n");
  }
  for (const PlannedTask& task : plan.tasks) {
    const PlacedTask& place = task.place;
    absl::StrAppend(&text, "\n", place.name.Sentence(), "  ", place.host);
    if (place.port != 0) absl::StrAppend(&text, ":", place.port);
    if (task.is_rank) {
      absl::StrAppend(&text, " (rank ", place.name.index, ")");
    } else if (place.port == 0 && place.name.role != Role::kMpirun && place.name.role != Role::kOrted) {
      absl::StrAppend(&text, task.tf_config.empty() ? " (no cluster)" : " (outside the cluster)");
    }
    absl::StrAppend(&text, "\n  ", QuotedForShell(task.argv), "\n");
    if (!task.image.empty()) absl::StrAppend(&text, "  in a container of image ", task.image, "\n");
    if (!task.devices.empty()) absl::StrAppend(&text, "  GPU ", absl::StrJoin(task.devices, ", "), "\n");
    if (!task.tf_config.empty()) absl::StrAppend(&text, "  TF_CONFIG=", task.tf_config, "\n");
  }
  return text;
}

}  // namespace basin
