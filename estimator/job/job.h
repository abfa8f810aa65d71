// The job description: what a user asks for, checked, in the names of the Azure Estimator. Pure: no file but the text
// given is read here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/job/kubernetes_settings.h"
#include "estimator/job/roles.h"
#include "estimator/job/slurm_options.h"

namespace basin {

// A flag for the program; an empty value makes a bare flag.
struct ScriptParam {
  std::string flag;
  std::string value;
  bool operator==(const ScriptParam&) const = default;
};

struct JobInput {
  std::string name;
  std::string path;
  bool operator==(const JobInput&) const = default;
};

// The optimizer rule by its flags' names; what is not given is the program's default.
struct RuleChoice {
  std::string name;
  std::optional<double> learning_rate, momentum, beta1, beta2, epsilon;
  bool nesterov = false;
  bool operator==(const RuleChoice&) const = default;
};

// From `first` to `last`, both included.
struct PortRange {
  int first = 20000;
  int last = 29999;
  bool operator==(const PortRange&) const = default;
};

enum class Backend { kNone, kPs, kMpi };

// What the tasks need installed. The lists and pip_requirements_file may stand together; each of the other three stands
// alone (job_conflicts.h).
struct Packages {
  std::vector<std::string> pip;  // as pip takes them: "numpy==1.24"
  std::vector<std::string> conda;
  std::string pip_requirements_file;    // relative to source_directory
  std::string conda_dependencies_file;  // relative to source_directory
  std::string environment_definition;   // relative to source_directory: a conda environment file
  bool user_managed = false;            // the Python that is there, as it is
  bool empty() const {
    return pip.empty() && conda.empty() && pip_requirements_file.empty() && conda_dependencies_file.empty() &&
           environment_definition.empty();
  }
  bool operator==(const Packages&) const = default;
};

// Fields with their place in the file, for messages of what only the target can tell: not stored, and in comparisons
// of no weight.
struct FieldPlaces {
  std::map<std::string, std::string> of;
  // "job.yaml:3:1: roles: "; "roles: " for what no file says.
  std::string Lead(const std::string& field) const { return of.count(field) > 0 ? of.at(field) : field + ": "; }
  bool operator==(const FieldPlaces&) const { return true; }
};

struct Job {
  std::string experiment = "default";
  // What the training roles run: one of the two.
  std::string program;           // the built-in program of entry_script "basin:PROGRAM"
  std::string script;            // a file beneath source_directory: "train.py", "src/train.sh"
  std::string source_directory;  // absolute once overrides.base_folder is known; empty: a built-in program without one
  int64_t snapshot_limit_mb = 300;
  std::vector<ScriptParam> script_params;  // in the file's order; a reference to an input is its path already
  std::vector<JobInput> inputs;
  std::vector<std::pair<std::string, std::string>> environment_variables;
  std::vector<std::string> setup;    // shell lines before each task
  std::vector<std::string> secrets;  // names of the submitter's variables, whose values are stored nowhere
  std::string compute_target = "local";
  Backend backend = Backend::kNone;
  int node_count = 1;
  int process_count_per_node = 1;        // mpi
  int parameter_server_count = 1;        // 0 without a backend
  bool script_parameter_server = false;  // parameter_server: script; the ps roles run the script as well
  int worker_count = 1;
  int chief_count = 0;
  int evaluator_count = 0;
  bool use_gpu = false;
  int workers_per_gpu = 1;
  Packages packages;
  // What runs the script does so in a container of this image, by the name that `docker pull` takes, or a SIF file's
  // path (apptainer); empty: on the node itself.
  std::string image;
  int64_t shm_bytes = 0;          // of the container's own /dev/shm; 0: it is the node's
  std::string framework_version;  // TensorFlow's, which joins the packages where the environment is made
  std::optional<RuleChoice> rule;
  PortRange ports;
  Roles roles;          // resources, by role
  SlurmOptions slurm;   // wins over the target's, field by field
  int max_run_duration_seconds = 0;  // 0: no limit
  int cancel_grace_seconds = 5;
  std::string resume_from;            // a path on every node, handed over as --resume-from
  KubernetesSettings kubernetes;      // over those of a target of that kind
  FieldPlaces places;                 // of what kubernetes/manifests.h checks
  std::vector<std::string> warnings;  // deprecated spellings, one line each
  bool operator==(const Job&) const = default;
};

// What the command line may change, in the form of its flags: `--lr=.1`, `--verbose`; `name=path`.
struct JobOverrides {
  std::vector<std::string> params;
  std::vector<std::string> inputs;
  // Relative paths of the file (source_directory, inputs, resume_from) are taken from here; empty leaves them as they
  // are.
  std::string base_folder;
  std::string target;  // instead of compute_target; empty: the file's
};

// Reads YAML or JSON. `file_name` is for messages only. INVALID_ARGUMENT with line, column and field for what is wrong;
// UNIMPLEMENTED naming the field for what this version cannot do. A field of a later version is accepted where it is
// empty. Inputs of the overrides join before references to them are looked up. What only the disk or the target can
// tell is checked by job_checks.h.
absl::StatusOr<Job> ParseJob(absl::string_view text, const std::string& file_name, const JobOverrides& overrides = {});

// The job as it was understood, as JSON in the job file's own names: it parses to the same job (without its warnings,
// for it has no deprecated spelling any more).
std::string JobToJson(const Job& job);

// The programs that entry_script can name as basin:NAME.
const std::vector<std::string>& BuiltInPrograms();

}  // namespace basin
