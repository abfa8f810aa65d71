#include <algorithm>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"
#include "estimator/job/job_readers.h"

namespace basin {
namespace {

absl::Status ReadExperiment(const YamlFields& fields, Job* job) {
  BASIN_RETURN_IF_ERROR(fields.Read("experiment", &job->experiment));
  if (!IsName(job->experiment, "_.-") || job->experiment[0] == '.' || job->experiment[0] == '-') {
    return fields.ErrorAt("experiment", absl::StrCat("\"", job->experiment,
                                                     "\" cannot name a folder; use 1 to 64 of A-Z a-z 0-9 _ . - and "
                                                     "begin with a letter or digit"));
  }
  return absl::OkStatus();
}

absl::Status ReadEntryScript(const YamlFields& fields, Job* job) {
  std::string script;
  BASIN_RETURN_IF_ERROR(fields.Read("entry_script", &script));
  if (script.empty()) {
    return fields.ErrorAt("entry_script",
                          "not given; name what the workers run: a file of source_directory such as train.py, or a "
                          "built-in program such as basin:mlp");
  }
  if (!absl::StartsWith(script, "basin:")) {
    job->script = script;
    BASIN_RETURN_IF_ERROR(CheckBeneathSource(fields, "entry_script", &job->script));
    if (!absl::StartsWith(job->script, "basin:")) return absl::OkStatus();
    return fields.ErrorAt("entry_script", absl::StrCat("\"", script,
                                                       "\" is a file whose name reads as a built-in "
                                                       "program's; rename it"));
  }
  job->program = script.substr(6);
  const std::vector<std::string>& programs = BuiltInPrograms();
  if (std::find(programs.begin(), programs.end(), job->program) != programs.end()) return absl::OkStatus();
  const auto nearest = Nearest(job->program, programs);
  return fields.ErrorAt(
      "entry_script",
      absl::StrCat("\"", script, "\" is no built-in program; there are basin:", absl::StrJoin(programs, ", basin:"),
                   nearest ? absl::StrCat("; did you mean \"basin:", *nearest, "\"?") : ""));
}

}  // namespace

const std::vector<std::string>& BuiltInPrograms() {
  static const std::vector<std::string> programs = {"mlp", "softmax", "wide_deep"};
  return programs;
}

bool IsName(absl::string_view text, absl::string_view more) {
  if (text.empty() || text.size() > 64) return false;
  return std::all_of(text.begin(), text.end(),
                     [more](char c) { return absl::ascii_isalnum(c) || more.find(c) != absl::string_view::npos; });
}

std::string PathFrom(const std::string& folder, const std::string& path) {
  if (folder.empty() && !absl::StartsWith(path, "/")) return path;
  std::string plain = (std::filesystem::path(folder) / path).lexically_normal().string();
  if (plain.size() > 1 && plain.back() == '/') plain.pop_back();
  return plain;
}

bool BeginsAtHome(absl::string_view path) { return absl::StartsWith(path, "~"); }

std::string NotAtHome(absl::string_view path) {
  return absl::StrCat("\"", path,
                      "\": only a shell knows what ~ stands for; write the folder out, such as /home/ann/data, "
                      "or begin with ./ where the name has a ~");
}

absl::Status CheckBeneathSource(const YamlFields& fields, absl::string_view name, std::string* path) {
  const std::filesystem::path given(*path);
  const std::filesystem::path plain = given.lexically_normal();
  if (given.is_absolute() || *plain.begin() == ".." || !plain.has_filename() || plain == ".") {
    return fields.ErrorAt(name, absl::StrCat("\"", *path,
                                             "\" is no file beneath source_directory; write its path from there, such "
                                             "as train.py or src/train.py"));
  }
  *path = plain.string();
  return absl::OkStatus();
}

absl::Status ReadProgram(const YamlFields& fields, const JobOverrides& overrides, Job* job) {
  BASIN_RETURN_IF_ERROR(ReadExperiment(fields, job));
  BASIN_RETURN_IF_ERROR(ReadEntryScript(fields, job));
  std::string folder;
  BASIN_RETURN_IF_ERROR(fields.Read("source_directory", &folder));
  if (BeginsAtHome(folder)) return fields.ErrorAt("source_directory", NotAtHome(folder));
  // A script lies in the job file's folder by default; a built-in program needs none.
  if (!folder.empty() || !job->script.empty()) {
    job->source_directory = PathFrom(overrides.base_folder, folder.empty() ? std::string(".") : folder);
  }
  int limit = static_cast<int>(job->snapshot_limit_mb);
  BASIN_RETURN_IF_ERROR(fields.Read("snapshot_limit_mb", &limit, 1, 1 << 20));
  job->snapshot_limit_mb = limit;
  BASIN_RETURN_IF_ERROR(fields.Read("resume_from", &job->resume_from));
  if (job->resume_from == "latest") {
    return fields.Unimplemented("resume_from",
                                "this version keeps no checkpoints of its own, so that there is no latest one; give "
                                "the path of one that every node sees");
  }
  if (!job->resume_from.empty()) job->resume_from = PathFrom(overrides.base_folder, job->resume_from);
  return absl::OkStatus();
}

}  // namespace basin
