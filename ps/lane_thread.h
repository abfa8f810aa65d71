// One lane at work: a thread that carries messages between a Listener and a LaneCore.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cluster_spec/cluster_spec.h"
#include "common/base/mutex.h"
#include "common/wire/transport.h"
#include "ps/lane_core.h"

namespace basin {

// The system's clock at the program's start, and from there without its jumps: a corrected clock kills nobody.
absl::Time SteadyNow();

class LaneThread {
 public:
  // Each is called once at most, from the lane's thread: `on_finished` when the core says that it is finished (lane 0;
  // may be empty), `on_failed` when it says that it cannot go on.
  LaneThread(std::unique_ptr<wire::Listener> listener, LaneCoreOptions options, std::function<void()> on_finished,
             std::function<void(absl::Status)> on_failed);
  // Ends the lane.
  ~LaneThread();

  void Start();
  // From any thread. The lane ends once its clients have left, at the latest at `deadline`; what is queued is sent
  // first.
  void End(absl::Time deadline);
  void Join();

  std::string address() const { return address_; }
  // From any thread: what the core's missing() was a moment ago, and the run.
  std::vector<TaskId> missing() const;
  bool run_over() const { return run_over_; }

 private:
  void Run();
  void SendAll(std::vector<Reply> replies);
  void Publish();
  void CountTransports();

  const std::unique_ptr<wire::Listener> listener_;
  const std::string address_;
  const std::shared_ptr<LaneCounters> counters_;
  LaneCore core_;  // of the lane's thread once it runs
  const std::function<void()> on_finished_;
  const std::function<void(absl::Status)> on_failed_;
  std::atomic<int64_t> end_at_nanos_{std::numeric_limits<int64_t>::max()};  // since the epoch; the largest: not to end
  std::atomic<bool> run_over_{false};
  std::thread thread_;
  uint64_t sends_failed_ = 0;
  mutable Mutex mutex_;
  std::vector<TaskId> missing_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace basin
