// What the client does to a batch of rows before the socket: hashed, sorted, summed, written.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "worker/client/row_batch.h"

namespace basin {
namespace {

std::vector<uint64_t> Keys(size_t count, uint64_t different) {
  std::mt19937_64 random(1);
  std::vector<uint64_t> keys(count);
  for (uint64_t& key : keys) key = random() % different;
  return keys;
}

void BM_PushBatch(benchmark::State& state) {
  const auto count = static_cast<size_t>(state.range(0));
  const auto dim = static_cast<uint32_t>(state.range(2));
  const TablePlacement placement = TablePlacement::Make(1);
  const std::vector<uint64_t> keys = Keys(count, static_cast<uint64_t>(state.range(1)));
  std::vector<float> gradients(count * dim, 1);
  std::vector<char> message(count * (8 + dim * sizeof(float)));
  RowBatch batch;
  for (auto _ : state) {
    batch.Fill(placement, dim, keys, {});
    if (!batch.FindNotFinite(keys, {}, gradients.data()).empty()) state.SkipWithError("not finite");
    char* at = message.data();
    for (const RowBatch::Bucket& bucket : batch.buckets()) {
      batch.WriteKeys(bucket, 0, bucket.keys, at);
      at += bucket.keys * sizeof(uint64_t);
      batch.WriteGradients(bucket, 0, bucket.keys, gradients.data(), at);
      at += size_t{bucket.keys} * dim * sizeof(float);
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(count));
}
BENCHMARK(BM_PushBatch)
    ->ArgNames({"keys", "rows", "dim"})
    ->Args({8192, 10000, 16})
    ->Args({8192, 1000000, 16})
    ->Args({65536, 1000000, 16})
    ->Args({65536, 10000, 16})
    ->Args({8192, 1000000, 64});

void BM_Fill(benchmark::State& state) {
  const std::vector<uint64_t> keys = Keys(static_cast<size_t>(state.range(0)), 1000000);
  RowBatch batch;
  for (auto _ : state) batch.Fill(TablePlacement::Make(1), 16, keys, {});
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Fill)->ArgName("keys")->Arg(16)->Arg(8192)->Arg(65536);

void BM_Scatter(benchmark::State& state) {
  const auto count = static_cast<size_t>(state.range(0));
  RowBatch batch;
  batch.Fill(TablePlacement::Make(1), 16, Keys(count, 1000000), {});
  std::vector<char> answer(count * 64);
  std::vector<float> rows(count * 16);
  for (auto _ : state) {
    const char* at = answer.data();
    for (const RowBatch::Bucket& bucket : batch.buckets()) {
      batch.Scatter(bucket, 0, bucket.keys, at, rows.data());
      at += bucket.keys * 64;
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Scatter)->ArgName("keys")->Arg(8192)->Arg(65536);

}  // namespace
}  // namespace basin
