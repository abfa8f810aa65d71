#include "estimator/job/job_conflicts.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/base/status_macros.h"
#include "common/format/yaml_fields.h"
#include "estimator/job/job_fields.h"
#include "estimator/job/job_readers.h"

namespace basin {
namespace {

bool Is(const YamlFields& fields, absl::string_view name, absl::string_view text) {
  return fields.Has(name) && fields.Value(name).IsScalar() &&
         absl::AsciiStrToLower(fields.Value(name).Scalar()) == text;
}

std::string List(const std::vector<std::string>& names) { return absl::StrJoin(names, ", "); }

// Counts that only a backend gives a meaning.
absl::Status CheckCountsWithoutBackend(const YamlFields& fields, const Job& job) {
  const auto needs = [&fields](absl::string_view name, int count, absl::string_view change) {
    return fields.ErrorAt(
        name, absl::StrCat("found ", count, ", but no backend is given, and without one the job is one process; ",
                           change, ", or remove ", name));
  };
  if (job.node_count > 1) {
    return needs("node_count", job.node_count,
                 absl::StrCat("set distributed_backend: ps and worker_count: ", job.node_count));
  }
  if (job.process_count_per_node > 1) {
    return needs(
        "process_count_per_node", job.process_count_per_node,
        absl::StrCat("set distributed_backend: mpi (or ps with worker_count: ", job.process_count_per_node, ")"));
  }
  if (job.worker_count > 1) return needs("worker_count", job.worker_count, "set distributed_backend: ps");
  if (fields.Has("parameter_server_count") && job.parameter_server_count > 1) {
    return needs("parameter_server_count", job.parameter_server_count, "set distributed_backend: ps");
  }
  if (job.chief_count > 0) return needs("chief_count", job.chief_count, "set distributed_backend: ps");
  if (job.evaluator_count > 0) return needs("evaluator_count", job.evaluator_count, "set distributed_backend: ps");
  return absl::OkStatus();
}

// Of the mpi backend.
absl::Status CheckRanks(const YamlFields& fields, const Job& job) {
  if (job.script.empty() && job.program == "wide_deep") {
    return fields.Unimplemented("entry_script",
                                "basin:wide_deep has its weights and embeddings in tables, whose rows come into being "
                                "on parameter servers; set distributed_backend: ps, or name another program");
  }
  // With what starts them, mpirun on the first node and a daemon on each other one.
  const int64_t tasks = int64_t{job.node_count} * job.process_count_per_node + job.node_count;
  if (tasks > kMostTasks) {
    return fields.ErrorAt(fields.Has("process_count_per_node") ? "process_count_per_node" : "node_count",
                          absl::StrCat(job.node_count, " nodes x ", job.process_count_per_node,
                                       " processes are too many; a run has at most ", kMostTasks,
                                       " tasks, what starts them included (one a node)"));
  }
  return absl::OkStatus();
}

absl::Status CheckCounts(const YamlFields& fields, const Job& job) {
  if (job.backend == Backend::kNone) return CheckCountsWithoutBackend(fields, job);
  if (job.backend == Backend::kPs) {
    if (job.process_count_per_node > 1) {
      return fields.ErrorAt("process_count_per_node",
                            absl::StrCat("found ", job.process_count_per_node,
                                         ", which conflicts with the ps backend; set worker_count, or "
                                         "distributed_backend: mpi"));
    }
    if (job.parameter_server_count == 0 && job.script.empty()) {
      return fields.ErrorAt("parameter_server_count",
                            "found 0, but the built-in programs need at least one with distributed_backend: ps; set 1, "
                            "or remove distributed_backend and train in one process");
    }
    return absl::OkStatus();
  }
  // Of a built-in program the workers are the ranks, and counts of ps and evaluator stay, for the other backend: the
  // averaging of gradients takes the place of the one, and rank 0 that of the other.
  const bool built_in = job.script.empty();
  const int ranks = job.node_count * job.process_count_per_node;
  if (built_in && job.worker_count > 1 && job.worker_count != ranks) {
    return fields.ErrorAt("worker_count",
                          absl::StrCat(job.worker_count, ", but node_count and process_count_per_node make ", ranks,
                                       " ranks; with mpi the workers are the ranks: remove one of the two"));
  }
  const std::pair<const char*, bool> of_ps[] = {{"worker_count", !built_in && job.worker_count > 1},
                                                {"parameter_server_count", !built_in && job.parameter_server_count > 1},
                                                {"chief_count", job.chief_count > 0},
                                                {"evaluator_count", !built_in && job.evaluator_count > 0}};
  for (const auto& [name, asked] : of_ps) {
    if (!asked) continue;
    return fields.ErrorAt(name, absl::StrCat("conflicts with the mpi backend, which has node_count and "
                                             "process_count_per_node; remove ",
                                             name, ", or set distributed_backend: ps"));
  }
  return CheckRanks(fields, job);
}

absl::Status CheckRoles(const YamlFields& fields, const Job& job) {
  if (job.script_parameter_server) {
    if (job.backend != Backend::kPs) {
      return fields.ErrorAt("parameter_server", "script needs distributed_backend: ps; set it, or remove this");
    }
    if (job.script.empty()) {
      return fields.ErrorAt("parameter_server",
                            "script needs an entry_script of your own, and basin: programs have none; remove one of "
                            "the two");
    }
  }
  if (!job.script.empty() && job.rule) {
    return fields.ErrorAt("training",
                          "rule is for entry_script: basin:PROGRAM; a script of your own sets its rule itself: hand it "
                          "over in script_params");
  }
  if (job.resume_from.empty()) return absl::OkStatus();
  if (job.script.empty()) {
    return fields.Unimplemented("resume_from",
                                absl::StrCat("basin:", job.program,
                                             " resumes from no checkpoint in this version; start it from a model with "
                                             "script_params: {--init-from: FILE}"));
  }
  for (const ScriptParam& param : job.script_params) {
    if (param.flag == "--resume-from") {
      return fields.ErrorAt("resume_from",
                            "conflicts with --resume-from in script_params, which it sets; remove one of the two");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckGpus(const YamlFields& fields, const Job& job) {
  if (job.workers_per_gpu > 1 && job.backend == Backend::kMpi) {
    return fields.ErrorAt("workers_per_gpu",
                          "conflicts with the mpi backend, where every process sees all GPUs of its node and takes its "
                          "own by LOCAL_RANK; remove it");
  }
  if (job.workers_per_gpu > 1 && !job.use_gpu) {
    return fields.ErrorAt("workers_per_gpu", absl::StrCat("found ", job.workers_per_gpu,
                                                          ", but use_gpu is false; set use_gpu: true, or remove it"));
  }
  const bool chosen =
      std::any_of(job.environment_variables.begin(), job.environment_variables.end(),
                  [](const std::pair<std::string, std::string>& one) { return one.first == "CUDA_VISIBLE_DEVICES"; });
  if (job.use_gpu && chosen) {
    return fields.ErrorAt("use_gpu",
                          "true gives each worker its own CUDA_VISIBLE_DEVICES, which conflicts with the one in "
                          "environment_variables; remove one of the two");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPackageConflicts(const YamlFields& fields) {
  const std::vector<std::string> conda_files =
      GivenOf(fields, {"conda_dependencies_file", "conda_dependencies_file_path"});
  const std::vector<std::string> others = GivenOf(fields, {"conda_packages", "pip_packages", "pip_requirements_file",
                                                           "pip_requirements_file_path", "framework_version"});
  std::vector<std::string> packages = conda_files;
  packages.insert(packages.end(), others.begin(), others.end());
  if (fields.Has("environment_definition")) {
    std::vector<std::string> both = packages;
    for (std::string& name : GivenOf(fields, {"custom_docker_image", "custom_docker_base_image"})) {
      both.push_back(std::move(name));
    }
    if (Is(fields, "user_managed", "true")) both.emplace_back("user_managed");
    if (!both.empty()) {
      return fields.ErrorAt(
          "environment_definition",
          absl::StrCat("conflicts with ", List(both), "; keep the definition or ", both.size() > 1 ? "those" : "that"));
    }
  }
  if (!conda_files.empty() && !others.empty()) {
    return fields.ErrorAt(conda_files[0],
                          absl::StrCat("conflicts with ", List(others), "; put all packages into the file, or none"));
  }
  for (const char* image : {"custom_docker_image", "custom_docker_base_image"}) {
    if (fields.Has(image) && Is(fields, "use_docker", "false")) {
      return fields.ErrorAt(image, "conflicts with use_docker: false; remove one of the two");
    }
  }
  if (Is(fields, "user_managed", "true") && !packages.empty()) {
    return fields.ErrorAt("user_managed", absl::StrCat("true conflicts with ", List(packages),
                                                       ": a user-managed Python is used as it is; install them there "
                                                       "and remove the fields, or set user_managed: false"));
  }
  return absl::OkStatus();
}

absl::Status CheckConflicts(const YamlFields& fields, const Job& job) {
  BASIN_RETURN_IF_ERROR(CheckCounts(fields, job));
  BASIN_RETURN_IF_ERROR(CheckRoles(fields, job));
  BASIN_RETURN_IF_ERROR(CheckGpus(fields, job));
  for (const std::string& secret : job.secrets) {
    for (const auto& [name, value] : job.environment_variables) {
      if (name != secret) continue;
      return fields.ErrorAt("secrets", absl::StrCat(secret,
                                                    " is also in environment_variables, where its value would be "
                                                    "stored; remove it there"));
    }
  }
  return absl::OkStatus();
}

}  // namespace basin
