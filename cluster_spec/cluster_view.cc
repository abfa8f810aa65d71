#include "cluster_spec/cluster_view.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cluster_spec/json_text.h"
#include "common/base/limits.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

using Job = ClusterSpec::Job;

absl::Status Wrong(absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("TF_CONFIG ", message));
}

const std::vector<std::string>& RoleNames() {
  static const auto& names = *new std::vector<std::string>{"chief", "worker", "ps", "evaluator", "master"};
  return names;
}

std::string DidYouMean(absl::string_view name) {
  const auto nearest = Nearest(name, RoleNames());
  return nearest ? absl::StrCat("; did you mean ", JsonQuote(*nearest), "?") : "";
}

// The cluster's jobs by role; nullptr where there is none. An empty job counts only where no other one has the role.
class Jobs {
 public:
  static absl::StatusOr<Jobs> Sort(const ClusterSpec& cluster, std::vector<std::string>& warnings) {
    Jobs out;
    for (const Job& job : cluster.jobs()) {
      const std::optional<Role> role = RoleOfJob(job.name);
      if (!role) {
        warnings.push_back(absl::StrCat("TF_CONFIG job ", JsonQuote(job.name),
                                        " is no role of Basin (chief or master, worker, ps, evaluator) and is ignored",
                                        DidYouMean(job.name)));
        continue;
      }
      const Job*& slot = out.of_[static_cast<size_t>(*role)];
      if (slot != nullptr && !slot->tasks.empty() && !job.tasks.empty())
        return Wrong(absl::StrCat("jobs ", JsonQuote(slot->name), " and ", JsonQuote(job.name), " both mean ",
                                  Name(*role), ", at ", slot->tasks.begin()->second, " and ", job.tasks.begin()->second,
                                  ": expected one of them; remove one"));
      if (slot == nullptr || slot->tasks.empty()) slot = &job;
    }
    for (Role role : {Role::kChief, Role::kEvaluator}) BASIN_RETURN_IF_ERROR(out.CheckSingle(role));
    return out;
  }

  const Job* Of(Role role) const { return of_[static_cast<size_t>(role)]; }
  bool Has(Role role) const { return Of(role) != nullptr && !Of(role)->tasks.empty(); }
  std::vector<Peer> Peers(Role role) const {
    std::vector<Peer> out;
    if (Of(role) == nullptr) return out;
    for (const auto& [index, address] : Of(role)->tasks) out.push_back({static_cast<uint32_t>(index), address});
    return out;
  }
  std::optional<std::string> Address(TaskId task) const {
    if (Of(task.role) == nullptr) return std::nullopt;
    const auto found = Of(task.role)->tasks.find(task.index);
    if (found == Of(task.role)->tasks.end()) return std::nullopt;
    return found->second;
  }

 private:
  absl::Status CheckSingle(Role role) const {
    if (!Has(role)) return absl::OkStatus();
    const auto& [index, address] = *Of(role)->tasks.rbegin();
    if (Of(role)->tasks.size() == 1 && index == 0) return absl::OkStatus();
    const std::string place =
        absl::StrCat("job ", JsonQuote(Of(role)->name), " index ", index, " address ", JsonQuote(address));
    if (Of(role)->tasks.size() > 1)
      return Wrong(absl::StrCat(place, ": expected at most one ", Name(role), ", found ", Of(role)->tasks.size(),
                                role == Role::kChief ? "; move the others to the job \"worker\"" : "; keep the first"));
    return Wrong(
        absl::StrCat(place, ": expected the only ", Name(role), " to have index 0; write [", JsonQuote(address), "]"));
  }

  std::array<const Job*, 5> of_{};
};

// The job name for messages: as the cluster spells it.
std::string Spelled(const Jobs& jobs, Role role) {
  return JsonQuote(jobs.Of(role) != nullptr ? absl::string_view(jobs.Of(role)->name) : Name(role));
}

absl::StatusOr<TaskId> FindSelf(const TfConfig& config, const TaskOverrides& overrides, const Jobs& jobs,
                                std::vector<std::string>& warnings) {
  TaskId self;
  std::optional<int64_t> index = config.index(overrides);
  const std::optional<std::string> type = config.type(overrides);
  if (type) {
    const std::optional<Role> role = RoleOfJob(*type);
    if (!role)
      return Wrong(absl::StrCat("task.type ", JsonQuote(*type), ": expected chief (or master), worker, ps or evaluator",
                                DidYouMean(*type), "; change task.type"));
    self.role = *role;
  } else if (config.cluster.empty()) {
    if (!index) index = 0;
  } else {
    // One task in all can only be this one.
    std::vector<TaskId> all;
    for (Role role : {Role::kChief, Role::kWorker, Role::kPs, Role::kEvaluator}) {
      for (const Peer& peer : jobs.Peers(role)) all.push_back({role, peer.index});
    }
    if (all.size() != 1)
      return Wrong(absl::StrCat(
          "task.type is missing: expected it, because the cluster has ", all.size(),
          " tasks; add \"task\": {\"type\": \"worker\", \"index\": 0} with this task's own role and index"));
    self.role = all[0].role;
    if (!index) index = all[0].index;
  }
  if (!index) {
    const std::vector<Peer> peers = jobs.Peers(self.role);
    const bool single = self.role == Role::kChief || self.role == Role::kEvaluator || config.cluster.empty();
    if (!single && peers.size() != 1)
      return Wrong(absl::StrCat("task.index is missing: expected it, because job ", Spelled(jobs, self.role), " has ",
                                peers.size(), " tasks; add this task's position in it, counted from 0"));
    index = single ? 0 : peers[0].index;
    if (!config.cluster.empty())
      warnings.push_back(
          absl::StrCat("TF_CONFIG task.index is missing; taken as ", *index, ", the only ", Name(self.role)));
  }
  if (*index < 0 || *index >= static_cast<int64_t>(kMaxTasks))
    return Wrong(absl::StrCat("task index ", *index, " of ", Name(self.role), ": expected 0 to ", kMaxTasks - 1,
                              "; count from 0"));
  self.index = static_cast<uint32_t>(*index);
  if (self.index != 0 && (self.role == Role::kChief || self.role == Role::kEvaluator))
    return Wrong(absl::StrCat("task ", self.Sentence(), ": expected index 0, because there is at most one ",
                              Name(self.role), "; set task.index to 0"));
  return self;
}

