#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>

#include "cluster_spec/cluster_view.h"
#include "cluster_spec/describe.h"
#include "cluster_spec/tf_config.h"
#include "common/base/exit_code.h"
#include "estimator/commands/commands.h"

namespace basin {
namespace {

int Show(const CommandContext& context, bool json) {
  const absl::StatusOr<TfConfig> config = ParseTfConfig(context.tf_config.value_or("{}"));
  if (!config.ok()) return Complain(config.status());
  const absl::StatusOr<ClusterView> view = Resolve(*config);
  std::string text = json ? DescribeJson(*config, view) : Describe(*config, view);
  if (!json && !context.tf_config) text = "TF_CONFIG is not set\n" + text;
  if (text.empty() || text.back() != '\n') text += '\n';
  std::fputs(text.c_str(), stdout);
  return view.ok() ? kExitOk : kExitUsage;
}

}  // namespace

void AddCluster(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* cluster = app.add_subcommand("cluster", "What this machine's TF_CONFIG says");
  cluster->require_subcommand(1);
  CLI::App* show =
      cluster->add_subcommand("show", "Shows what TF_CONFIG means: role, index, chief, addresses, and what is wrong");
  const auto json = std::make_shared<bool>(false);  // the callback keeps it
  show->add_flag("--json", *json, "Print one JSON object");
  show->footer("Exit code: 0 nothing is wrong with it, 2 something is.");
  show->callback([&context, exit_code, json] { *exit_code = Show(context, *json); });
}

}  // namespace basin
