// A parameter server of this process's own, for training alone where TF_CONFIG is not set: a child process on loopback.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace basin {

class OwnPs final {
 public:
  // Starts basin-ps (from this program's folder, else PATH) on a free port. It ends with this process, whatever ends
  // that.
  static absl::StatusOr<std::unique_ptr<OwnPs>> Start(int lanes);
  // Ends it (TERM) where it has not ended by itself, and waits for it.
  ~OwnPs();
  // For this process as worker 0, the chief.
  const std::string& worker_tf_config() const { return worker_tf_config_; }

 private:
  OwnPs(pid_t pid, std::string tf_config) : pid_(pid), worker_tf_config_(std::move(tf_config)) {}
  const pid_t pid_;
  const std::string worker_tf_config_;
};

}  // namespace basin
