// A task's address: host:port, where host is a name, an IPv4 address, or an IPv6 address in brackets. Syntax only;
// nothing is resolved.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

struct HostPort {
  enum class Kind { kName, kIpv4, kIpv6 };

  // Without brackets, as written.
  std::string host;
  // 1 to 65535.
  uint16_t port = 0;
  Kind kind = Kind::kName;

  // "host:port", with brackets around an IPv6 address.
  std::string ToString() const;
  // The same for two spellings of one endpoint: names in lower case, addresses in their shortest form.
  std::string Canonical() const;
};

// The error says what is wrong with `text` and what to write; it does not repeat `text`, the caller names the task.
absl::StatusOr<HostPort> ParseHostPort(absl::string_view text);

}  // namespace basin
