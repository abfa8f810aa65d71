#include "estimator/kubernetes/pod_source.h"

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/kubernetes/source_archive.h"
#include "estimator/run/snapshot_sender.h"

namespace basin {

absl::StatusOr<PodSource> ReadPodSource(const PodPlan& plan, const std::string& base) {
  PodSource source;
  if (plan.source == "archive") {
    BASIN_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(absl::StrCat(kPodArchiveFolder, "/source")));
    BASIN_ASSIGN_OR_RETURN(const std::vector<agent::ToAgent> messages, UnpackSource(bytes));
    source.offer = messages.front();
    source.tree.assign(messages.begin() + 1, messages.end());
  } else if (plan.source == "folder") {
    TreeOptions options;
    options.limit_mb = plan.source_limit_mb;
    BASIN_RETURN_IF_ERROR(MakeFolders(base, 0700));
    BASIN_ASSIGN_OR_RETURN(source.staged, StageSnapshot(plan.source_path, base, options));
    source.offer = OfferOf(*source.staged);
  }
  return source;
}

}  // namespace basin
