// A lane's table in process: pushes and pulls of 10,000 keys beside a plain array that is read and written at the same
// random places; and how long pushes take while the table grows.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/random.h"
#include "common/base/status_macros.h"
#include "ps/block.h"
#include "ps/table/host_table.h"

namespace basin {
namespace {

constexpr uint32_t kDim = 16;
constexpr size_t kBatch = 10'000;
constexpr size_t kBatches = 128;
constexpr size_t kBucketKeys = 40;  // 10,000 keys in 256 buckets
constexpr float kRuleRate = std::numeric_limits<float>::quiet_NaN();
const absl::Time kNow = absl::FromUnixSeconds(1);

uint64_t KeyOf(uint64_t i) { return Mix64(i * 2 + 1); }

StoredTableOptions OptionsOf(uint32_t dim) {
  StoredTableOptions options;
  options.name = "bench";
  options.dim = dim;
  options.init = {.kind = InitKind::kUniform, .a = -0.05f, .b = 0.05f, .seed = 1};
  options.rule.learning_rate = 1e-6f;
  return options;
}

// Numbers below `rows`, each batch with different ones: evenly, or by Zipf's law with exponent 1.05 (then a number may
// stand in a batch once only, as a client sums repeated keys).
std::vector<uint64_t> Numbers(uint64_t rows, bool zipf) {
  Random random(5);
  std::vector<uint64_t> numbers;
  std::vector<uint64_t> batch;
  for (size_t b = 0; b < kBatches; ++b) {
    batch.clear();
    while (batch.size() < kBatch) {
      if (zipf) {
        // By the inverse of the integral of x^-1.05, near enough to the law.
        constexpr double kExponent = 1.05;
        const double most = std::pow(static_cast<double>(rows), 1 - kExponent);
        const double x = std::pow(1 - random.Unit() * (1 - most), 1 / (1 - kExponent));
        batch.push_back(std::min<uint64_t>(rows - 1, static_cast<uint64_t>(x) - 1));
      } else {
        batch.push_back(random.Below(rows));
      }
      if (batch.size() == kBatch && zipf) {
        std::sort(batch.begin(), batch.end());
        batch.erase(std::unique(batch.begin(), batch.end()), batch.end());
      }
      // The head of the law has fewer numbers than a batch: the rest are drawn evenly.
      if (zipf && batch.size() > kBatch / 2 && batch.size() < kBatch) {
        while (batch.size() < kBatch) batch.push_back(random.Below(rows));
      }
    }
    // In the order of a hash, as keys that were sorted by bucket are.
    std::sort(batch.begin(), batch.end(), [](uint64_t a, uint64_t b) { return Mix64(~a) < Mix64(~b); });
    numbers.insert(numbers.end(), batch.begin(), batch.end());
  }
  return numbers;
}

struct Workload {
  Workload(uint64_t rows, bool zipf) : numbers(Numbers(rows, zipf)), gradients(kBatch * kDim, 0.5f) {
    for (const uint64_t number : numbers) keys.push_back(KeyOf(number));
  }
  const char* Keys(size_t batch) const { return reinterpret_cast<const char*>(keys.data() + batch * kBatch); }
  const char* Gradients() const { return reinterpret_cast<const char*>(gradients.data()); }

  std::vector<uint64_t> numbers, keys;
  std::vector<float> gradients;
};

// The last one made is kept, as benchmarks run several times over.
const Workload& WorkloadOf(uint64_t rows, bool zipf) {
  static std::optional<Workload> kept;
  static std::pair<uint64_t, bool> kept_of;
  if (!kept || kept_of != std::pair(rows, zipf)) kept.emplace(rows, zipf);
  kept_of = {rows, zipf};
  return *kept;
}

void Fill(HostTable& table, uint64_t rows, uint32_t dim) {
  const std::vector<float> gradients(kBatch * dim, 1.0f);
  std::vector<uint64_t> keys(kBatch);
  for (uint64_t begin = 0; begin < rows; begin += kBatch) {
    const size_t n = std::min<uint64_t>(kBatch, rows - begin);
    for (size_t i = 0; i < n; ++i) keys[i] = KeyOf(begin + i);
    BASIN_CHECK(table
                    .Push(reinterpret_cast<const char*>(keys.data()), n,
                          reinterpret_cast<const char*>(gradients.data()), kRuleRate, kNow)
                    .ok());
  }
  BASIN_CHECK(table.counters().rows == rows);
}

// Likewise.
HostTable& TableOf(uint64_t rows) {
  static std::unique_ptr<HostTable> kept;
  if (kept == nullptr || kept->counters().rows != rows) {
    kept = nullptr;
    kept = std::make_unique<HostTable>(OptionsOf(kDim), BlockPool::Make(0));
    Fill(*kept, rows, kDim);
  }
  return *kept;
}

void Arguments(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "zipf", "bucket"});
  for (const int64_t rows : {10'000, 1'000'000, 10'000'000}) {
    bench->Args({rows, 0, 0})->Args({rows, 0, 1});
    if (rows == 1'000'000) bench->Args({rows, 1, 1});
  }
}

// bucket:1: in entries of 40 keys, as a lane gets them, each with advice of the next.
template <class Work>
void InEntries(bool by_bucket, const Work& work) {
  const size_t step = by_bucket ? kBucketKeys : kBatch;
  for (size_t begin = 0; begin < kBatch; begin += step) work(begin, std::min(step, kBatch - begin));
}

void BM_TablePush(benchmark::State& state) {
  const auto rows = static_cast<uint64_t>(state.range(0));
  const Workload& workload = WorkloadOf(rows, state.range(1) != 0);
  HostTable& table = TableOf(rows);
  size_t batch = 0;
  for (auto _ : state) {
    const char* keys = workload.Keys(batch);
    batch = (batch + 1) % kBatches;
    InEntries(state.range(2) != 0, [&](size_t begin, size_t n) {
      const size_t end = begin + n;
      if (end < kBatch) table.Prefetch(keys + end * 8, std::min(kBucketKeys, kBatch - end));
      BASIN_CHECK(table.Push(keys + begin * 8, n, workload.Gradients() + begin * kDim * 4, kRuleRate, kNow).ok());
    });
  }
  BASIN_CHECK(table.counters().rows == rows);
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kBatch));
}
BENCHMARK(BM_TablePush)->Apply(Arguments);

