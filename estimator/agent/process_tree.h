// The processes below one, and how all of them are ended. Linux: reads /proc.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace basin {

struct ProcessRef {
  pid_t pid = 0;
  uint64_t start_time = 0;  // clock ticks since boot: tells a process from a later one with the same number
  bool operator==(const ProcessRef&) const = default;
};

// Children, their children and so on, as they are at this moment, in no particular order. Orphans count while `root` is
// their subreaper.
std::vector<ProcessRef> Descendants(pid_t root);

// The children alone.
std::vector<ProcessRef> Children(pid_t root);

// A process by its number, as it is now; nullopt where there is none.
std::optional<ProcessRef> FindProcess(pid_t pid);

// Sends `signal` unless the process is gone (and its number perhaps somebody else's by now).
void SignalProcess(const ProcessRef& process, int signal);

void SignalDescendants(pid_t root, int signal);

}  // namespace basin
