// A process under a guard (guard.h), as the agent holds it. Its guard ends it when this object goes, for any reason.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/unique_fd.h"

namespace basin {

struct GuardedCommand {
  std::vector<std::string> argv;         // the program by its path
  std::vector<std::string> environment;  // NAME=VALUE, all of it
  std::string folder;                    // the working directory
  std::string log_path;                  // both outputs are appended to it; empty: they are this process's
  int listener = -1;                     // a listening socket for the process, as kPassedListenerFd
  absl::Duration grace;                  // the guard's
  std::string input;                     // what it reads from its standard input
  std::string containers;                // the guard's (GuardOptions)
};

struct GuardedEvent {
  enum Kind { kStarted, kExited, kGone };
  Kind kind;
  pid_t pid = 0;   // kStarted
  int code = 0;    // kExited
  int signal = 0;  // kExited; 0: it ended by itself
};

// One thread, which waits for its children itself (the guard's zombie is the owner's to reap).
class GuardedProcess final {
 public:
  // On an error nothing was started.
  static absl::StatusOr<GuardedProcess> Start(const GuardedCommand& command);
  GuardedProcess(GuardedProcess&&) = default;
  GuardedProcess& operator=(GuardedProcess&&) = default;

  pid_t guard() const { return guard_; }
  // Readable when Read has something to tell; -1 after kGone.
  int status_fd() const { return status_.get(); }
  // What has happened since. kGone is the last: nothing is left below the guard, or the guard was itself killed (then
  // without kExited, and what it guarded may live on as this process's children).
  std::vector<GuardedEvent> Read();

  // To the process and all below it; no effect once it is gone.
  void Terminate() { Order('T'); }
  void Kill() { Order('K'); }

 private:
  GuardedProcess() = default;
  void Order(char order);

  pid_t guard_ = 0;
  UniqueFd lifeline_;
  UniqueFd status_;
  std::string partial_line_;
};

}  // namespace basin