void BM_TablePull(benchmark::State& state) {
  const auto rows = static_cast<uint64_t>(state.range(0));
  const Workload& workload = WorkloadOf(rows, state.range(1) != 0);
  HostTable& table = TableOf(rows);
  std::vector<float> pulled(kBatch * kDim);
  size_t batch = 0;
  for (auto _ : state) {
    const char* keys = workload.Keys(batch);
    batch = (batch + 1) % kBatches;
    InEntries(state.range(2) != 0, [&](size_t begin, size_t n) {
      const size_t end = begin + n;
      if (end < kBatch) table.Prefetch(keys + end * 8, std::min(kBucketKeys, kBatch - end));
      table.Pull(keys + begin * 8, n, reinterpret_cast<char*>(pulled.data() + begin * kDim));
    });
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kBatch));
}
BENCHMARK(BM_TablePull)->Apply(Arguments);

// The limit: the row's number is the key. What is left is the memory's, with rows fetched 32 ahead.
void BM_ArrayPush(benchmark::State& state) {
  const auto rows = static_cast<uint64_t>(state.range(0));
  const Workload& workload = WorkloadOf(rows, state.range(1) != 0);
  const auto pool = BlockPool::Make(0);
  BlockRef block = pool->Allocate(rows * kDim * sizeof(float));
  float* array = block.mutable_floats();
  std::fill_n(array, rows * kDim, 0.0f);
  size_t batch = 0;
  for (auto _ : state) {
    const uint64_t* numbers = workload.numbers.data() + batch * kBatch;
    batch = (batch + 1) % kBatches;
    for (size_t i = 0; i < kBatch; ++i) {
      if (i + 32 < kBatch) __builtin_prefetch(array + numbers[i + 32] * kDim, 1);
      float* row = array + numbers[i] * kDim;
      const float* gradient = workload.gradients.data() + i * kDim;
      for (uint32_t k = 0; k < kDim; ++k) row[k] -= 1e-6f * gradient[k];
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kBatch));
}
BENCHMARK(BM_ArrayPush)
    ->ArgNames({"rows", "zipf"})
    ->Args({10'000, 0})
    ->Args({1'000'000, 0})
    ->Args({10'000'000, 0})
    ->Args({1'000'000, 1});

// Every push makes 10,000 rows. Once, from nothing to `rows`; times of pushes in microseconds.
void BM_TableGrowth(benchmark::State& state) {
  const auto rows = static_cast<uint64_t>(state.range(0));
  const auto dim = static_cast<uint32_t>(state.range(1));
  const std::vector<float> gradients(kBatch * dim, 1.0f);
  for (auto _ : state) {
    HostTable table(OptionsOf(dim), BlockPool::Make(0));
    std::vector<double> times;
    double overhead = 0;
    std::vector<uint64_t> keys(kBatch);
    for (uint64_t begin = 0; begin < rows; begin += kBatch) {
      for (size_t i = 0; i < kBatch; ++i) keys[i] = KeyOf(begin + i);
      const auto start = std::chrono::steady_clock::now();
      BASIN_CHECK(table
                      .Push(reinterpret_cast<const char*>(keys.data()), kBatch,
                            reinterpret_cast<const char*>(gradients.data()), kRuleRate, kNow)
                      .ok());
      times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
      overhead += static_cast<double>(table.counters().bytes) / static_cast<double>(begin + kBatch) - dim * 4.0;
    }
    BASIN_CHECK(table.counters().rows == rows);
    std::sort(times.begin(), times.end());
    const auto at = [&](double part) {
      return times[static_cast<size_t>(part * static_cast<double>(times.size() - 1))];
    };
    state.counters["p50_us"] = at(0.5);
    state.counters["p99_us"] = at(0.99);
    state.counters["max_us"] = times.back();
    state.counters["overhead_bytes_a_row"] = overhead / static_cast<double>(times.size());
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(rows));
}
BENCHMARK(BM_TableGrowth)
    ->ArgNames({"rows", "dim"})
    ->Args({50'000'000, 1})
    ->Args({50'000'000, 4})
    ->Args({10'000'000, 16})
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace basin
