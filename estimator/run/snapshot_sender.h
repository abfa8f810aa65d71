// A staged snapshot as the messages that carry it to one node: each entry, the bytes of its files, the end.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"
#include "estimator/agent/agent.pb.h"
#include "estimator/snapshot/unpack.h"

namespace basin {

class SnapshotSender {
 public:
  // `snapshot` must outlive this.
  explicit SnapshotSender(const StagedSnapshot* snapshot) : snapshot_(*snapshot) {}

  struct Part {
    estimator::v1::ToAgent message;
    size_t data_bytes = 0;
  };
  // The next message, in order. After the one with tree_end there is none.
  absl::StatusOr<Part> Next();
  bool done() const { return done_; }
  uint64_t sent_bytes() const { return sent_; }

 private:
  const StagedSnapshot& snapshot_;
  size_t entry_ = 0;
  UniqueFd file_;
  uint64_t left_ = 0;  // of the file
  uint64_t sent_ = 0;
  bool done_ = false;
};

// What an offer says of it.
estimator::v1::ToAgent OfferOf(const StagedSnapshot& snapshot);

}  // namespace basin
