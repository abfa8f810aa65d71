#include <sys/prctl.h>

#include <csignal>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "estimator/agent/mpi_door.h"
#include "estimator/commands/commands.h"
#include "estimator/job/mpi_command.h"

namespace basin {
namespace {

constexpr char kNotByHand[] = "it is started by the mpirun of a run with distributed_backend: mpi; use basin submit";

int Call(const std::string& node_folder, const agent::MpiCall& call) {
  // Whoever has started it may be killed; nobody is left to stand in for then.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  const absl::StatusOr<agent::MpiAnswer> answer = CallAgent(node_folder, call);
  if (!answer.ok()) {
    Error(answer.status().message());
    return kExitFailed;
  }
  if (!answer->problem().empty()) Error(answer->problem());
  return answer->code();
}

}  // namespace

int MpiRankCommand(const CommandContext& context, const char* const* environment) {
  SetLogPrefix("basin mpi-rank");
  const std::string folder = context.variable("BASIN_NODE_FOLDER").value_or("");
  agent::MpiCall call;
  uint32_t rank = 0;
  if (folder.empty() || !absl::SimpleAtoi(context.variable("OMPI_COMM_WORLD_RANK").value_or(""), &rank)) {
    Error(kNotByHand);
    return kExitUsage;
  }
  call.mutable_rank()->set_rank(rank);
  for (const char* const* entry = environment; *entry != nullptr; ++entry) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(*entry, absl::MaxSplits('=', 1));
    if (!IsMpiVariable(parts.first)) continue;
    agent::Variable* variable = call.mutable_rank()->add_environment();
    variable->set_name(parts.first);
    variable->set_value(parts.second);
  }
  return Call(folder, call);
}

int MpiDaemonCommand(const std::vector<std::string>& arguments, const CommandContext& context) {
  SetLogPrefix("basin mpi-daemon");
  const std::string folder = context.variable("BASIN_NODE_FOLDER").value_or("");
  if (folder.empty() || arguments.size() < 2) {
    Error(kNotByHand);
    return kExitUsage;
  }
  // As ssh has it: HOST and the words of a line for its shell.
  const std::optional<int> node = NodeOfMpiHost(arguments[0]);
  if (!node) {
    Error(absl::StrCat("mpirun asks for a daemon on \"", arguments[0], "\", which is no node of this run"));
    return kExitFailed;
  }
  agent::MpiCall call;
  call.mutable_daemon()->set_node(static_cast<uint32_t>(*node));
  call.mutable_daemon()->set_command(absl::StrJoin(arguments.begin() + 1, arguments.end(), " "));
  return Call(folder, call);
}

}  // namespace basin
