// A task (task.h) seen from the parent: a child process that is told what to do, line by line.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/harness/process.h"
#include "bench/harness/task.h"

namespace basin::bench {

struct TaskOptions {
  std::string name;  // what messages call it: "worker 3", "raw TCP sender"
  std::vector<std::pair<std::string, std::string>> environment;
  int network = -1;
  std::string log;
  std::vector<int> inherited;
};

class TaskProcess final {
 public:
  // Starts the process and tells it the specification; Answer gives the first answer.
  static absl::StatusOr<std::unique_ptr<TaskProcess>> Start(TaskOptions options, const Json& spec);

  // Sends a command. Its answer comes with Answer, in the order of commands.
  absl::Status Tell(const Json& command);
  // The next answer. An error is the task's own, with its name in front; UNAVAILABLE when it has died (with the end of
  // its log), DEADLINE_EXCEEDED, or CANCELLED by a signal. `healthy` is asked now and then, and its error ends the
  // wait.
  absl::StatusOr<Json> Answer(absl::Duration most = absl::Seconds(120),
                              const std::function<absl::Status()>& healthy = nullptr);
  absl::StatusOr<Json> Ask(const Json& command) {
    if (absl::Status status = Tell(command); !status.ok()) return status;
    return Answer();
  }
  const std::string& name() const { return options_.name; }
  Process& process() { return process_; }

 private:
  TaskProcess(TaskOptions options, Process process) : options_(std::move(options)), process_(std::move(process)) {}
  absl::Status Died();

  const TaskOptions options_;
  Process process_;
  std::string unread_;
};

}  // namespace basin::bench
