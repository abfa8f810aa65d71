// Who listens on a TCP port of this machine, as far as /proc tells.
#pragma once

#include <cstdint>
#include <string>

namespace basin::wire {

// Whether anybody does. Nothing is bound or connected for it.
bool IsListenedOn(uint16_t port);

// `pid 812 ("basin-ps --lanes 2")`, or "another process" with the reason why it cannot be named. For error messages:
// reads all of /proc.
std::string DescribePortOwner(uint16_t port);

}  // namespace basin::wire
