#include "estimator/job/job_fields.h"

#include "absl/strings/str_cat.h"
#include "common/format/yaml_fields.h"

namespace basin {
namespace {

constexpr const char* kFields[] = {
    "experiment",
    "source_directory",
    "compute_target",
    "entry_script",
    "script_params",
    "node_count",
    "process_count_per_node",
    "worker_count",
    "parameter_server_count",
    "parameter_server",
    "chief_count",
    "evaluator_count",
    "distributed_backend",
    "distributed_training",
    "use_gpu",
    "workers_per_gpu",
    "conda_packages",
    "pip_packages",
    "conda_dependencies_file",
    "pip_requirements_file",
    "environment_definition",
    "custom_docker_image",
    "shm_size",
    "framework_version",
    "use_docker",
    "user_managed",
    "environment_variables",
    "setup",
    "secrets",
    "inputs",
    "snapshot_limit_mb",
    "max_run_duration_seconds",
    "cancel_grace_seconds",
    "resume_from",
    "training",
    "network",
    "kubernetes",
    "roles",
    "slurm",
};

struct LaterField {
  const char* name;
  const char* next;  // what the user can do
};
constexpr LaterField kLaterFields[] = {
    {"image_registry_details",
     "the nodes pull with the logins that they have; log in there once (podman login REGISTRY), and remove it"},
    {"restart_policy", "a task that ends badly fails the run; remove it"},
    {"max_restarts", "a task that ends badly fails the run; remove it"},
    {"vm_size", "targets are machines that are there; name them in a targets file and the target in compute_target"},
    {"vm_priority", "targets are machines that are there; remove it"},
    {"source_directory_data_store", "the source directory goes to the nodes directly; remove it"},
};

struct OlderSpelling {
  const char* name;
  const char* older;
};
constexpr OlderSpelling kOlderSpellings[] = {
    {"custom_docker_image", "custom_docker_base_image"},
    {"conda_dependencies_file", "conda_dependencies_file_path"},
    {"pip_requirements_file", "pip_requirements_file_path"},
};

}  // namespace

const std::vector<std::string>& KnownJobFields() {
  static const std::vector<std::string> known = [] {
    std::vector<std::string> names;
    for (const char* name : kFields) names.emplace_back(name);
    for (const OlderSpelling& spelling : kOlderSpellings) names.emplace_back(spelling.older);
    for (const LaterField& field : kLaterFields) names.emplace_back(field.name);
    return names;
  }();
  return known;
}

std::vector<std::string> GivenOf(const YamlFields& fields, const std::vector<std::string>& names) {
  std::vector<std::string> given;
  for (const std::string& name : names) {
    if (fields.Has(name)) given.push_back(name);
  }
  return given;
}

absl::Status RefuseLaterFields(const YamlFields& fields) {
  for (const LaterField& field : kLaterFields) {
    if (!fields.Has(field.name)) continue;
    return fields.Unimplemented(field.name, absl::StrCat("this version cannot do that (found ",
                                                         Describe(fields.Value(field.name)), "); ", field.next));
  }
  return absl::OkStatus();
}

absl::Status FindSpelling(const YamlFields& fields, const std::string& name, std::string* found,
                          std::vector<std::string>* warnings) {
  *found = name;
  for (const OlderSpelling& spelling : kOlderSpellings) {
    if (name != spelling.name || !fields.Has(spelling.older)) continue;
    if (fields.Has(name)) {
      return fields.ErrorAt(spelling.older, absl::StrCat("is the older spelling of ", name,
                                                         ", which is given too; remove ", spelling.older));
    }
    *found = spelling.older;
    // The place, as an error would have it.
    warnings->push_back(
        std::string(fields.ErrorAt(spelling.older, absl::StrCat("a deprecated spelling; write ", name)).message()));
  }
  return absl::OkStatus();
}

}  // namespace basin