// Kubeflow's enableDynamicWorker hands ps i {"worker": {}, "ps": [its own address]}, while task.index stays i.
bool IsDynamicPs(const Jobs& jobs, TaskId self) {
  return self.role == Role::kPs && jobs.Of(Role::kWorker) != nullptr && !jobs.Has(Role::kWorker) &&
         !jobs.Has(Role::kChief) && jobs.Has(Role::kPs) && jobs.Of(Role::kPs)->tasks.size() == 1 &&
         jobs.Of(Role::kPs)->tasks.begin()->first == 0;
}

absl::Status NotListed(const Jobs& jobs, TaskId self) {
  std::string has = absl::StrJoin(jobs.Peers(self.role), ", ", [](std::string* out, const Peer& peer) {
    absl::StrAppend(out, peer.index, " at ", peer.address);
  });
  if (jobs.Of(self.role) == nullptr)
    return Wrong(absl::StrCat("task ", self.Sentence(), ": expected a job ", JsonQuote(Name(self.role)),
                              " in the cluster, found none; add it with this task's address, or change task.type"));
  return Wrong(absl::StrCat("task ", self.Sentence(), ": expected job ", Spelled(jobs, self.role), " to list index ",
                            self.index, ", found ", has.empty() ? "no task" : absl::StrCat("indices ", has),
                            "; set task.index to this task's own, or add its address"));
}

}  // namespace

std::vector<TaskId> ClusterView::trainers() const {
  std::vector<TaskId> out;
  if (chief.role == Role::kChief) out.push_back(chief);
  for (const Peer& peer : workers) out.push_back({Role::kWorker, peer.index});
  if (out.empty() && standalone) out.push_back(self);
  return out;
}

absl::StatusOr<ClusterView> Resolve(const TfConfig& config, const TaskOverrides& overrides) {
  ClusterView view;
  view.warnings = config.warnings;
  BASIN_ASSIGN_OR_RETURN(const Jobs jobs, Jobs::Sort(config.cluster, view.warnings));
  BASIN_ASSIGN_OR_RETURN(view.self, FindSelf(config, overrides, jobs, view.warnings));
  const TaskId self = view.self;
  const bool no_cluster = config.cluster.empty();

  const bool has_chief = jobs.Has(Role::kChief) || (no_cluster && self.role == Role::kChief);
  view.chief = has_chief ? TaskId{Role::kChief, 0} : TaskId{Role::kWorker, 0};
  view.is_chief = self == view.chief;
  view.workers = jobs.Peers(Role::kWorker);
  view.ps = jobs.Peers(Role::kPs);
  view.chief_address = jobs.Address({Role::kChief, 0});
  view.evaluator_address = jobs.Address({Role::kEvaluator, 0});

  if (IsDynamicPs(jobs, self)) {
    view.knows_all_ps = false;
    view.ps[0].index = self.index;
    view.self_address = view.ps[0].address;
    // Kubeflow numbers the replicas of a ps from 0 without gaps, so the others see this one at its index.
    view.self_ps = PsOrdinal(self.index);
    return view;
  }
  if (no_cluster && self.role == Role::kPs)
    return Wrong(absl::StrCat(
        "task ", self.Sentence(),
        ": expected a cluster with this ps's address, found none; add \"cluster\": {\"ps\": [\"host:port\"], ",
        "\"worker\": [...]}"));
  view.standalone = no_cluster && self.role != Role::kEvaluator;
  if (const auto address = jobs.Address(self)) {
    view.self_address = *address;
  } else if (!view.standalone && self.role != Role::kEvaluator) {
    return NotListed(jobs, self);
  }
  if (self.role == Role::kPs) {
    const auto mine =
        std::find_if(view.ps.begin(), view.ps.end(), [&](const Peer& peer) { return peer.index == self.index; });
    view.self_ps = PsOrdinal(static_cast<uint32_t>(mine - view.ps.begin()));
    return view;
  }
  if (view.ps.empty() && self.role == Role::kEvaluator) {
    view.warnings.push_back(
        "TF_CONFIG names no ps, so this evaluator has nothing to read from; add the cluster's ps job");
  } else if (view.ps.empty() && view.trainers().size() > 1) {
    return Wrong(absl::StrCat("the cluster has ", view.trainers().size(),
                              " tasks that train and no ps: expected a job \"ps\", because each would train alone; add "
                              "\"ps\": [\"host:port\"]"));
  }
  if (!no_cluster && !has_chief && !jobs.Address({Role::kWorker, 0}))
    view.warnings.push_back(
        "TF_CONFIG lists neither a chief nor worker 0, which is then the chief; fine where the others are hidden "
        "from this task (Kubeflow's enableDynamicWorker), else add it");
  return view;
}

}  // namespace basin
