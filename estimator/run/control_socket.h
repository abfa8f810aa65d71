// The socket of a run's supervisor, supervisor.sock in the run's folder: one line in ("cancel"), one line back. Nothing
// but the folder's mode (0700) guards it.
#pragma once

#include <poll.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/unique_fd.h"

namespace basin {

// The supervisor's end. Not thread-safe.
class ControlSocket {
 public:
  // Replaces a socket that a supervisor before has left.
  static absl::StatusOr<ControlSocket> Listen(const std::string& run_folder);
  ControlSocket(ControlSocket&&) = default;
  ~ControlSocket();

  void AddWaits(std::vector<pollfd>* waits) const;
  // Accepts and reads what is there. Returns the whole lines that have come, each answered with "ok".
  std::vector<std::string> Service();

 private:
  ControlSocket() = default;
  struct Peer {
    UniqueFd fd;
    std::string text;
  };
  UniqueFd folder_;
  UniqueFd listener_;
  std::vector<Peer> peers_;
};

// Says `line` to the supervisor of the run and waits for its answer. UNAVAILABLE where none listens.
absl::Status TellSupervisor(const std::string& run_folder, const std::string& line, absl::Duration limit);

}  // namespace basin
