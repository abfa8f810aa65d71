// Which block of its device's memory a lane has lent to which client, and what a message may name in it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/base/unique_fd.h"
#include "common/wire/control.pb.h"
#include "common/wire/transport.h"
#include "ps/lent_block.h"
#include "ps/session_table.h"
#include "ps/shard_device.h"

namespace basin {

// Not thread-safe: its lane's.
class LaneBlocks {
 public:
  using PeerProcess = std::function<absl::StatusOr<UniqueFd>(wire::PeerId)>;

  // `device` may be nullptr, `peer_process` empty: then nothing is lent.
  LaneBlocks(std::shared_ptr<ShardDevice> device, PeerProcess peer_process)
      : device_(std::move(device)), peer_process_(std::move(peer_process)) {}

  // To this life of the client; the one that it has, where it asks again. FAILED_PRECONDITION: no such device here, or
  // it is not known which process the client is; other errors as ShardDevice::Lend.
  absl::StatusOr<wire::v1::DeviceBlockLent> Lend(const Session& session, const wire::v1::DeviceBlock& asked);
  // nullptr: none. Held by the caller while the block is used.
  std::shared_ptr<LentBlock> Of(const Session& session) const;
  // The client has closed what it had opened.
  void Closed(const Session& session);

 private:
  struct Lent {
    Incarnation incarnation;
    std::string client_id;
    std::weak_ptr<LentBlock> block;  // held by the device, as long as the client's process lives
  };

  const std::shared_ptr<ShardDevice> device_;
  const PeerProcess peer_process_;
  std::map<ClientKey, Lent> lent_;
};

}  // namespace basin
