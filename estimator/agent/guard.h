// One guard a task: it starts the task in a session of its own, adopts whatever the task's processes leave behind, and
// lives by a pipe from whoever has started it, the agent mostly. When that pipe closes, for any reason (SIGKILL of the
// agent too), everything below the guard ends.
//
// Over the lifeline the agent may write single bytes: 'T' sends SIGTERM to everything below, 'K' SIGKILL until
// nothing is left. Over the status pipe the guard writes lines: "started PID", then one of "exited CODE" and
// "signaled NUMBER" for the task itself, at once. The guard ends when nothing is left below it.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace basin {

inline constexpr int kGuardLifelineFd = 3;
inline constexpr int kGuardStatusFd = 4;
// Where a task finds the listening socket that it was given (GuardOptions::passes_listener).
inline constexpr int kPassedListenerFd = 5;

struct GuardOptions {
  // From SIGTERM to SIGKILL, for what the task leaves behind when it has ended by itself.
  absl::Duration grace = absl::Seconds(5);
  // The same after the agent is gone, at most: nobody is left to wait for an orderly end.
  absl::Duration abandoned_grace = absl::Seconds(2);
  // Descriptor kPassedListenerFd is the task's; the guard lets go of it.
  bool passes_listener = false;
  // The task is the process of a container's engine, and how its containers are removed is noted here
  // (container/removal.h). SIGTERM goes to what runs in them, once: engines pass on what they get themselves. What is
  // noted is carried out at the end, unless the engine has ended well. Empty: no engine.
  std::string containers;
};

// The body of the hidden subcommand `basin guard`. REQUIRES: a fresh process that leads its own session, with the two
// pipes at the descriptors above and the task's output on 1 and 2. Returns the task's exit code (128 + signal number).
int RunGuard(const GuardOptions& options, const std::vector<std::string>& argv);

}  // namespace basin
