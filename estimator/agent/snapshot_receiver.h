// Snapshots as they come from a supervisor, and those that the run's tasks are made from. Children wait for the disk
// and remove what is old.
#pragma once

#include <poll.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "estimator/agent/forked_work.h"
#include "estimator/agent/messages.h"
#include "estimator/snapshot/unpack.h"

namespace basin {

class SnapshotReceiver final {
 public:
  explicit SnapshotReceiver(std::string base) : base_(std::move(base)) {}

  // Whether the node has it; where it lacks it, entries and data may follow. The answer always says something.
  agent::SnapshotState Offer(const agent::OfferSnapshot& offer);
  // The transfer of what was offered. An answer comes once: from Poll after the end, or as soon as it fails, after
  // which the rest of the transfer is taken and dropped. INVALID_ARGUMENT where nothing was offered: the peer does not
  // keep to the order.
  absl::StatusOr<std::optional<agent::SnapshotState>> Entry(const agent::TreeEntry& entry);
  absl::StatusOr<std::optional<agent::SnapshotState>> Data(const std::string& bytes);
  absl::StatusOr<std::optional<agent::SnapshotState>> End();
  // The answer once what has come is on the disk, and in use.
  std::optional<agent::SnapshotState> Poll();
  void AddWaits(std::vector<pollfd>* waits) const;
  // Children of this process that belong here.
  void AddChildren(std::vector<pid_t>* pids) const;
  // The supervisor is gone: what was not finished is removed.
  void Abandon();

  // Folder of a snapshot that this run has taken. NOT_FOUND otherwise.
  absl::StatusOr<std::string> PathOf(const std::string& digest) const;

 private:
  absl::StatusOr<std::optional<agent::SnapshotState>> After(const absl::Status& status);
  void Drop();
  void Prune();

  const std::string base_;
  std::string offered_;                         // digest of the transfer under way
  std::unique_ptr<SnapshotUnpacker> unpacker_;  // null in a transfer: it has failed
  struct Sync {
    std::string digest;
    ForkedWork work;
  };
  std::optional<Sync> sync_;  // of unpacker_, which is whole
  std::optional<ForkedWork> pruning_;
  std::map<std::string, SnapshotUse> in_use_;  // by digest
};

}  // namespace basin
