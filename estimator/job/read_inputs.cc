#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"
#include "estimator/job/job_fields.h"
#include "estimator/job/job_readers.h"

namespace basin {
namespace {

// Of basin-worker: what makes the run a run.
constexpr const char* kReservedFlags[] = {"--program", "--token-file", "--run-id", "--outputs"};

bool IsInputName(absl::string_view name) { return IsName(name, "_") && !absl::ascii_isdigit(name[0]); }

absl::Status CheckFlag(absl::string_view place, absl::string_view flag, bool built_in, absl::string_view how) {
  if (flag.size() < 2 || flag[0] != '-' || absl::StrContains(flag, "=")) {
    return absl::InvalidArgumentError(absl::StrCat(place, "\"", flag, "\" is no flag; write ", how));
  }
  if (flag.size() > kMostNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, "a flag of ", flag.size(), " bytes is too long (", kMostNameBytes, ")"));
  }
  if (built_in && std::any_of(std::begin(kReservedFlags), std::end(kReservedFlags),
                              [flag](const char* reserved) { return flag == reserved; })) {
    return absl::InvalidArgumentError(absl::StrCat(place, flag, " is set by the launcher; remove it"));
  }
  return absl::OkStatus();
}

absl::Status ReadInput(const YamlFields& item, const JobOverrides& overrides, Job* job) {
  JobInput input;
  BASIN_RETURN_IF_ERROR(item.Read("name", &input.name));
  BASIN_RETURN_IF_ERROR(item.Read("path", &input.path));
  if (!IsInputName(input.name)) {
    return item.ErrorAt("name", absl::StrCat("\"", input.name,
                                             "\" is no name; use letters, digits and _ (it becomes a part of a "
                                             "variable's name)"));
  }
  if (input.path.empty()) return item.ErrorAt("path", "not given; write where the data lies");
  if (BeginsAtHome(input.path)) return item.ErrorAt("path", NotAtHome(input.path));
  input.path = PathFrom(overrides.base_folder, input.path);
  for (const JobInput& other : job->inputs) {
    if (absl::EqualsIgnoreCase(other.name, input.name)) {
      return item.ErrorAt("name",
                          absl::StrCat("\"", input.name, "\" is there twice (letter case does not count); rename one"));
    }
  }
  job->inputs.push_back(std::move(input));
  return absl::OkStatus();
}

// The path of the input that `{input: NAME}` names.
absl::Status ReadReference(const YamlFields& reference, const Job& job, std::string* path) {
  std::string name;
  BASIN_RETURN_IF_ERROR(reference.Read("input", &name));
  std::vector<std::string> names;
  for (const JobInput& input : job.inputs) {
    names.push_back(input.name);
    if (input.name == name) *path = input.path;
  }
  if (!path->empty()) return absl::OkStatus();
  return reference.ErrorAt(
      "input",
      absl::StrCat("no input is named \"", name, "\"; inputs: ", names.empty() ? "none" : absl::StrJoin(names, ", "),
                   "; correct the name, or add {name: ", name.empty() ? "NAME" : name, ", path: PATH} to inputs"));
}

// Without this a misspelt name would leave the file's own path in place, unseen.
absl::Status UnknownInput(const Job& job, const std::string& name, const std::string& text, const std::string& file) {
  std::vector<std::string> names;
  for (const JobInput& input : job.inputs) names.push_back(input.name);
  const std::optional<std::string> nearest = Nearest(name, names);
  return absl::InvalidArgumentError(absl::StrCat("--input ", text, ": no input is named \"", name, "\"",
                                                 nearest ? absl::StrCat("; did you mean \"", *nearest, "\"?") : ";",
                                                 " inputs: ", names.empty() ? "none" : absl::StrJoin(names, ", "),
                                                 "; correct the name, or add {name: ", name,
                                                 ", path: PATH} to inputs in ", file));
}

}  // namespace

