#include "estimator/job/job.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "common/format/yaml_fields.h"
#include "estimator/job/job_conflicts.h"
#include "estimator/job/job_fields.h"
#include "estimator/job/job_readers.h"
#include "estimator/job/role_needs.h"
#include "estimator/job/one_document.h"
#include "estimator/job/plan.h"

namespace basin {
namespace {

constexpr size_t kMaxJobFileBytes = size_t{1} << 20;

// What becomes an argument, a variable or a path cannot hold a zero byte, which a YAML escape can write; and of the
// escapes \N and \_ yaml-cpp makes bytes that are no UTF-8, which the job as JSON could not repeat.
absl::Status CheckTexts(const Job& job, const std::string& file) {
  const auto check = [&file](absl::string_view field, const std::string& text) {
    if (!IsUtf8(text)) {
      return absl::InvalidArgumentError(absl::StrCat(
          file, ": ", field, ": a text that is no UTF-8; write the character itself in place of \\N, \\_ or \\x"));
    }
    if (text.find('\0') == std::string::npos) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", field, ": a text with a zero byte; remove the \\0"));
  };
  for (const ScriptParam& param : job.script_params) {
    BASIN_RETURN_IF_ERROR(check("script_params", param.flag));
    BASIN_RETURN_IF_ERROR(check("script_params", param.value));
  }
  for (const JobInput& input : job.inputs) BASIN_RETURN_IF_ERROR(check("inputs", input.path));
  for (const auto& [name, value] : job.environment_variables) {
    BASIN_RETURN_IF_ERROR(check("environment_variables", name));
    BASIN_RETURN_IF_ERROR(check("environment_variables", value));
  }
  for (const std::string& line : job.setup) BASIN_RETURN_IF_ERROR(check("setup", line));
  for (const std::string& package : job.packages.pip) BASIN_RETURN_IF_ERROR(check("pip_packages", package));
  for (const std::string& package : job.packages.conda) BASIN_RETURN_IF_ERROR(check("conda_packages", package));
  BASIN_RETURN_IF_ERROR(check("pip_requirements_file", job.packages.pip_requirements_file));
  BASIN_RETURN_IF_ERROR(check("conda_dependencies_file", job.packages.conda_dependencies_file));
  BASIN_RETURN_IF_ERROR(check("environment_definition", job.packages.environment_definition));
  BASIN_RETURN_IF_ERROR(check("entry_script", job.script));
  BASIN_RETURN_IF_ERROR(check("source_directory", job.source_directory));
  return check("resume_from", job.resume_from);
}

absl::Status ReadTarget(const YamlFields& fields, const JobOverrides& overrides, Job* job) {
  BASIN_RETURN_IF_ERROR(fields.Read("compute_target", &job->compute_target));
  if (!overrides.target.empty()) job->compute_target = overrides.target;
  if (IsName(job->compute_target, "_.-")) return absl::OkStatus();
  return fields.ErrorAt("compute_target", absl::StrCat("\"", job->compute_target,
                                                       "\" is no target's name; write local, or a name of the targets "
                                                       "file (basin targets lists them)"));
}

absl::StatusOr<Job> Read(const YAML::Node& root, const std::string& file, const JobOverrides& overrides) {
  BASIN_ASSIGN_OR_RETURN(const YamlFields fields, YamlFields::From(root, file, "", KnownJobFields()));
  BASIN_RETURN_IF_ERROR(CheckPackageConflicts(fields));
  Job job;
  BASIN_RETURN_IF_ERROR(ReadBackend(fields, file, &job));
  BASIN_RETURN_IF_ERROR(ReadProgram(fields, overrides, &job));
  BASIN_RETURN_IF_ERROR(TakeWorkersAsRanks(fields, &job));
  BASIN_RETURN_IF_ERROR(ReadTarget(fields, overrides, &job));
  BASIN_RETURN_IF_ERROR(ReadInputs(fields, file, overrides, &job));
  BASIN_RETURN_IF_ERROR(ReadScriptParams(fields, file, overrides, &job));
  BASIN_RETURN_IF_ERROR(ReadEnvironment(fields, file, &job));
  BASIN_RETURN_IF_ERROR(ReadPackages(fields, &job));
  BASIN_RETURN_IF_ERROR(ReadContainer(fields, &job));
  BASIN_RETURN_IF_ERROR(fields.Read("use_gpu", &job.use_gpu));
  BASIN_RETURN_IF_ERROR(fields.Read("workers_per_gpu", &job.workers_per_gpu, 1, kMostTasks));
  BASIN_RETURN_IF_ERROR(ReadTraining(fields, file, &job));
  BASIN_RETURN_IF_ERROR(ReadNetwork(fields, file, &job));
  if (fields.Has("kubernetes")) {
    BASIN_RETURN_IF_ERROR(ReadKubernetesSettings(fields.Value("kubernetes"), file, "kubernetes", &job.kubernetes));
  }
  for (const char* name : {"distributed_backend", "workers_per_gpu", "roles"}) {
    if (fields.Has(name)) job.places.of[name] = std::string(fields.ErrorAt(name, "").message());
  }
  // Where it would stand: in the group, or else in the file.
  const YAML::Node group = fields.Has("kubernetes") ? fields.Value("kubernetes") : root;
  job.places.of["kubernetes.image"] = absl::StrCat(MarkText(file, group.Mark()), "kubernetes.image: ");
  BASIN_RETURN_IF_ERROR(ReadRoles(fields, file, &job.roles));
  BASIN_RETURN_IF_ERROR(ReadSlurmOptions(fields, file, &job.slurm));
  BASIN_RETURN_IF_ERROR(fields.Read("max_run_duration_seconds", &job.max_run_duration_seconds, 1, 1 << 30));
  BASIN_RETURN_IF_ERROR(fields.Read("cancel_grace_seconds", &job.cancel_grace_seconds, 0, 3600));
  BASIN_RETURN_IF_ERROR(CheckConflicts(fields, job));
  BASIN_RETURN_IF_ERROR(RefuseLaterFields(fields));
  BASIN_RETURN_IF_ERROR(CheckTexts(job, file));
  if (job.backend != Backend::kPs) job.parameter_server_count = 0;
  BASIN_RETURN_IF_ERROR(CheckRoleResources(fields, job));
  const int there = job.ports.last - job.ports.first + 1;
  for (const int needed : PortsNeeded(job, job.node_count)) {
    if (!fields.Has("network") || needed <= there) continue;
    return fields.ErrorAt(
        "network", absl::StrCat(needed, " tasks of one node need a port each, but ports has ", there, "; widen it"));
  }
  return job;
}

}  // namespace

absl::StatusOr<Job> ParseJob(absl::string_view text, const std::string& file_name, const JobOverrides& overrides) {
  if (text.size() > kMaxJobFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file_name, ": ", text.size(), " bytes is too long for a job file (1 MiB)"));
  }
  if (text.find('\0') != absl::string_view::npos || !IsUtf8(text)) {
    return absl::InvalidArgumentError(absl::StrCat(file_name, ": not a text in UTF-8; save it as one"));
  }
  for (const std::vector<std::string>* words : {&overrides.params, &overrides.inputs}) {
    for (const std::string& word : *words) {
      if (IsUtf8(word)) continue;
      return absl::InvalidArgumentError(absl::StrCat("--", words == &overrides.params ? "param" : "input", " \"",
                                                     absl::CHexEscape(word),
                                                     "\": not in UTF-8, as names, values and paths of a job must be"));
    }
  }
  BASIN_ASSIGN_OR_RETURN(const YAML::Node root, LoadOneDocument(text, file_name));
  try {
    return Read(root, file_name, overrides);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(MarkText(file_name, error.mark), "not what a job file holds: ", error.msg));
  }
}

}  // namespace basin
