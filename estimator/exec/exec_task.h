// The task of one rank: a parameter server, or the command. It runs under a guard, so that nothing of it outlives this
// process; its output is this process's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/base/unique_fd.h"
#include "estimator/agent/guarded_process.h"
#include "estimator/agent/port_holder.h"
#include "estimator/exec/exec_options.h"

namespace basin {

// What rank 0 has told all ranks.
struct ExecStart {
  ClusterSpec cluster;
  std::string run_id;
  std::string token;
  bool shares_host = false;
};

// One thread.
class ExecTask final {
 public:
  explicit ExecTask(const ExecOptions& options) : options_(options) {}

  TaskId id() const { return TaskOfRank(options_.layout, options_.launched.rank); }
  // Holds the task's port until it starts; 0: it has none.
  absl::StatusOr<uint32_t> HoldPort();
  absl::Status Start(const ExecStart& start);

  struct End {
    int code = 0, signal = 0;
  };
  // Readable when Poll has something to tell; -1: nothing runs.
  int status_fd() const { return process_ ? process_->status_fd() : -1; }
  // Once: how the task has ended.
  std::optional<End> Poll();
  // Nothing is left of it, or it never ran.
  bool gone() const { return !process_; }
  void Terminate();
  void Kill();

 private:
  absl::StatusOr<std::string> KeepToken(const std::string& token);

  const ExecOptions& options_;
  PortHolder ports_;
  HeldPort held_;  // its name keeps other runs away while the task lives
  uint32_t port_ = 0;
  UniqueFd token_;  // memory, which tasks open by its place in /proc: it cannot be left behind
  std::optional<GuardedProcess> process_;
  bool told_ = false;
};

}  // namespace basin
