// Work that may take long or hang (a dead file server), done by a child, so that the agent goes on answering.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/unique_fd.h"
#include "estimator/agent/process_tree.h"

namespace basin {

// Where the child finds the descriptor that it was given.
inline constexpr int kForkedWorkFd = 4;

// The owner has one thread, and reaps the child itself.
class ForkedWork final {
 public:
  // `work` runs in a child that has no descriptor of this process's but the standard ones and `given` (-1: none); use
  // paths. What it returns comes back, at most 1 MiB. The child ends with this object and with this process, and so
  // does what it has started.
  static absl::StatusOr<ForkedWork> Start(const std::function<std::string()>& work, int given = -1);
  ForkedWork(ForkedWork&& other) noexcept;
  ForkedWork& operator=(ForkedWork&& other) noexcept;
  ~ForkedWork();

  pid_t pid() const { return pid_; }
  // Readable when Poll may have the result.
  int fd() const { return pipe_.get(); }
  // nullopt: it still works. ABORTED where the child ended without a result. Once only.
  std::optional<absl::StatusOr<std::string>> Poll();

 private:
  ForkedWork() = default;
  pid_t pid_ = 0;
  UniqueFd handle_;  // a pidfd: the child may have been reaped, and its number given away
  UniqueFd pipe_;
  std::string text_;
};

// Whether this is a child of a ForkedWork that is gone, or was started by one, which was killed a while ago and does
// not die (a hung file system or driver holds it): nothing is gained by waiting for its end. One thread.
bool IsGivenUp(const ProcessRef& process, absl::Time now);

}  // namespace basin
