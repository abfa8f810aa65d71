// A run's environment, built on this node by a guarded `basin environment-build`.
#pragma once

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "estimator/agent/forked_work.h"
#include "estimator/agent/guarded_process.h"
#include "estimator/agent/messages.h"
#include "estimator/agent/node_folder.h"
#include "estimator/agent/programs.h"
#include "estimator/agent/task_command.h"
#include "estimator/container/container.h"

namespace basin {

class EnvironmentPreparation final {
 public:
  EnvironmentPreparation(const NodeFolder& folder, Programs programs, Environment inherited, absl::Duration grace)
      : folder_(folder), programs_(std::move(programs)), inherited_(std::move(inherited)), grace_(grace) {}

  // Begins; answers at once where nothing is to be done, where the same was built already, or where it cannot be begun.
  // Nothing where the same is being built: its answer comes.
  std::optional<agent::EnvironmentReady> Prepare(const agent::PrepareEnvironment& request);
  // The guarded process while there is one; its readable descriptor, else -1.
  int status_fd() const { return process_ ? process_->status_fd() : -1; }
  pid_t guard() const { return process_ ? process_->guard() : 0; }
  bool running() const { return process_.has_value() || removing_.has_value(); }
  // The answer once the build has ended.
  std::optional<agent::EnvironmentReady> Poll();
  void Terminate();
  void Kill();
  // What is ready for the tasks; its prefix and python are empty before.
  const agent::EnvironmentReady& ready() const { return ready_; }
  bool is_conda() const { return is_conda_; }
  // Of tasks in containers, once it is ready.
  const std::optional<NodeImage>& image() const { return image_; }
  const ContainerRequest& container() const { return container_; }
  // A child of this process that belongs here, besides the guard; its readable descriptor, else -1.
  pid_t removing() const { return removing_ ? removing_->pid() : 0; }
  int removing_fd() const { return removing_ ? removing_->fd() : -1; }
  // What it prints.
  std::string LogPath() const;
  std::string LogName() const;  // as it is told: "environment-<node>.txt"

 private:
  agent::EnvironmentReady Result();

  const NodeFolder& folder_;
  const Programs programs_;
  const Environment inherited_;
  const absl::Duration grace_;
  std::optional<GuardedProcess> process_;
  int code_ = 0;
  int signal_ = 0;
  std::string spec_;  // of the build under way, or of what is ready: the request
  ContainerRequest container_;
  std::optional<NodeImage> image_;
  std::optional<ForkedWork> removing_;  // containers that a killed build has left
  agent::EnvironmentReady ready_;
  bool is_ready_ = false;
  bool is_conda_ = false;
};

}  // namespace basin
