// The job description: what a user asks for, checked, in the names of the Azure Estimator. Pure: no file but the text
// given is read here.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

// A flag for the program; an empty value makes a bare flag.
struct ScriptParam {
  std::string flag;
  std::string value;
};

struct JobInput {
  std::string name;
  std::string path;
};

// The optimizer rule by its flags' names; what is not given is the program's default.
struct RuleChoice {
  std::string name;
  std::optional<double> learning_rate, momentum, beta1, beta2, epsilon;
  bool nesterov = false;
};

// From `first` to `last`, both included.
struct PortRange {
  int first = 20000;
  int last = 29999;
};

struct Job {
  std::string experiment = "default";
  std::string program;                     // the built-in program of entry_script "basin:PROGRAM"
  std::vector<ScriptParam> script_params;  // in the file's order; a reference to an input is its path already
  std::vector<JobInput> inputs;
  std::vector<std::pair<std::string, std::string>> environment_variables;
  int parameter_server_count = 1;
  int worker_count = 1;
  int chief_count = 0;
  int evaluator_count = 0;
  std::optional<RuleChoice> rule;
  PortRange ports;
  int max_run_duration_seconds = 0;  // 0: no limit
  int cancel_grace_seconds = 5;
};

// What the command line adds, in the form of its flags: `--lr=.1`, `--verbose`; `name=path`.
struct JobOverrides {
  std::vector<std::string> params;
  std::vector<std::string> inputs;
  // Relative paths of the file's inputs are taken from here; empty leaves them as they are.
  std::string base_folder;
};

// Reads YAML or JSON. `file_name` is for messages only. INVALID_ARGUMENT with line, column and field for what is wrong;
// UNIMPLEMENTED naming the field for what this version cannot do. A field of a later version is accepted where it holds
// its default. Inputs of the overrides join before references to them are looked up.
absl::StatusOr<Job> ParseJob(absl::string_view text, const std::string& file_name, const JobOverrides& overrides = {});

// The job as it was understood, as JSON in the job file's own names: it parses to the same job.
std::string JobToJson(const Job& job);

}  // namespace basin
