// The limit of two processes on one host: round trips through a word of shared memory, spinning, or waking the other
// through an eventfd that it waits for with epoll.
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "bench/harness/statistics.h"
#include "bench/harness/task.h"
#include "common/base/files.h"

namespace basin::bench {
namespace {

// Each word on a line of its own, and the 64 bytes that are sent each way.
struct Shared {
  alignas(128) std::atomic<uint64_t> ping;
  char there[64];
  alignas(128) std::atomic<uint64_t> pong;
  char back[64];
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

constexpr uint64_t kEnd = UINT64_MAX;
constexpr int kWaitMs = 20000;

// spec: "side": "ping" or "pong"; descriptors of the memory ("memory") and of the two eventfds ("ping_fd", "pong_fd")
// that this process has inherited; "spin". A round of both sides goes together.
class SharedMemoryTask final : public Task {
 public:
  ~SharedMemoryTask() override {
    if (shared_ != nullptr) munmap(shared_, sizeof(Shared));
    if (epoll_ >= 0) close(epoll_);
  }

  absl::StatusOr<Json> Start(const Json& spec) override {
    pings_ = spec.value("side", "") == "ping";
    spin_ = spec.value("spin", true);
    const int ping = spec.value("ping_fd", -1), pong = spec.value("pong_fd", -1);
    mine_ = pings_ ? pong : ping;  // what this side waits for
    other_ = pings_ ? ping : pong;
    void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, spec.value("memory", -1), 0);
    if (memory == MAP_FAILED) return ErrnoStatus(errno, "map the shared memory of a round trip");
    shared_ = static_cast<Shared*>(memory);
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event = {.events = EPOLLIN, .data = {}};
    if (epoll_ < 0 || epoll_ctl(epoll_, EPOLL_CTL_ADD, mine_, &event) != 0)
      return ErrnoStatus(errno, "epoll of an eventfd");
    return Json::object();
  }

  absl::StatusOr<Json> Do(const Json& command) override {
    return pings_ ? Ping(command.value("seconds", 0.5)) : Pong();
  }

 private:
  absl::StatusOr<Json> Ping(double seconds) {
    LatencySample latencies;
    const Clock::time_point start = Clock::now();
    while (SecondsSince(start) < seconds) {
      const Clock::time_point sent = Clock::now();
      std::fill_n(shared_->there, sizeof(shared_->there), static_cast<char>(++sequence_));
      Tell(shared_->ping, sequence_);
      if (absl::Status status = Await(shared_->pong, sequence_); !status.ok()) return status;
      latencies.Add(SecondsSince(sent) * 1e6);
    }
    Tell(shared_->ping, kEnd);
    if (absl::Status status = Await(shared_->pong, kEnd); !status.ok()) return status;
    Tell(shared_->ping, sequence_);
    return Json{{"p50_us", Percentile(latencies.values(), 0.5)}, {"p99_us", Percentile(latencies.values(), 0.99)}};
  }

  absl::StatusOr<Json> Pong() {
    while (true) {
      uint64_t found = 0;
      if (absl::Status status = Await(shared_->ping, sequence_ + 1, &found); !status.ok()) return status;
      if (found == kEnd) break;
      sequence_ = found;
      std::copy_n(shared_->there, sizeof(shared_->back), shared_->back);
      Tell(shared_->pong, sequence_);
    }
    Tell(shared_->pong, kEnd);
    if (absl::Status status = Await(shared_->ping, sequence_); !status.ok()) return status;
    shared_->pong.store(sequence_, std::memory_order_release);
    return Json::object();
  }

  void Tell(std::atomic<uint64_t>& word, uint64_t value) {
    word.store(value, std::memory_order_release);
    const uint64_t one = 1;
    if (!spin_) (void)!write(other_, &one, sizeof(one));
  }

  // Until the word is `wanted` or says the end.
  absl::Status Await(std::atomic<uint64_t>& word, uint64_t wanted, uint64_t* found = nullptr) {
    for (uint64_t tries = 0;; ++tries) {
      const uint64_t value = word.load(std::memory_order_acquire);
      if (value == wanted || (found != nullptr && value == kEnd)) {
        if (found != nullptr) *found = value;
        return absl::OkStatus();
      }
      if (spin_) {
        __builtin_ia32_pause();
        if (tries < (uint64_t{1} << 33)) continue;
        return absl::DeadlineExceededError("the other side of a round trip has gone");
      }
      epoll_event event;
      const int ready = epoll_wait(epoll_, &event, 1, kWaitMs);
      if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, "epoll_wait");
      if (ready == 0) return absl::DeadlineExceededError("the other side of a round trip has gone");
      uint64_t count;
      if (ready > 0) (void)!read(mine_, &count, sizeof(count));
    }
  }

  bool pings_ = false, spin_ = true;
  int mine_ = -1, other_ = -1, epoll_ = -1;
  Shared* shared_ = nullptr;
  uint64_t sequence_ = 0;
};

}  // namespace

std::unique_ptr<Task> MakeSharedMemoryTask() { return std::make_unique<SharedMemoryTask>(); }

}  // namespace basin::bench
