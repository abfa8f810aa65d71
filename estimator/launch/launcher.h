// How the agent of a node is started: the seam below the supervisor, one twin a kind of target. A launcher starts a
// process whose standard input and output lead to the agent; everything after that is the same everywhere.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "estimator/launch/target.h"

namespace basin {

// The process that carries an agent's conversation. Descriptors are non-blocking and close-on-exec, and the receiver's.
struct AgentPipe {
  pid_t process = 0;    // a child of this process: fork, or the ssh client; the receiver waits for it
  int to_agent = -1;    // its standard input
  int from_agent = -1;  // its standard output
  int errors = -1;      // its standard error: what ssh or a failing shell says
};

// How the process ended that was to lead to an agent, or to store the programs, and did not.
struct PipeEnd {
  int exit_code = -1;  // 128 + signal where it was killed, -1 where there was no process
  std::string errors;
  std::string printed;
  bool sent_programs = false;  // it was a ProgramsTransfer's
};

struct AgentRequest {
  std::string run_id;
  uint32_t node = 0;
  TargetNode host;
};

// Bytes that come piece by piece.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // The next piece; empty at the end.
  virtual absl::StatusOr<std::string> Next() = 0;
};

// A process that unpacks Basin's programs on a node. It is given all of `programs` (a tar archive, with the empty file
// kProgramsWhole after its end) and then the end of its input; once they are in place it prints a line that begins with
// kProgramsStored.
struct ProgramsTransfer {
  AgentPipe pipe;
  std::unique_ptr<ByteSource> programs;
  uint64_t bytes = 0;  // of the archive, which is smaller than what `programs` makes of it
};
inline constexpr char kProgramsStored[] = "BASIN-STORED";
// tar takes an archive that was cut between two of its files for a whole one: only with this file it is.
inline constexpr char kProgramsWhole[] = ".basin-whole";
// What a node prints instead of the agent's first line where it has no programs of this version; then `uname -m` and
// its libc ("BASIN-NONE x86_64 glibc 2.36").
inline constexpr char kProgramsMissing[] = "BASIN-NONE";

class Launcher {
 public:
  virtual ~Launcher() = default;
  // Starts the agent's relay on a node, or reaches the one that is there already. Does not wait for its first bytes.
  virtual absl::StatusOr<AgentPipe> Open(const AgentRequest& request) = 0;
  // How the node's programs are sent where `text`, which it printed, says kProgramsMissing. FAILED_PRECONDITION where
  // ours cannot run there, naming both; UNIMPLEMENTED where nothing is ever sent (the local target).
  virtual absl::StatusOr<ProgramsTransfer> SendPrograms(const AgentRequest& request, const std::string& text) = 0;
  // Why a connection ended before the agent's first line, or a transfer before its end, for people: what its process
  // said, and what to do about it.
  virtual std::string Complaint(const AgentRequest& request, const PipeEnd& end) = 0;
};

}  // namespace basin
