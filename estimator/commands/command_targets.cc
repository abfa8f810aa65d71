#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/base/exit_code.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/given_words.h"
#include "estimator/commands/run_flags.h"
#include "estimator/launch/targets_file.h"

namespace basin {
namespace {

absl::StatusOr<int> ShowTargets(const CommandContext& context, const TargetFlags& flags, bool as_json) {
  BASIN_RETURN_IF_ERROR(CheckTargetFiles(flags));
  const TargetSources sources = SourcesOf(context, flags, "");
  BASIN_ASSIGN_OR_RETURN(const std::vector<Target> targets, KnownTargets(sources));
  if (as_json) {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    for (const Target& target : targets) out.push_back(nlohmann::ordered_json::parse(TargetToJson(target)));
    std::printf("%s\n", out.dump(2).c_str());
    return kExitOk;
  }
  for (const Target& target : targets) {
    std::string nodes = absl::StrJoin(target.nodes, " ", [](std::string* out, const TargetNode& node) {
      absl::StrAppend(out, node.user.empty() ? "" : absl::StrCat(node.user, "@"), node.name,
                      node.ssh_port == 0 ? "" : absl::StrCat(":", node.ssh_port));
    });
    if (target.kind == TargetKind::kKubernetes) {
      const KubernetesSettings& settings = target.kubernetes;
      nodes = settings.context.empty() ? "the current context" : "context " + settings.context;
      if (!settings.name_space.empty()) absl::StrAppend(&nodes, ", namespace ", settings.name_space);
    }
    absl::PrintF("%-16s %-10s %s  (%s)\n", target.name, TargetKindName(target.kind), nodes,
                 target.source.empty() ? "built in" : target.source);
  }
  if (targets.size() == 1) {
    absl::PrintF("no targets file defines others; looked at %s and %s\n", sources.project_file,
                 sources.user_file.empty() ? "~/.config/basin/targets.yaml" : sources.user_file);
  }
  return kExitOk;
}

}  // namespace

void AddTargets(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* targets = app.add_subcommand("targets", "Lists where jobs can run, and which file says so");
  const auto flags = std::make_shared<TargetFlags>();  // the callback keeps it
  const auto json = std::make_shared<bool>(false);
  NotEmpty(targets->add_option("--targets", flags->targets,
                               "A targets file, before ./targets.yaml and ~/.config/basin/targets.yaml"))
      ->type_name("FILE")
      ->take_last();
  targets->add_flag("--json", *json, "Print them as a JSON list");
  targets->footer(kUsualExitCodes);
  targets->callback([&context, exit_code, flags, json] {
    const absl::StatusOr<int> code = ShowTargets(context, *flags, *json);
    *exit_code = code.ok() ? *code : Complain(code.status());
  });
}

}  // namespace basin
