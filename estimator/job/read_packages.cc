#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "estimator/job/job_fields.h"
#include "estimator/job/job_readers.h"

namespace basin {
namespace {

// The name before version, extras and markers: "tensorflow" of "TensorFlow[and-cuda]==2.1 ; python_version > '3'".
std::string PackageName(absl::string_view requirement) {
  const size_t end = requirement.find_first_of(" \t[]=<>!~;@");
  return absl::AsciiStrToLower(requirement.substr(0, end));
}

// The environment adds the framework to the packages (environment/environment_spec.h), so that they must not name it
// too.
absl::Status ReadFramework(const YamlFields& fields, const Packages& packages, std::string* version) {
  BASIN_RETURN_IF_ERROR(fields.Read("framework_version", version));
  if (version->empty()) return absl::OkStatus();
  if (!IsName(*version, ".+!_-*")) {
    return fields.ErrorAt("framework_version",
                          absl::StrCat("\"", *version, "\" is no version of TensorFlow; write one such as \"2.15.1\""));
  }
  for (const std::string& package : packages.pip) {
    const std::string name = PackageName(package);
    if (name != "tensorflow" && name != "tensorflow-cpu" && name != "tensorflow-gpu") continue;
    return fields.ErrorAt("framework_version", absl::StrCat(*version, " conflicts with \"", package,
                                                            "\" in pip_packages; remove one of the two"));
  }
  return absl::OkStatus();
}

absl::Status ReadList(const YamlFields& fields, absl::string_view name, std::vector<std::string>* packages) {
  BASIN_RETURN_IF_ERROR(ReadTexts(fields, name, "a package", packages));
  for (std::string& package : *packages) {
    absl::StripAsciiWhitespace(&package);
    const bool option = package[0] == '-';
    if (!option && package.find('\n') == std::string::npos) continue;
    return fields.ErrorAt(name, absl::StrCat("\"", absl::CEscape(package), "\" is no package",
                                             option ? "; options go into a requirements file (pip_requirements_file)"
                                                    : "; write one package an item"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadPackages(const YamlFields& fields, Job* job) {
  Packages& packages = job->packages;
  BASIN_RETURN_IF_ERROR(ReadList(fields, "conda_packages", &packages.conda));
  BASIN_RETURN_IF_ERROR(ReadList(fields, "pip_packages", &packages.pip));
  const std::pair<const char*, std::string*> files[] = {{"conda_dependencies_file", &packages.conda_dependencies_file},
                                                        {"pip_requirements_file", &packages.pip_requirements_file},
                                                        {"environment_definition", &packages.environment_definition}};
  for (const auto& [name, path] : files) {
    std::string spelling;
    BASIN_RETURN_IF_ERROR(FindSpelling(fields, name, &spelling, &job->warnings));
    if (fields.Has(spelling) && fields.Value(spelling).IsMap()) {
      return fields.ErrorAt(spelling,
                            "expected a file beneath source_directory, found a mapping; write it into a conda "
                            "environment file and name that");
    }
    BASIN_RETURN_IF_ERROR(fields.Read(spelling, path));
    if (path->empty()) continue;
    BASIN_RETURN_IF_ERROR(CheckBeneathSource(fields, spelling, path));
  }
  BASIN_RETURN_IF_ERROR(ReadFramework(fields, packages, &job->framework_version));
  BASIN_RETURN_IF_ERROR(fields.Read("user_managed", &packages.user_managed));
  // Without an image both values hold; the conflict with one is found before.
  bool use_docker = true;
  BASIN_RETURN_IF_ERROR(fields.Read("use_docker", &use_docker));
  const bool has_file = !packages.conda_dependencies_file.empty() || !packages.pip_requirements_file.empty() ||
                        !packages.environment_definition.empty();
  if (has_file && job->source_directory.empty()) {
    return fields.ErrorAt("source_directory",
                          "not given, but a file of packages lies beneath it; set it to the folder of that file");
  }
  return absl::OkStatus();
}

}  // namespace basin
