#include "estimator/job/job_checks.h"

#include <unistd.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

absl::Status CheckFile(absl::string_view field, const std::string& path, absl::string_view next) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::regular) return absl::OkStatus();
  if (status.type() == std::filesystem::file_type::not_found) {
    return absl::NotFoundError(absl::StrCat(field, ": ", path, " does not exist; ", next));
  }
  if (error) return absl::NotFoundError(absl::StrCat(field, ": ", path, ": ", error.message()));
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", path, " is no file; ", next));
}

absl::Status CheckSourceDirectory(const std::string& folder) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(folder, error);
  if (status.type() == std::filesystem::file_type::directory) return absl::OkStatus();
  const char* next = "name the folder of the entry script, from the job file's own folder";
  if (status.type() == std::filesystem::file_type::not_found) {
    return absl::NotFoundError(absl::StrCat("source_directory: ", folder, " does not exist; ", next));
  }
  if (error) return absl::NotFoundError(absl::StrCat("source_directory: ", folder, ": ", error.message()));
  return absl::InvalidArgumentError(absl::StrCat("source_directory: ", folder, " is no folder; ", next));
}

}  // namespace

absl::Status CheckJobFiles(const Job& job) {
  if (!job.source_directory.empty()) BASIN_RETURN_IF_ERROR(CheckSourceDirectory(job.source_directory));
  const std::string base = absl::StrCat(job.source_directory, "/");
  if (!job.script.empty()) {
    const std::string path = absl::StrCat(base, job.script);
    BASIN_RETURN_IF_ERROR(CheckFile("entry_script", path, "correct entry_script, or source_directory"));
    const bool interpreted = absl::EndsWith(path, ".py") || absl::EndsWith(path, ".sh");
    if (!interpreted && access(path.c_str(), X_OK) != 0) {
      return absl::InvalidArgumentError(absl::StrCat("entry_script: ", path,
                                                     " cannot be run: it is not executable, and its name ends neither "
                                                     "in .py nor in .sh; chmod +x it (a text needs "
                                                     "#!INTERPRETER in its first line), or rename it"));
    }
  }
  const std::pair<const char*, const std::string&> files[] = {
      {"conda_dependencies_file", job.packages.conda_dependencies_file},
      {"pip_requirements_file", job.packages.pip_requirements_file},
      {"environment_definition", job.packages.environment_definition}};
  for (const auto& [name, file] : files) {
    if (file.empty()) continue;
    BASIN_RETURN_IF_ERROR(CheckFile(name, absl::StrCat(base, file), "its path is taken from source_directory"));
  }
  return absl::OkStatus();
}

absl::Status CheckRolesOnTarget(const Job& job, bool is_slurm) {
  if (is_slurm) return absl::OkStatus();
  for (const auto& [role, resources] : job.roles) {
    const char* field = resources.cpus > 0             ? "cpus"
                        : resources.memory_bytes > 0   ? "memory"
                        : !resources.partition.empty() ? "partition"
                                                       : nullptr;
    if (field == nullptr) continue;
    const bool pods_too = resources.cpus > 0 || resources.memory_bytes > 0;
    return absl::InvalidArgumentError(absl::StrCat(
        "roles: ", Name(role), ".", field, pods_too ? ": only Slurm and Kubernetes grant it" : ": only Slurm grants it",
        ", and the target ", job.compute_target, pods_too ? " is of neither kind" : " is none of kind: slurm",
        "; remove it, or take another compute_target"));
  }
  return absl::OkStatus();
}

absl::Status CheckTarget(const Job& job, int machines) {
  if (job.node_count <= machines) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "node_count: ", job.node_count, " nodes are asked for, but the target ", job.compute_target, " has ",
      machines == 1 ? "one machine" : absl::StrCat(machines, " machines"), "; set node_count: ", machines,
      job.compute_target == "local" ? ", or compute_target to a target of several machines (--hosts h0,h1 makes one)"
                                    : ", or add machines to the target"));
}

absl::Status UnknownOverride(absl::string_view word, absl::string_view nearest) {
  return absl::InvalidArgumentError(absl::StrCat(
      "submit: unknown word ", word, nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?"),
      "; at submit, only script_params (--param --flag=value), inputs (--input name=path) and the target (--target "
      "NAME) can be changed, everything else in the job file; basin submit --help lists the flags"));
}

}  // namespace basin
