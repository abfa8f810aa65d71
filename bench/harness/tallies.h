// What every worker of a stress run has sent and what was acknowledged, in memory that outlives a killed process.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <utility>

#include "absl/status/statusor.h"
#include "bench/harness/stress_plan.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin::bench {

class Tallies final {
 public:
  using Counter = std::atomic<uint64_t>;
  static_assert(Counter::is_always_lock_free);

  // New and zero, in a memfd that children inherit by its number.
  static absl::StatusOr<Tallies> Make(const StressPlan& plan) {
    const int fd = memfd_create("basin-bench-tallies", MFD_CLOEXEC);
    if (fd < 0) return ErrnoStatus(errno, "memfd_create");
    BASIN_ASSIGN_OR_RETURN(Tallies tallies, Map(plan, fd, /*make=*/true));
    return tallies;
  }
  // Those of the parent. Takes the descriptor.
  static absl::StatusOr<Tallies> Inherit(const StressPlan& plan, int fd) { return Map(plan, fd, /*make=*/false); }

  Tallies(Tallies&& other) noexcept
      : width_(other.width_),
        fd_(std::exchange(other.fd_, -1)),
        bytes_(other.bytes_),
        counters_(std::exchange(other.counters_, nullptr)) {}
  Tallies& operator=(Tallies&&) = delete;
  ~Tallies() {
    if (counters_ != nullptr) munmap(counters_, bytes_);
    if (fd_ >= 0) close(fd_);
  }

  int fd() const { return fd_; }
  // i as in Tally.
  Counter& sent(uint32_t worker, uint32_t i) { return counters_[(2 * size_t{worker}) * width_ + i]; }
  Counter& acknowledged(uint32_t worker, uint32_t i) { return counters_[(2 * size_t{worker} + 1) * width_ + i]; }
  std::vector<Tally> Read(uint32_t workers) {
    std::vector<Tally> all(workers);
    for (uint32_t worker = 0; worker < workers; ++worker) {
      for (uint32_t i = 0; i < width_; ++i) {
        all[worker].sent.push_back(sent(worker, i).load());
        all[worker].acknowledged.push_back(acknowledged(worker, i).load());
      }
    }
    return all;
  }

 private:
  Tallies(uint32_t width, int fd, size_t bytes, Counter* counters)
      : width_(width), fd_(fd), bytes_(bytes), counters_(counters) {}
  static absl::StatusOr<Tallies> Map(const StressPlan& plan, int fd, bool make) {
    const uint32_t width = 1 + plan.shared();
    const size_t bytes = 2 * size_t{plan.options().workers} * width * sizeof(Counter);
    if (make && ftruncate(fd, static_cast<off_t>(bytes)) != 0) return ErrnoStatus(errno, "ftruncate of the tallies");
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) return ErrnoStatus(errno, "map the tallies");
    return Tallies(width, fd, bytes, static_cast<Counter*>(memory));
  }

  uint32_t width_;
  int fd_;
  size_t bytes_;
  Counter* counters_;
};

}  // namespace basin::bench
