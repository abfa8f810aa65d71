#include "estimator/launch/find_target.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/files.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"
#include "estimator/launch/targets_file.h"

namespace basin {

Target LocalTarget() {
  Target target;
  target.nodes = {{"localhost", "127.0.0.1", "", 0}};
  return target;
}

absl::StatusOr<std::vector<Target>> KnownTargets(const TargetSources& sources) {
  std::vector<Target> known = {LocalTarget()};
  const std::pair<const std::string&, bool> files[] = {
      {sources.given_file, true}, {sources.project_file, false}, {sources.user_file, false}};
  for (const auto& [file, must_exist] : files) {
    if (file.empty()) continue;
    const absl::StatusOr<std::string> text = ReadFile(file, size_t{4} << 20);
    if (absl::IsNotFound(text.status()) && !must_exist) continue;
    if (!text.ok() && must_exist) {
      return absl::Status(text.status().code(),
                          absl::StrCat("--targets ", file, ": ", text.status().message(),
                                       "; correct the path, or leave --targets out: targets.yaml beside the job and ",
                                       "~/.config/basin/targets.yaml are looked at by themselves"));
    }
    if (!text.ok()) return text.status();
    BASIN_ASSIGN_OR_RETURN(const std::vector<Target> targets, ParseTargets(*text, file));
    for (const Target& target : targets) {
      const bool hidden =
          std::any_of(known.begin(), known.end(), [&target](const Target& other) { return other.name == target.name; });
      if (!hidden) known.push_back(target);
    }
  }
  return known;
}

absl::StatusOr<Target> FindTarget(const std::string& name, const TargetSources& sources) {
  if (name == "local") return LocalTarget();
  BASIN_ASSIGN_OR_RETURN(const std::vector<Target> known, KnownTargets(sources));
  std::vector<std::string> names;
  for (const Target& target : known) {
    if (target.name == name) return target;
    names.push_back(target.name);
  }
  const auto nearest = Nearest(name, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "compute_target: unknown target \"", name, "\"; ",
      nearest ? absl::StrCat("did you mean \"", *nearest, "\"? ") : "", "known: ", absl::StrJoin(names, ", "),
      "; define it in ", sources.project_file.empty() ? "targets.yaml" : sources.project_file, " or ",
      sources.user_file.empty() ? "~/.config/basin/targets.yaml" : sources.user_file, ", or give --hosts h0,h1"));
}

}  // namespace basin
