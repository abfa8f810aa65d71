#include "ps/lane_thread.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

// How long queued answers may take to leave when a lane ends.
constexpr absl::Duration kFlush = absl::Seconds(2);
// Messages that wait are taken before anybody is declared dead: a lane that was stopped for a while has not heard what
// is in its queue. But not for ever.
constexpr absl::Duration kDrainMost = absl::Seconds(1);

LaneCoreOptions OptionsFor(wire::Listener& listener, LaneCoreOptions options) {
  options.peer_process = [&listener](wire::PeerId peer) { return listener.PeerProcess(peer); };
  options.inline_below = [&listener](wire::PeerId peer) { return listener.inline_below(peer); };
  return options;
}

}  // namespace

absl::Time SteadyNow() {
  using std::chrono::steady_clock;
  static const std::pair<absl::Time, steady_clock::time_point> start{absl::Now(), steady_clock::now()};
  return start.first + absl::FromChrono(steady_clock::now() - start.second);
}

LaneThread::LaneThread(std::unique_ptr<wire::Listener> listener, LaneCoreOptions options,
                       std::function<void()> on_finished, std::function<void(absl::Status)> on_failed)
    : listener_(std::move(listener)),
      address_(listener_->address()),
      counters_(options.counters),
      core_(OptionsFor(*listener_, std::move(options))),
      on_finished_(std::move(on_finished)),
      on_failed_(std::move(on_failed)) {
  BASIN_CHECK(counters_ != nullptr);
  Publish();
}

LaneThread::~LaneThread() {
  End(absl::InfinitePast());
  Join();
}

void LaneThread::Start() {
  thread_ = std::thread([this] { Run(); });
}

void LaneThread::End(absl::Time deadline) {
  end_at_nanos_ = absl::ToUnixNanos(deadline);
  listener_->Wake();
}

void LaneThread::Join() {
  if (thread_.joinable()) thread_.join();
}

std::vector<TaskId> LaneThread::missing() const {
  MutexLock lock(mutex_);
  return missing_;
}

void LaneThread::Publish() {
  std::vector<TaskId> missing = core_.missing();
  run_over_ = core_.run_over();
  MutexLock lock(mutex_);
  missing_ = std::move(missing);
}

void LaneThread::SendAll(std::vector<Reply> replies) {
  for (Reply& reply : replies) {
    const absl::Status status = listener_->Send(reply.peer, std::move(reply.message));
    // A peer that is gone asks again on a new channel. One that does not read gets nothing more, and its client dials
    // anew.
    if (!status.ok() && status.code() != absl::StatusCode::kUnavailable && ++sends_failed_ == 1) {
      Warn(absl::StrCat("an answer could not be sent: ", status.message(),
                        " (further ones are dropped without a line)"));
    }
  }
}

void LaneThread::CountTransports() {
  const wire::TransportCounts counts = listener_->counts();
  counters_->tcp_connections.Set(counts.tcp_connections);
  counters_->shm_connections.Set(counts.shm_connections);
  counters_->shm_bytes_in.Set(counts.shm_bytes_in);
  counters_->shm_bytes_out.Set(counts.shm_bytes_out);
}

void LaneThread::Run() {
  bool told = false, told_failure = false;
  absl::Time busy_since = SteadyNow();
  uint64_t sessions_seen = ~uint64_t{0};
  bool over_seen = false;
  while (true) {
    absl::Time now = SteadyNow();
    const int64_t end_at_nanos = end_at_nanos_;
    const absl::Time end_at = end_at_nanos == std::numeric_limits<int64_t>::max() ? absl::InfiniteFuture()
                                                                                  : absl::FromUnixNanos(end_at_nanos);
    if (now >= end_at || (end_at != absl::InfiniteFuture() && core_.finished(now))) break;
    const absl::Time wake = std::min(core_.next_wake(), end_at);
    counters_->busy_us.Add(static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Microseconds(now - busy_since))));
    // The listener waits by the system's clock.
    std::unique_ptr<wire::Received> received = listener_->Receive(
        wake == absl::InfiniteFuture() ? wake : absl::Now() + std::max(absl::ZeroDuration(), wake - now));
    now = busy_since = SteadyNow();
    if (received) SendAll(core_.OnMessage(received->peer, std::move(received->message), now));
    received.reset();
    if (now >= core_.next_wake()) {
      // Only when the queue is empty, see kDrainMost.
      const absl::Time until = now + kDrainMost;
      while (now < until && (received = listener_->Receive(absl::InfinitePast()))) {
        SendAll(core_.OnMessage(received->peer, std::move(received->message), now));
        now = SteadyNow();
      }
      SendAll(core_.OnTime(now));
    }
    CountTransports();
    for (const std::string& note : core_.TakeNotes()) Info(note);
    if (counters_->sessions.value() != sessions_seen || core_.run_over() != over_seen) {
      sessions_seen = counters_->sessions.value();
      over_seen = core_.run_over();
      Publish();
    }
    if (!told_failure && !core_.failure().ok()) {
      told_failure = true;
      on_failed_(core_.failure());
    }
    if (!told && on_finished_ && core_.run_over() && core_.finished(now)) {
      told = true;
      on_finished_();
    }
  }
  listener_->Close(absl::Now() + kFlush);
}

}  // namespace basin
