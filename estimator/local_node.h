// What a plan needs to know about this machine: free ports, held until the tasks take them, and where programs lie.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "estimator/job.h"

namespace basin {

// Ports of 127.0.0.1 that were free and now belong to this process, without anyone listening on them: a task that binds
// with SO_REUSEADDR (as ZeroMQ does) and listens gets one, while another launcher that looks for free ports does not.
class HeldPorts {
 public:
  HeldPorts() = default;
  HeldPorts(HeldPorts&& other) noexcept { swap(other); }
  HeldPorts& operator=(HeldPorts&& other) noexcept {
    swap(other);
    return *this;
  }
  ~HeldPorts();

  // `count` ports: of 2222, 2223, ... (`count` of them) those that are free, then the next free ones of `range`.
  // RESOURCE_EXHAUSTED where there are too few.
  static absl::StatusOr<HeldPorts> Hold(int count, const PortRange& range);
  const std::vector<int>& ports() const { return ports_; }

 private:
  void swap(HeldPorts& other) {
    ports_.swap(other.ports_);
    sockets_.swap(other.sockets_);
  }
  std::vector<int> ports_;
  std::vector<int> sockets_;
};

// Absolute path of an executable file `name`: in `folder` alone where one is given; else beside this program, then
// along `path` (as in PATH). NOT_FOUND names the places looked at.
absl::StatusOr<std::string> FindProgram(const std::string& name, const std::string& folder, const std::string& path);

}  // namespace basin
