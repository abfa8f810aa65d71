// Host names and addresses as TF_CONFIG writes them: host:port, [v6]:port.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin::wire {

struct HostPort {
  std::string host;  // without brackets
  uint16_t port = 0;
};
// INVALID_ARGUMENT names what is wrong with it.
absl::StatusOr<HostPort> SplitHostPort(absl::string_view address);
// Brackets around an IPv6 literal.
std::string JoinHostPort(absl::string_view host, uint16_t port);

// The IP literals of a host, in the system's order, each once; never empty. Blocks in the resolver (a DNS time-out may
// take seconds). UNAVAILABLE: "name does not resolve", with the resolver's reason; trying again may help.
absl::StatusOr<std::vector<std::string>> Resolve(const std::string& host);

// Of IP literals; false for what is none.
bool IsLoopback(absl::string_view ip);
bool IsIpv6(absl::string_view ip);

}  // namespace basin::wire
