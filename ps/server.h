// A ps process at work: its lanes on their threads, over a transport.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cluster_spec/cluster_view.h"
#include "common/base/mutex.h"
#include "common/wire/transport.h"
#include "common/wire/wake_fd.h"
#include "ps/block.h"
#include "ps/device/ps_device.h"
#include "ps/lane_counters.h"
#include "ps/lane_thread.h"
#include "ps/ps_metrics.h"

namespace basin {

struct ServerOptions {
  ClusterView view;    // of this task; REQUIRES: self_ps
  std::string run_id;  // empty: ps 0 makes one, others take the first Hello's
  std::string token;   // empty: the network is trusted
  std::string host;    // of this machine, for messages
  uint32_t lanes = 1;
  size_t memory_limit_bytes = 0;     // of shards' blocks; 0: none
  std::shared_ptr<PsDevice> device;  // whose memory holds the shards of variables; none: the host's
  absl::Duration heartbeat = absl::Seconds(1);
  absl::Duration dead_after = absl::Seconds(10);
  absl::Duration finish_grace = absl::Seconds(60);
  std::optional<uint16_t> metrics_port;
  std::string metrics_host = "0.0.0.0";
};

class Server final {
 public:
  // Makes the listener of a lane; lane 0's is on TF_CONFIG's address, the others' are anywhere on the same machine.
  using Listen = std::function<absl::StatusOr<std::unique_ptr<wire::Listener>>(uint32_t lane)>;

  // Binds every lane, then starts them. An error says which lane and why; nothing runs then.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options, const Listen& listen);
  // Ends it at once.
  ~Server();

  // Readable once the run has ended here (docs/wire.md, "the end"), or this ps cannot go on. Drained by nobody: it
  // stays so.
  int finished_fd() const { return finished_.fd(); }
  // Ends the lanes: what is queued is sent; clients get a moment to say Goodbye where the run is over.
  void End();

  const std::string& address() const { return address_; }
  const std::string& run_id() const { return run_id_; }
  std::optional<uint16_t> metrics_port() const;
  // Tasks that TF_CONFIG names and that have not said Hello yet.
  std::vector<TaskId> missing() const { return lanes_[0]->missing(); }
  bool run_over() const { return lanes_[0]->run_over(); }
  // Why this ps cannot go on.
  absl::Status failure() const;
  // "600 updates applied to 3 shards, 2 refused, 1.2 MiB in, 1.1 MiB out"
  std::string Summary() const;

 private:
  Server() = default;

  std::string address_, run_id_;
  wire::WakeFd finished_;
  mutable Mutex mutex_;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);  // the first lane's that had one
  std::vector<std::shared_ptr<LaneCounters>> counters_;
  std::unique_ptr<PsMetrics> metrics_;
  std::vector<std::unique_ptr<LaneThread>> lanes_;  // after what their threads use
};

}  // namespace basin
