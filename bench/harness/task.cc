#include "bench/harness/task.h"

#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <map>

#include "absl/strings/str_cat.h"
#include "common/base/exit_code.h"
#include "common/base/text.h"

namespace basin::bench {
namespace {

bool Answer(const absl::StatusOr<Json>& answer) {
  const Json json = answer.ok() ? *answer
                                : Json{{"error", std::string(answer.status().message())},
                                       {"code", static_cast<int>(answer.status().code())}};
  const std::string line = json.dump() + "\n";
  for (size_t at = 0; at < line.size();) {
    const ssize_t written = write(STDOUT_FILENO, line.data() + at, line.size() - at);
    if (written <= 0) return false;
    at += static_cast<size_t>(written);
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Task>> MakeTask(const std::string& kind) {
  static const auto& kinds = *new std::map<std::string, std::unique_ptr<Task> (*)()>{
      {"memory", MakeMemoryTask},
      {"apply", MakeApplyTask},
      {"tcp_receiver", MakeTcpReceiverTask},
      {"tcp_sender", MakeTcpSenderTask},
      {"zmq_router", MakeZmqRouterTask},
      {"zmq_dealer", MakeZmqDealerTask},
      {"shared_memory", MakeSharedMemoryTask},
      {"dense", MakeDenseTask},
      {"table", MakeTableTask},
      {"local_table", MakeLocalTableTask},
      {"stress", MakeStressTask},
      {"proxy", MakeProxyTask},
  };
  const auto found = kinds.find(kind);
  if (found == kinds.end()) return absl::InvalidArgumentError(absl::StrCat("there is no task of kind \"", kind, "\""));
  return found->second();
}

int TaskMain() {
  std::unique_ptr<Task> task;
  std::string line;
  while (std::getline(std::cin, line)) {
    const Json command = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    absl::StatusOr<Json> answer = absl::InvalidArgumentError(absl::StrCat("a task was told what is no JSON: ", line));
    if (command.is_object() && task == nullptr) {
      absl::StatusOr<std::unique_ptr<Task>> made = MakeTask(command.value("kind", ""));
      if (made.ok()) {
        task = *std::move(made);
        answer = task->Start(command);
      } else {
        answer = made.status();
      }
    } else if (command.is_object()) {
      answer = task->Do(command);
    }
    if (!Answer(answer)) return kExitFailed;
  }
  return kExitOk;
}

}  // namespace basin::bench
