// Which address a ps binds, and which one it tells others.
//
// In this order: the chosen interface; the address that the task's own host name resolves to, if it is this machine's
// and not loopback; loopback only where every task's address is loopback; else all interfaces. (Debian's /etc/hosts
// maps the host's own name to 127.0.1.1: following that would hide a ps from every other machine.)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace basin::wire {

struct BindAddress {
  std::string ip;     // a literal; "0.0.0.0" and "::" are all interfaces
  uint16_t port = 0;  // 0: the system chooses
  std::string host;   // what peers dial, with the real port
  std::string note;   // a line for the log where the choice may surprise; else empty
  // A socket that somebody has opened and that listens on `port` already; -1: none, a new one is bound. The listener
  // that is made with it closes it.
  int listening_fd = -1;
};

struct LocalAddress {
  std::string interface;
  std::string ip;
};

// Of this network namespace's interfaces that are up.
absl::StatusOr<std::vector<LocalAddress>> ListLocalAddresses();

struct BindFacts {
  std::string own_host;                 // of this task's address in TF_CONFIG
  std::vector<std::string> own_ips;     // what it resolves to; not empty
  std::vector<LocalAddress> local;      // this machine's addresses
  bool every_task_is_loopback = false;  // every task's host resolves, and to loopback alone
};

// Pure. `interface` (name or IP literal) may be empty; INVALID_ARGUMENT lists what there is when it does not exist.
// The port is 0; the caller sets it.
absl::StatusOr<BindAddress> ChooseBindAddress(const BindFacts& facts, const std::string& interface);

// Asks the system. UNAVAILABLE where the own name does not resolve (yet): try again until the start time-out. The hosts
// of the other tasks are resolved only when the own one is loopback; one that does not resolve counts as another
// machine.
absl::StatusOr<BindFacts> CollectBindFacts(const std::string& own_host, const std::vector<std::string>& task_hosts);

}  // namespace basin::wire
