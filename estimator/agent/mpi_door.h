// Where what mpirun has started meets the agent of its node: a Unix socket in the node's folder.
//
//   mpirun ──▶ basin mpi-daemon ──MpiCall──▶ agent ──DaemonWanted──▶ supervisor ──StartTask──▶ agent of the node ──▶
//   orted mpirun, orted ──▶ basin mpi-rank ──MpiCall──▶ agent ──guard──▶ rank
//
// A rank is thus a task like any other: its guard, its tree, its log and its end are the agent's. mpirun knows it by
// the stand-in, which holds its connection until the rank has ended.
#pragma once

#include <poll.h>

#include <list>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"
#include "estimator/agent/channel.h"
#include "estimator/agent/messages.h"
#include "estimator/agent/node_folder.h"

namespace basin {

class MpiDoor final {
 public:
  static absl::StatusOr<MpiDoor> Open(const NodeFolder& folder);
  MpiDoor(MpiDoor&&) = default;

  void AddWaits(std::vector<pollfd>* waits) const;
  // Goes on with whatever has come; the calls that are now whole.
  std::vector<agent::MpiCall> Poll();
  // To whoever has called for that rank, or that daemon; no effect where nobody has, or has gone.
  void AnswerRank(uint32_t rank, int code, const std::string& problem);
  void AnswerDaemon(uint32_t node, const std::string& problem);

 private:
  struct Caller {
    UniqueFd fd;
    FrameReader reader;
    std::optional<agent::MpiCall> call;
  };

  explicit MpiDoor(UniqueFd listener) : listener_(std::move(listener)) {}
  void Accept();
  // False: it is gone, or speaks nonsense.
  static bool Read(Caller* caller, std::vector<agent::MpiCall>* calls);

  UniqueFd listener_;
  std::list<Caller> callers_;
};

// The other side, in `basin mpi-rank` and `basin mpi-daemon`: calls the agent whose folder is `node_folder` and waits
// for its answer. UNAVAILABLE where there is no agent, or it has gone.
absl::StatusOr<agent::MpiAnswer> CallAgent(const std::string& node_folder, const agent::MpiCall& call);

}  // namespace basin
