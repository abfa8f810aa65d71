#include "estimator/job_support.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "common/format/yaml_fields.h"

namespace basin {
namespace {

struct LaterField {
  const char* name;
  const char* accepted;  // the one value that asks for nothing new; "" where only an empty one does
  const char* next;      // what the user can do
};

constexpr LaterField kLaterFields[] = {
    {"source_directory", ".", "built-in programs need no source directory"},
    {"compute_target", "local", "use compute_target: local"},
    {"node_count", "1", "use node_count: 1 (the local target is one machine)"},
    {"process_count_per_node", "1", "it belongs to the mpi backend; use worker_count"},
    {"use_gpu", "false", "use use_gpu: false"},
    {"conda_packages", "", "the programs of this version are built in and need no packages"},
    {"pip_packages", "", "the programs of this version are built in and need no packages"},
    {"conda_dependencies_file", "", "the programs of this version are built in and need no packages"},
    {"conda_dependencies_file_path", "", "the programs of this version are built in and need no packages"},
    {"pip_requirements_file", "", "the programs of this version are built in and need no packages"},
    {"pip_requirements_file_path", "", "the programs of this version are built in and need no packages"},
    {"environment_definition", "", "tasks run in the environment of basin submit"},
    {"custom_docker_image", "", "tasks run without a container"},
    {"shm_size", "", "tasks run without a container"},
    {"framework_version", "", "no framework is needed by the built-in programs"},
    {"resume_from", "", "start from a model with script_params {--init-from: FILE}"},
    {"setup", "", "run the commands before basin submit"},
    {"secrets", "", "the programs of this version need none"},
    {"roles", "", "all tasks share this machine"},
};

constexpr const char* kSupportedFields[] = {
    "experiment",
    "entry_script",
    "script_params",
    "inputs",
    "environment_variables",
    "worker_count",
    "parameter_server_count",
    "distributed_backend",
    "distributed_training",
    "chief_count",
    "evaluator_count",
    "training",
    "network",
    "max_run_duration_seconds",
    "cancel_grace_seconds",
    "use_docker",
    "user_managed",
};

bool IsEmpty(const YAML::Node& value) {
  return value.IsNull() || (value.IsScalar() && value.Scalar().empty()) ||
         ((value.IsSequence() || value.IsMap()) && value.size() == 0);
}

bool Given(const YamlFields& fields, absl::string_view name) {
  return fields.Has(name) && !IsEmpty(fields.Value(name));
}

bool Is(const YamlFields& fields, absl::string_view name, absl::string_view text) {
  return fields.Has(name) && fields.Value(name).IsScalar() && fields.Value(name).Scalar() == ToStd(text);
}

std::vector<std::string> GivenOf(const YamlFields& fields, std::vector<std::string> names) {
  std::vector<std::string> given;
  for (std::string& name : names) {
    if (Given(fields, name)) given.push_back(std::move(name));
  }
  return given;
}

}  // namespace

std::vector<std::string> KnownJobFields() {
  std::vector<std::string> names;
  for (const char* name : kSupportedFields) names.push_back(name);
  for (const LaterField& field : kLaterFields) names.push_back(field.name);
  return names;
}

absl::Status CheckConflicts(const YamlFields& fields) {
  const std::vector<std::string> lists = GivenOf(fields, {"conda_packages", "pip_packages"});
  const std::vector<std::string> files = GivenOf(fields, {"conda_dependencies_file", "conda_dependencies_file_path",
                                                          "pip_requirements_file", "pip_requirements_file_path"});
  std::vector<std::string> packages = lists;
  packages.insert(packages.end(), files.begin(), files.end());
  if (Given(fields, "environment_definition")) {
    std::vector<std::string> both = packages;
    if (Given(fields, "custom_docker_image")) both.push_back("custom_docker_image");
    if (!both.empty()) {
      return fields.ErrorAt("environment_definition", absl::StrCat("conflicts with ", absl::StrJoin(both, ", "),
                                                                   "; keep the definition or the others"));
    }
  }
  if (!files.empty() && !lists.empty()) {
    return fields.ErrorAt(files[0], absl::StrCat("conflicts with ", absl::StrJoin(lists, ", "),
                                                 "; put all packages into the file or all into the lists"));
  }
  if (Given(fields, "custom_docker_image") && Is(fields, "use_docker", "false")) {
    return fields.ErrorAt("custom_docker_image", "conflicts with use_docker: false; remove one of the two");
  }
  if (Is(fields, "user_managed", "true") && !packages.empty()) {
    return fields.ErrorAt("user_managed", absl::StrCat("true conflicts with ", absl::StrJoin(packages, ", "),
                                                       ": a user-managed environment is used as it is"));
  }
  return absl::OkStatus();
}

absl::Status RefuseLaterFields(const YamlFields& fields) {
  for (const LaterField& field : kLaterFields) {
    if (!Given(fields, field.name)) continue;
    if (*field.accepted != '\0' && Is(fields, field.name, field.accepted)) continue;
    return fields.Unimplemented(field.name, absl::StrCat("this version cannot do that (found ",
                                                         Describe(fields.Value(field.name)), "); ", field.next));
  }
  return absl::OkStatus();
}

}  // namespace basin
