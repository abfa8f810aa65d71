#include "estimator/kubernetes/pod_doctor.h"

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "estimator/kubernetes/kubectl.h"
#include "estimator/kubernetes/pod_plan.h"

namespace basin {
namespace {

struct Permission {
  const char* verb;
  const char* resource;
  const char* subresource = "";
};

std::vector<Permission> PermissionsNeeded(const KubernetesSettings& settings, bool jobset) {
  // kubectl looks at a pod before it reads its log, speaks with it or deletes it.
  std::vector<Permission> needed = {
      {"get", "pods"}, {"list", "pods"}, {"delete", "pods"}, {"get", "pods", "log"}, {"list", "events"}};
  std::vector<const char*> kinds = {"configmaps", "secrets", jobset ? "jobsets.jobset.x-k8s.io" : "jobs.batch"};
  if (!jobset) kinds.push_back("services");
  for (const char* kind : kinds) {
    // They are deleted by their label, and so listed first.
    for (const char* verb : {"create", "list", "delete"}) needed.push_back({verb, kind});
  }
  if (ParsePodPlace(settings.outputs, "exec").kind == "exec") needed.push_back({"create", "pods", "exec"});
  return needed;
}

class Examination {
 public:
  Examination(const std::string& target, const KubernetesSettings& settings) : target_(target), settings_(settings) {}

  std::vector<DoctorFinding> Make(bool image_needed) {
    if (image_needed || !settings_.image.empty()) {
      settings_.image.empty() ? Add("image", DoctorState::kProblem, "kubernetes.image is not given",
                                    "name an image that has Basin's programs")
                              : Add("image", DoctorState::kOk,
                                    settings_.image + " (whether the cluster can pull it shows when a pod starts)");
    }
    if (Kubectl() && Cluster()) {
      Namespace();
      Permissions(Controller());
    }
    return std::move(findings_);
  }

 private:
  void Add(const char* check, DoctorState state, const std::string& found, const std::string& fix = "") {
    findings_.push_back({target_, check, state, found, fix});
  }

  // A complaint of ours ends with what to do.
  void AddProblem(const char* check, const absl::Status& status) {
    const std::string text(status.message());
    const size_t cut = text.rfind("; ");
    cut == std::string::npos ? Add(check, DoctorState::kProblem, text, "see what it says")
                             : Add(check, DoctorState::kProblem, text.substr(0, cut), text.substr(cut + 2));
  }

  bool Kubectl() {
    const absl::StatusOr<std::string> version =
        RunKubectl(settings_, "tell its version", {"version", "--client", "-o", "json"});
    if (!version.ok()) {
      AddProblem("kubectl", version.status());
      return false;
    }
    const nlohmann::json json = nlohmann::json::parse(*version, nullptr, /*allow_exceptions=*/false);
    const auto found = json.find("clientVersion");
    const std::string git =
        json.is_object() && found != json.end() && found->is_object() ? found->value("gitVersion", "") : "";
    Add("kubectl", DoctorState::kOk, git.empty() ? "it is there" : git);
    return true;
  }

  bool Cluster() {
    const absl::StatusOr<std::string> answer =
        RunKubectl(settings_, "reach the cluster", {"get", "--raw=/version", "--request-timeout=15s"});
    if (!answer.ok()) {
      AddProblem("cluster", answer.status());
      return false;
    }
    const nlohmann::json json = nlohmann::json::parse(*answer, nullptr, /*allow_exceptions=*/false);
    Add("cluster", DoctorState::kOk,
        absl::StrCat("answers", json.is_object() ? ", version " + json.value("gitVersion", "?") : "",
                     settings_.context.empty() ? "" : ", context " + settings_.context));
    return true;
  }

  void Namespace() {
    std::string name = settings_.name_space;
    if (name.empty()) {
      const absl::StatusOr<std::string> view = RunKubectl(
          settings_, "tell the context's namespace", {"config", "view", "--minify", "-o", "jsonpath={..namespace}"});
      name = view.ok() ? std::string(absl::StripAsciiWhitespace(*view)) : "";
      if (name.empty()) name = "default";
    }
    const absl::StatusOr<std::string> found =
        RunKubectl(settings_, "look at the namespace", {"get", "namespace", name, "-o", "name"});
    if (found.ok()) return Add("namespace", DoctorState::kOk, name);
    // Many may use a namespace without being shown it.
    if (absl::IsPermissionDenied(found.status())) {
      return Add("namespace", DoctorState::kWarning, absl::StrCat(name, ": you may not look whether it is there"),
                 "check its spelling, where the permissions below are missing too");
    }
    if (absl::IsNotFound(found.status())) {
      return Add("namespace", DoctorState::kProblem, absl::StrCat("there is no namespace ", name),
                 "correct kubernetes.namespace, or have it made");
    }
    AddProblem("namespace", found.status());
  }

  bool Controller() {
    const absl::StatusOr<std::string> controller = AskController(settings_);
    if (!controller.ok()) {
      AddProblem("jobset", controller.status());
      return true;
    }
    const bool jobset = *controller == "jobset";
    if (!settings_.controller.empty()) {
      Add("jobset", DoctorState::kOk, absl::StrCat("not looked at: kubernetes.controller is ", *controller));
    } else if (jobset) {
      Add("jobset", DoctorState::kOk, "its CRD is there");
    } else {
      Add("jobset", DoctorState::kOk, "its CRD is not there: runs are a headless Service and a Job a role");
    }
    return jobset;
  }

  void Permissions(bool jobset) {
    std::vector<std::string> missing;
    size_t asked = 0;
    for (const Permission& one : PermissionsNeeded(settings_, jobset)) {
      std::vector<std::string> words = {"auth", "can-i", one.verb, one.resource};
      const std::string part = one.subresource;
      if (!part.empty()) words.push_back(absl::StrCat("--subresource=", part));
      const absl::StatusOr<std::string> answer = RunKubectl(settings_, "ask for a permission", words);
      ++asked;
      // "no" comes with exit code 1, and on standard output.
      const bool no = !answer.ok() && absl::StrContains(answer.status().message(), ": no");
      if (!answer.ok() && !no) return AddProblem("permissions", answer.status());
      if (no) missing.push_back(absl::StrCat(one.verb, " ", one.resource, part.empty() ? "" : "/", part));
    }
    if (missing.empty()) return Add("permissions", DoctorState::kOk, absl::StrCat("all ", asked, " that runs need"));
    const bool only_exec = missing.size() == 1 && missing[0] == "create pods/exec";
    if (only_exec) {
      return Add("permissions", DoctorState::kWarning, "not allowed: create pods/exec, by which outputs are fetched",
                 "ask for it, or write kubernetes: {outputs: \"claim:NAME\"}");
    }
    Add("permissions", DoctorState::kProblem, absl::StrCat("not allowed: ", absl::StrJoin(missing, ", ")),
        "ask for a Role with these (docs/kubernetes.md has one)");
  }

  const std::string target_;
  const KubernetesSettings& settings_;
  std::vector<DoctorFinding> findings_;
};

}  // namespace

std::vector<DoctorFinding> ExamineCluster(const std::string& target, const KubernetesSettings& settings,
                                          bool image_needed) {
  return Examination(target, settings).Make(image_needed);
}

}  // namespace basin
