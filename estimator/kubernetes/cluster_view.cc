#include "estimator/kubernetes/cluster_view.h"

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/text.h"
#include "estimator/kubernetes/manifests.h"

namespace basin {
namespace {

using nlohmann::json;

// A member of whatever depth; null where it is not there. REQUIRES: names are members of objects.
const json& At(const json& object, std::initializer_list<const char*> path) {
  static const json nothing;
  const json* at = &object;
  for (const char* name : path) {
    if (!at->is_object()) return nothing;
    const auto found = at->find(name);
    if (found == at->end()) return nothing;
    at = &*found;
  }
  return *at;
}

std::string Text(const json& value) { return value.is_string() ? value.get<std::string>() : ""; }

bool IsTrue(const json& value) { return value.is_boolean() && value.get<bool>(); }

// "Unschedulable: 0/3 nodes are available".
std::string Joined(const std::string& reason, const std::string& message) {
  return absl::StrCat(reason, reason.empty() || message.empty() ? "" : ": ", message);
}

const json* Condition(const json& object, const char* type) {
  const json& conditions = At(object, {"status", "conditions"});
  if (!conditions.is_array()) return nullptr;
  for (const json& one : conditions) {
    if (Text(At(one, {"type"})) == type) return &one;
  }
  return nullptr;
}

std::optional<TaskId> TaskOf(const json& pod) {
  const std::optional<Role> role = RoleOfJob(Text(At(pod, {"metadata", "labels", kRoleLabel})));
  constexpr char kIndex[] = "batch.kubernetes.io/job-completion-index";
  std::string index = Text(At(pod, {"metadata", "annotations", kIndex}));
  if (index.empty()) index = Text(At(pod, {"metadata", "labels", kIndex}));
  TaskId task;
  if (!role || !absl::SimpleAtoi(index, &task.index)) return std::nullopt;
  task.role = *role;
  return task;
}

void ReadWaiting(const json& waiting, const std::string& image, PodView* view) {
  const std::string reason = Text(At(waiting, {"reason"}));
  const std::string message = Text(At(waiting, {"message"}));
  view->never_starts = reason == "InvalidImageName" || reason == "ErrImageNeverPull";
  view->cannot_pull = view->never_starts || reason == "ImagePullBackOff" || reason == "ErrImagePull" ||
                      reason == "RegistryUnavailable" || reason == "CreateContainerConfigError" ||
                      reason == "CreateContainerError";
  const bool image_trouble = view->cannot_pull && !absl::StartsWith(reason, "CreateContainer");
  if (reason == "ContainerCreating" || reason == "PodInitializing") return;
  view->reason = image_trouble ? absl::StrCat("image ", image, " cannot be pulled: ", Joined(reason, message),
                                              "; correct kubernetes.image, or name a Secret in kubernetes.pull_secrets")
                               : Joined(reason, message);
}

void ReadTerminated(const json& ended, PodView* view) {
  view->is_running = view->has_ended = true;
  const json& code = At(ended, {"exitCode"});
  view->exit_code = code.is_number_integer() ? code.get<int>() : 1;
  const std::string reason = Text(At(ended, {"reason"}));
  if (reason == "Completed" || reason == "Error") return;
  view->reason = Joined(reason, Text(At(ended, {"message"})));
}

PodView ReadPod(const json& pod) {
  PodView view;
  view.name = Text(At(pod, {"metadata", "name"}));
  view.node = Text(At(pod, {"spec", "nodeName"}));
  view.is_scheduled = !view.node.empty();
  view.is_deleting = !At(pod, {"metadata", "deletionTimestamp"}).is_null();
  const std::string phase = Text(At(pod, {"status", "phase"}));
  if (const json* scheduled = Condition(pod, "PodScheduled"); scheduled != nullptr && !view.is_scheduled) {
    view.reason = Joined(Text(At(*scheduled, {"reason"})), Text(At(*scheduled, {"message"})));
  }
  for (const char* statuses : {"initContainerStatuses", "containerStatuses"}) {
    const json& list = At(pod, {"status", statuses});
    if (!list.is_array()) continue;
    for (const json& one : list) {
      const bool ours = Text(At(one, {"name"})) == kPodContainer;
      const json& state = At(one, {"state"});
      if (const json& waiting = At(state, {"waiting"}); waiting.is_object()) {
        if (view.reason.empty()) ReadWaiting(waiting, Text(At(one, {"image"})), &view);
      } else if (ours && At(state, {"running"}).is_object()) {
        view.is_running = true;
      } else if (const json& ended = At(state, {"terminated"}); ours && ended.is_object()) {
        ReadTerminated(ended, &view);
      }
    }
  }
  // Evicted, DeadlineExceeded, NodeLost: the pod's own reason says more than that of its container.
  if (const std::string reason = Joined(Text(At(pod, {"status", "reason"})), Text(At(pod, {"status", "message"})));
      !reason.empty() && phase == "Failed") {
    view.reason = reason;
  }
  if ((phase == "Failed" || phase == "Succeeded") && !view.has_ended) {
    view.has_ended = true;
    view.exit_code = phase == "Failed" ? 1 : 0;
  }
  return view;
}

void ReadController(const json& object, const std::string& kind, PodsView* view) {
  view->has_controller = true;
  const std::string name = Text(At(object, {"metadata", "name"}));
  for (const char* type : {"Failed", "FailureTarget"}) {
    const json* condition = Condition(object, type);
    if (condition == nullptr || Text(At(*condition, {"status"})) != "True" || !view->failed.empty()) continue;
    view->failed = absl::StrCat(kind, " ", name, ": ",
                                Joined(Text(At(*condition, {"reason"})), Text(At(*condition, {"message"}))));
  }
  if (IsTrue(At(object, {"spec", "suspend"})) && view->waiting.empty()) {
    view->waiting = absl::StrCat(kind, " ", name, " is suspended: a queue of the cluster holds it");
  }
}

}  // namespace

absl::StatusOr<PodsView> ReadClusterView(absl::string_view text) {
  const json list = json::parse(ToStd(text), nullptr, /*allow_exceptions=*/false);
  if (!list.is_object() || !At(list, {"items"}).is_array()) {
    return absl::InvalidArgumentError("kubectl get: no list of objects came");
  }
  PodsView view;
  for (const json& item : list["items"]) {
    const std::string kind = Text(At(item, {"kind"}));
    if (kind == "JobSet" || kind == "Job") ReadController(item, kind, &view);
    if (kind != "Pod") continue;
    const std::optional<TaskId> task = TaskOf(item);
    if (!task) continue;
    PodView pod = ReadPod(item);
    const auto known = view.pods.find(*task);
    if (known == view.pods.end() || known->second.is_deleting) view.pods[*task] = std::move(pod);
  }
  return view;
}

std::string NewestWarning(absl::string_view text, absl::string_view object_name) {
  const json list = json::parse(ToStd(text), nullptr, /*allow_exceptions=*/false);
  std::string newest, when;
  const json& items = At(list, {"items"});
  if (!items.is_array()) return "";
  for (const json& event : items) {
    if (Text(At(event, {"type"})) != "Warning") continue;
    if (!absl::StartsWith(Text(At(event, {"involvedObject", "name"})), object_name)) continue;
    std::string time = Text(At(event, {"lastTimestamp"}));
    if (time.empty()) time = Text(At(event, {"eventTime"}));
    if (time < when) continue;
    when = time;
    newest = Joined(Text(At(event, {"reason"})), Text(At(event, {"message"})));
  }
  return newest;
}

}  // namespace basin
