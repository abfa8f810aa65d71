// The process that a launcher has started, with its three pipes.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/time/time.h"
#include "estimator/launch/launcher.h"

namespace basin {

// Bytes read, 0 at the end of the stream, -1 when there is nothing now. Appends to `text`.
ssize_t ReadSome(int fd, std::string* text);

// Not thread-safe. All of it ends with this object.
class ChildPipes final {
 public:
  explicit ChildPipes(const AgentPipe& pipe) : pipe_(pipe) {}
  ChildPipes(const ChildPipes&) = delete;
  ChildPipes& operator=(const ChildPipes&) = delete;
  ~ChildPipes();

  const AgentPipe& pipe() const { return pipe_; }
  void CloseInput();
  // Reads its standard error: the newest of it is kept.
  void ReadErrors();
  bool errors_ended() const { return pipe_.errors < 0; }
  const std::string& errors() const { return errors_; }
  // Closes its input and output, and waits for it; one that does not end by that within `patience` gets SIGTERM, and
  // soon after SIGKILL. Its last words are read. Exit code, 128 + signal where it was killed, -1 where there is no
  // process. May be called again.
  int Finish(absl::Duration patience);

 private:
  AgentPipe pipe_;
  std::string errors_;
  int exit_code_ = -1;
};

}  // namespace basin
