#include <signal.h>

#include <cstdio>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "estimator/agent/node_folder.h"
#include "estimator/agent/relay.h"
#include "estimator/commands/commands.h"
#include "estimator/kubernetes/pod_agent.h"
#include "estimator/kubernetes/pod_plan.h"

namespace basin {

int AgentCommand(const std::vector<std::string>& arguments, const CommandContext& context, const std::string& version) {
  SetLogPrefix("basin agent");
  if (arguments == std::vector<std::string>{"--pod"}) {
    return RunPodAgent({context.variable("JOB_COMPLETION_INDEX").value_or(""),
                        context.variable(kPodIpVariable).value_or(""), version});
  }
  RelayOptions options;
  options.version = version;
  std::string base;
  bool has_node = false;
  for (size_t i = 0; i < arguments.size(); i += 2) {
    const bool has_value = i + 1 < arguments.size();
    if (has_value && arguments[i] == "--run") {
      options.run_id = arguments[i + 1];
    } else if (has_value && arguments[i] == "--node" && absl::SimpleAtoi(arguments[i + 1], &options.node)) {
      has_node = true;
    } else if (has_value && arguments[i] == "--base") {
      base = arguments[i + 1];
    } else if (has_value && arguments[i] == "--programs") {
      options.programs = arguments[i + 1];
    } else {
      has_node = false;
      break;
    }
  }
  if (options.run_id.empty() || !has_node) {
    Error(
        "it is started by basin submit, as `basin agent --run ID --node K [--base FOLDER] [--programs FOLDER]`; use "
        "basin submit");
    return kExitUsage;
  }
  const absl::StatusOr<std::string> chosen = ChooseBase(base, context.cache, context.xdg_cache, context.home);
  if (!chosen.ok()) return Complain(chosen.status());
  options.base = *chosen;
  options.inherited = InheritedEnvironment(environ);
  const absl::Status status = RunRelay(options);
  return status.ok() ? kExitOk : Complain(status);
}

}  // namespace basin
