#include "ps/lane_blocks.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin {

absl::StatusOr<wire::v1::DeviceBlockLent> LaneBlocks::Lend(const Session& session, const wire::v1::DeviceBlock& asked) {
  if (device_ == nullptr || device_->id().empty() || asked.device_id() != device_->id()) {
    return absl::FailedPreconditionError("its shards are not on that device");
  }
  std::shared_ptr<LentBlock> block = Of(session);
  if (block == nullptr) {
    if (!peer_process_) return absl::FailedPreconditionError("it does not know which process the client is");
    BASIN_ASSIGN_OR_RETURN(UniqueFd process, peer_process_(session.peer));
    BASIN_ASSIGN_OR_RETURN(block, device_->Lend(asked.bytes(), std::move(process)));
    std::erase_if(lent_, [](const auto& lent) { return lent.second.block.expired(); });
    lent_[session.key()] = {session.incarnation, session.client_id, block};
  }
  wire::v1::DeviceBlockLent lent;
  lent.set_handle(block->handle());
  lent.set_bytes(block->bytes());
  return lent;
}

std::shared_ptr<LentBlock> LaneBlocks::Of(const Session& session) const {
  const auto at = lent_.find(session.key());
  if (at == lent_.end()) return nullptr;
  const Lent& lent = at->second;
  return lent.incarnation == session.incarnation && lent.client_id == session.client_id ? lent.block.lock() : nullptr;
}

void LaneBlocks::Closed(const Session& session) {
  if (const std::shared_ptr<LentBlock> block = Of(session); block != nullptr) block->Closed();
}

}  // namespace basin
