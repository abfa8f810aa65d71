// Limits of memory: memcpy, d[i] += s[i], and as many streams as a rule reads and writes, with some threads.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/harness/huge_array.h"
#include "bench/harness/task.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

// For each processor what its vectors can do, so that the limit is the machine's and not that of the oldest one.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define BASIN_BENCH_VECTORS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define BASIN_BENCH_VECTORS
#endif

BASIN_BENCH_VECTORS void Add1(size_t n, const float* __restrict s, float* __restrict a) {
  for (size_t i = 0; i < n; ++i) a[i] += s[i];
}
BASIN_BENCH_VECTORS void Add2(size_t n, const float* __restrict s, float* __restrict a, float* __restrict b) {
  for (size_t i = 0; i < n; ++i) {
    a[i] += s[i];
    b[i] += s[i];
  }
}
BASIN_BENCH_VECTORS void Add3(size_t n, const float* __restrict s, float* __restrict a, float* __restrict b,
                              float* __restrict c) {
  for (size_t i = 0; i < n; ++i) {
    a[i] += s[i];
    b[i] += s[i];
    c[i] += s[i];
  }
}

// spec: "op": "copy" or "add", "bytes": of one array of each thread, "threads", "targets": arrays that are added to (1
// to 3: what SGD, momentum and Adagrad, Adam do), "huge": laid out as huge_array.h says, else as any program's. A round
// answers with payload bytes: those of the source array.
class MemoryTask final : public Task {
 public:
  absl::StatusOr<Json> Start(const Json& spec) override {
    copy_ = spec.value("op", "add") == "copy";
    targets_ = spec.value("targets", 1);
    const size_t floats = spec.value("bytes", uint64_t{1} << 20) / sizeof(float);
    if (targets_ < 1 || targets_ > 3 || floats == 0) return absl::InvalidArgumentError("a memory task without arrays");
    const bool huge = spec.value("huge", false);
    arrays_.resize(static_cast<size_t>(std::max(1, spec.value("threads", 1))));
    for (auto& own : arrays_) {
      for (size_t i = 0; i < static_cast<size_t>(targets_) + 1; ++i) {
        if (huge) {
          BASIN_ASSIGN_OR_RETURN(HugeArray array, HugeArray::Make(floats, i, 1.0f));
          own.push_back(array.floats());
          huge_.push_back(std::move(array));
        } else {
          own.push_back(absl::MakeSpan(plain_.emplace_back(floats, 1.0f)));
        }
      }
    }
    return Json::object();
  }

  absl::StatusOr<Json> Do(const Json& command) override {
    const double seconds = command.value("seconds", 0.5);
    std::atomic<uint64_t> bytes = 0;
    std::vector<std::thread> threads;
    const Clock::time_point start = Clock::now();
    for (auto& own : arrays_) {
      threads.emplace_back([&] {
        uint64_t done = 0;
        do {
          Pass(own);
          done += own[0].size() * sizeof(float);
        } while (SecondsSince(start) < seconds);
        bytes += done;
      });
    }
    for (std::thread& thread : threads) thread.join();
    return Json{{"bytes", bytes.load()}, {"seconds", SecondsSince(start)}};
  }

 private:
  void Pass(const std::vector<absl::Span<float>>& own) {
    const size_t n = own[0].size();
    if (copy_)
      std::memcpy(own[1].data(), own[0].data(), n * sizeof(float));
    else if (targets_ == 1)
      Add1(n, own[0].data(), own[1].data());
    else if (targets_ == 2)
      Add2(n, own[0].data(), own[1].data(), own[2].data());
    else
      Add3(n, own[0].data(), own[1].data(), own[2].data(), own[3].data());
    asm volatile("" : : "r"(own[1].data()) : "memory");  // what was written counts as read
  }

  bool copy_ = false;
  int targets_ = 1;
  std::vector<HugeArray> huge_;
  std::deque<std::vector<float>> plain_;
  std::vector<std::vector<absl::Span<float>>> arrays_;  // of each thread: the source, then the targets
};

}  // namespace

std::unique_ptr<Task> MakeMemoryTask() { return std::make_unique<MemoryTask>(); }

}  // namespace basin::bench
