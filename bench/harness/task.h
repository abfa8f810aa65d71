// A task is a process of the harness that does one thing when told: push for a second, receive a stream, echo. It is
// this program again, as the hidden command `basin-bench task`. The parent writes one line of JSON, the task answers
// with one: first the specification of the task, {"kind": ..., ...}, then commands, {"do": "round", "seconds": 0.5}.
// An answer is an object, or {"error": message, "code": absl's code}. The end of its input ends the task.
//
// Why processes: memory and processor time are those of the thing measured, a task can live in a network namespace, and
// nobody forks after connecting.
#pragma once

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace basin::bench {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

inline double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Task {
 public:
  virtual ~Task() = default;
  // Once, before all else. What it answers is the parent's first answer.
  virtual absl::StatusOr<Json> Start(const Json& spec) = 0;
  // `command["do"]` says what: "round" for `command["seconds"]`; others depend on the kind.
  virtual absl::StatusOr<Json> Do(const Json& command) = 0;
};

// The task for `spec["kind"]`. The kinds are in task.cc.
absl::StatusOr<std::unique_ptr<Task>> MakeTask(const std::string& kind);

// Reads and answers until the input ends. Returns main's exit code.
int TaskMain();

// ---- The kinds, each in a file of its own ----
std::unique_ptr<Task> MakeMemoryTask();       // memcpy, d += s, and the streams of the rules
std::unique_ptr<Task> MakeApplyTask();        // the rules in this process
std::unique_ptr<Task> MakeTcpReceiverTask();  // raw TCP
std::unique_ptr<Task> MakeTcpSenderTask();
std::unique_ptr<Task> MakeZmqRouterTask();  // ZeroMQ
std::unique_ptr<Task> MakeZmqDealerTask();
std::unique_ptr<Task> MakeSharedMemoryTask();  // either side of a round trip
std::unique_ptr<Task> MakeDenseTask();         // a worker that pushes and pulls variables
std::unique_ptr<Task> MakeTableTask();         // a worker that pushes and pulls rows
std::unique_ptr<Task> MakeLocalTableTask();    // a table in this process
std::unique_ptr<Task> MakeStressTask();        // some workers of a stress run
std::unique_ptr<Task> MakeProxyTask();         // cuts connections

}  // namespace basin::bench
