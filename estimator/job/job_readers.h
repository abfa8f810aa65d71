// The parts of a job file, one reader each; ParseJob calls them in this order. Each leaves in *job what the file says
// and nothing where it says nothing. Errors carry file, line, column and field.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/format/yaml_fields.h"
#include "estimator/job/job.h"

namespace basin {

inline constexpr int kMostTasks = 1024;  // of a role, also machines
inline constexpr int kMostNameBytes = 256;

// Backend, counts, and parameter_server.
absl::Status ReadBackend(const YamlFields& fields, const std::string& file, Job* job);
// A built-in program trains with either backend, and its job file names both alike: with mpi its workers are the ranks.
// Behind ReadBackend and ReadProgram.
absl::Status TakeWorkersAsRanks(const YamlFields& fields, Job* job);
// experiment, entry_script, source_directory, resume_from.
absl::Status ReadProgram(const YamlFields& fields, const JobOverrides& overrides, Job* job);
absl::Status ReadInputs(const YamlFields& fields, const std::string& file, const JobOverrides& overrides, Job* job);
// After the inputs and the program.
absl::Status ReadScriptParams(const YamlFields& fields, const std::string& file, const JobOverrides& overrides,
                              Job* job);
// environment_variables, setup, secrets.
absl::Status ReadEnvironment(const YamlFields& fields, const std::string& file, Job* job);
// Packages, framework_version, use_docker, user_managed.
absl::Status ReadPackages(const YamlFields& fields, Job* job);
// custom_docker_image, shm_size; after the backend and the program.
absl::Status ReadContainer(const YamlFields& fields, Job* job);
absl::Status ReadTraining(const YamlFields& fields, const std::string& file, Job* job);
// network; after the counts.
absl::Status ReadNetwork(const YamlFields& fields, const std::string& file, Job* job);

// 1 to 64 letters, digits, and characters of `more`.
bool IsName(absl::string_view text, absl::string_view more);
// A list of texts, none empty; `what` is one of them, for the message: "a package". Leaves *out alone where not given.
absl::Status ReadTexts(const YamlFields& fields, absl::string_view name, absl::string_view what,
                       std::vector<std::string>* out);
// `path` from `folder` unless it is absolute or there is none; "." and ".." are resolved.
std::string PathFrom(const std::string& folder, const std::string& path);
// "~", "~/data", "~ann/data": whose home that is depends on the machine, so that it is refused, with NotAtHome's words.
bool BeginsAtHome(absl::string_view path);
std::string NotAtHome(absl::string_view path);
// A file that must lie in source_directory: relative, not above it. *path becomes its plain form.
absl::Status CheckBeneathSource(const YamlFields& fields, absl::string_view name, std::string* path);

// Whether sbatch takes it as the value of an option, in one word.
bool IsSbatchWord(absl::string_view text);

}  // namespace basin
