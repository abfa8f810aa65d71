// Ports of a node, held by listening on them until the tasks take them: no other program gets one in between.
//
// A script binds its port itself, so the listener is closed before, and for a moment the port looks free. So that no
// other agent takes it then, each port also has a name: an abstract Unix socket "\0basin-port-20000", which is bound
// before the port is tried and kept until the task is gone. Such names are like ports: of a network namespace, for all
// its users, and gone with the process (on a loopback address other than 127.0.0.1, "\0basin-port-20000-ADDRESS").
// Programs other than Basin's do not look at them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace basin {

struct PortRequest {
  uint32_t count = 0;
  uint32_t first = 0;  // of the range that follows 2222, 2223, ...
  uint32_t last = 0;
  std::string bind_address;     // name or address of this node; empty: all interfaces
  std::vector<uint32_t> avoid;  // not to be given
};

// Where to listen for a name by which the others know this node: the address that it resolves to where that is this
// machine's own and not loopback; loopback where that is asked for by its literal or as "localhost"; else all
// interfaces. `note` says which, and why.
struct PortAddress {
  std::string ip;
  std::string note;
};
PortAddress ChoosePortAddress(const std::string& bind_address);

// Both ends: the listener goes to the task or is closed for it, the name stays as long as the task may use the port.
struct HeldPort {
  UniqueFd name;
  UniqueFd listener;
};

class PortHolder final {
 public:
  // Lets go of all that it still holds, then binds and listens on `count` ports: 2222 upward (`count` of them) those
  // that are free, then the next free ones of the range. One whose name somebody has is not free, whoever listens
  // there. RESOURCE_EXHAUSTED where there are too few: nothing is held then.
  absl::StatusOr<std::vector<uint32_t>> Hold(const PortRequest& request);
  // Gives a held port away. NOT_FOUND where it is not held.
  absl::StatusOr<HeldPort> Take(uint32_t port);
  // Whether somebody listens on a port where Hold would have.
  bool IsTaken(uint32_t port) const;
  // What was chosen by the last Hold.
  const PortAddress& address() const { return address_; }

 private:
  PortAddress address_;
  std::map<uint32_t, HeldPort> held_;
};

}  // namespace basin