absl::Status ReadInputs(const YamlFields& fields, const std::string& file, const JobOverrides& overrides, Job* job) {
  if (fields.Has("inputs")) {
    const YAML::Node list = fields.Value("inputs");
    if (!list.IsSequence()) {
      return fields.ErrorAt("inputs",
                            absl::StrCat("expected a list of {name: NAME, path: PATH}, found ", Describe(list)));
    }
    for (size_t i = 0; i < list.size(); ++i) {
      BASIN_ASSIGN_OR_RETURN(const YamlFields item,
                             YamlFields::From(list[i], file, absl::StrCat("inputs[", i, "]"), {"name", "path"}));
      BASIN_RETURN_IF_ERROR(ReadInput(item, overrides, job));
    }
  }
  for (const std::string& text : overrides.inputs) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
    if (parts.second.empty() || !IsInputName(parts.first)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--input ", text, ": expected name=path, such as --input data=/data"));
    }
    // Case does not count, as in the file: the variables' names are in upper case.
    const auto found = std::find_if(job->inputs.begin(), job->inputs.end(), [&](const JobInput& input) {
      return absl::EqualsIgnoreCase(input.name, parts.first);
    });
    if (BeginsAtHome(parts.second)) {
      return absl::InvalidArgumentError(absl::StrCat("--input ", text, ": ", NotAtHome(parts.second)));
    }
    const std::string path = PathFrom("", parts.second);
    if (found == job->inputs.end()) return UnknownInput(*job, parts.first, text, file);
    found->path = path;
  }
  return absl::OkStatus();
}

absl::Status ReadScriptParams(const YamlFields& fields, const std::string& file, const JobOverrides& overrides,
                              Job* job) {
  const bool built_in = job->script.empty();
  if (fields.Has("script_params")) {
    const YAML::Node map = fields.Value("script_params");
    if (!map.IsMap()) {
      return fields.ErrorAt("script_params", absl::StrCat("expected a mapping {--flag: value}, found ", Describe(map)));
    }
    for (const auto& item : map) {
      const std::string place = absl::StrCat(MarkText(file, item.first.Mark()), "script_params: ");
      if (!item.first.IsScalar()) {
        return absl::InvalidArgumentError(absl::StrCat(place, "a flag is text, found ", Describe(item.first)));
      }
      ScriptParam param{item.first.Scalar(), ""};
      BASIN_RETURN_IF_ERROR(CheckFlag(place, param.flag, built_in, "--name: value"));
      for (const ScriptParam& other : job->script_params) {
        if (other.flag == param.flag) {
          return absl::InvalidArgumentError(absl::StrCat(place, param.flag, " is given twice; remove one"));
        }
      }
      if (item.second.IsScalar()) {
        param.value = item.second.Scalar();
      } else if (item.second.IsMap()) {
        BASIN_ASSIGN_OR_RETURN(
            const YamlFields reference,
            YamlFields::From(item.second, file, absl::StrCat("script_params.", param.flag), {"input"}));
        BASIN_RETURN_IF_ERROR(ReadReference(reference, *job, &param.value));
      } else {
        return absl::InvalidArgumentError(absl::StrCat(place, param.flag,
                                                       ": expected a value, {input: NAME}, or \"\" for a bare flag, "
                                                       "found ",
                                                       Describe(item.second)));
      }
      job->script_params.push_back(std::move(param));
    }
  }
  for (const std::string& text : overrides.params) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
    const std::vector<std::string>& known = KnownJobFields();
    if (std::find(known.begin(), known.end(), parts.first) != known.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--param ", text, ": ", parts.first,
                       " is a field of the job file and is changed there; at submit, only "
                       "script_params (--param --flag=value), inputs (--input name=path) "
                       "and the target (--target NAME) can be changed"));
    }
    BASIN_RETURN_IF_ERROR(CheckFlag("--param: ", parts.first, built_in, "--param --name=value"));
    const auto found = std::find_if(job->script_params.begin(), job->script_params.end(),
                                    [&](const ScriptParam& param) { return param.flag == parts.first; });
    if (found != job->script_params.end()) {
      found->value = parts.second;
    } else {
      job->script_params.push_back({parts.first, parts.second});
    }
  }
  return absl::OkStatus();
}

}  // namespace basin
