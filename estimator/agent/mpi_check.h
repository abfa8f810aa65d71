// Whether this node has the mpirun that a run with mpi needs: asks it, in a child.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "estimator/agent/forked_work.h"
#include "estimator/agent/messages.h"
#include "estimator/agent/task_command.h"

namespace basin {

class MpiCheck final {
 public:
  // Begins. `now`: of SteadyNow; a setup line or a file system that hangs is given up after a minute.
  static absl::StatusOr<MpiCheck> Start(const agent::CheckMpi& request, const Environment& inherited,
                                        const TaskSurroundings& surroundings, absl::Time now);

  pid_t pid() const { return work_.pid(); }
  int fd() const { return work_.fd(); }
  absl::Time deadline() const { return deadline_; }
  // Once, when it is known.
  std::optional<agent::MpiChecked> Poll(absl::Time now);

 private:
  MpiCheck(ForkedWork work, absl::Time deadline) : work_(std::move(work)), deadline_(deadline) {}
  ForkedWork work_;
  absl::Time deadline_;
};

}  // namespace basin
