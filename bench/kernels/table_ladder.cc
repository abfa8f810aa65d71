// Finds and inserts in embedding tables: ps/table and ps/table/device.
#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/kernels/ladder.h"
#include "bench/kernels/naive_kernels.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_memory.h"
#include "ps/block.h"
#include "ps/table/device/cuda_table.h"
#include "ps/table/host_table.h"

namespace basin {
namespace {

constexpr uint32_t kRowDim = 64;
constexpr uint64_t kBatch = 4'000'000;     // keys of a call
constexpr uint64_t kHostRows = 2'000'000;  // of the host's table
constexpr uint64_t kComparedRows = 4096;       // rows
constexpr double kLoad = 0.5;              // rows of the numbers that there are: none is refused
constexpr double kMemory = 0.7;            // of what is free
constexpr uint64_t kSeed = 11;
// Bytes that a key must move: itself, the smallest piece of memory with a key in the index, and its row.
constexpr double kFindBytes = 8 + 32 + 2 * 4 * kRowDim;    // the row is read and written
constexpr double kInsertBytes = 8 + 2 * 32 + 4 * kRowDim;  // the index is read and written, the row is written

StoredTableOptions Options(uint64_t max_bytes) {
  StoredTableOptions options;
  options.name = "ladder";
  options.dim = kRowDim;
  options.init = {.kind = InitKind::kUniform, .a = -0.05f, .b = 0.05f, .seed = 3};
  options.max_bytes = max_bytes;
  return options;
}

absl::Status SameRows(const std::vector<float>& rows, uint64_t count, uint64_t table_rows) {
  std::vector<float> expected(kRowDim);
  for (uint64_t i = 0; i < count; ++i) {
    FillRow(Options(0).init, FoundKeyAt(kSeed, i, table_rows), absl::MakeSpan(expected));
    if (std::memcmp(&rows[i * kRowDim], expected.data(), kRowDim * sizeof(float)) == 0) continue;
    return absl::InternalError(absl::StrCat("row ", i, " of the batch is not that of its key"));
  }
  return absl::OkStatus();
}

absl::Status RunOnHost(Ladders& ladders, const LadderStep& step) {
  const uint64_t count = std::min(ladders.options().rows, kHostRows);
  HostTable table(Options(0), BlockPool::Make(size_t{8} << 30));
  std::vector<uint64_t> keys(count);
  for (uint64_t i = 0; i < count; ++i) keys[i] = TableKeyAt(i);
  std::vector<float> rows(count * kRowDim, 0.0f);  // gradients first: the table's rows stay as they begin
  const auto* of_keys = reinterpret_cast<const char*>(keys.data());
  BASIN_RETURN_IF_ERROR(
      table.Push(of_keys, count, reinterpret_cast<const char*>(rows.data()), 0.0f, absl::UnixEpoch()));
  for (uint64_t i = 0; i < count; ++i) keys[i] = FoundKeyAt(kSeed, i, count);
  LadderStep cpu = step;
  cpu.ladder = absl::StrCat("table_find/dim:", kRowDim, "/rows:", count);
  cpu.name = "cpu";
  cpu.gain = "one thread: keys looked for 64 at a time, with their memory fetched ahead";
  cpu.on_device = false;
  cpu.items = static_cast<double>(count);
  cpu.bytes = cpu.items * kFindBytes;
  cpu.work = [&] {
    table.Pull(of_keys, count, reinterpret_cast<char*>(rows.data()));
    return absl::OkStatus();
  };
  cpu.check = [&] { return SameRows(rows, std::min(count, kComparedRows), count); };
  return ladders.Run(cpu);
}

// A device's table as its kernels see it, without the class around them, so that the naive kernel has the same one.
struct OnDevice {
  CudaMemory keys, stamps, reserved, rows, tally, batch, numbers, pulled;
  CudaKeyIndex index;
  CudaRowStart start;
  uint64_t count = 0;  // rows

  absl::Status Make(Ladders& ladders) {
    const StoredTableOptions options = Options(0);
    const CudaRowLayout layout = MakeCudaRowLayout(options.rule, options.storage, options.dim);
    size_t free = 0, total = 0;
    BASIN_RETURN_IF_ERROR(CheckCuda(cudaMemGetInfo(&free, &total), "ask for free memory"));
    const double each = layout.stride + 12;
    count = std::min(ladders.options().rows, static_cast<uint64_t>(static_cast<double>(free) * kMemory * kLoad / each));
    index.numbers =
        static_cast<uint32_t>(static_cast<double>(count) / kLoad / CudaKeyIndex::kBucket + 1) * CudaKeyIndex::kBucket;
    const uint64_t all = uint64_t{index.numbers} + CudaKeyIndex::kReserved, a_batch = std::min(kBatch, count);
    const auto take = [](CudaMemory* memory, uint64_t bytes) { return memory->Resize("cuda", bytes); };
    BASIN_RETURN_IF_ERROR(take(&keys, uint64_t{index.numbers} * sizeof(uint64_t)));
    BASIN_RETURN_IF_ERROR(take(&stamps, all * sizeof(uint32_t)));
    BASIN_RETURN_IF_ERROR(take(&reserved, CudaKeyIndex::kReserved * sizeof(uint32_t)));
    BASIN_RETURN_IF_ERROR(take(&rows, all * layout.stride));
    BASIN_RETURN_IF_ERROR(take(&tally, sizeof(CudaTableTally)));
    BASIN_RETURN_IF_ERROR(take(&batch, a_batch * sizeof(uint64_t)));
    BASIN_RETURN_IF_ERROR(take(&numbers, a_batch * sizeof(uint32_t)));
    BASIN_RETURN_IF_ERROR(take(&pulled, a_batch * kRowDim * sizeof(float)));
    index.keys = keys.as<uint64_t>();
    index.stamps = stamps.as<uint32_t>();
    index.reserved = reserved.as<uint32_t>();
    start.init = options.init;
    start.layout = layout;
    start.rows = rows.as<char>();
    return absl::OkStatus();
  }
  // Without rows.
  absl::Status Clear(cudaStream_t stream) {
    BASIN_RETURN_IF_ERROR(CheckCuda(cudaMemsetAsync(keys.data(), 0xff, keys.bytes(), stream), "clear"));
    BASIN_RETURN_IF_ERROR(CheckCuda(cudaMemsetAsync(reserved.data(), 0, reserved.bytes(), stream), "clear"));
    return CheckCuda(cudaMemsetAsync(tally.data(), 0, tally.bytes(), stream), "clear");
  }
  absl::Status FindOrInsertBatch(cudaStream_t stream, uint64_t batch_count) {
    return CheckCuda(StartFindOrInsert(stream, index, start, batch.as<uint64_t>(), batch_count, 1, nullptr,
                                       numbers.as<uint32_t>(), tally.as<CudaTableTally>()),
                     "find or insert");
  }
};

absl::Status ExpectTally(const OnDevice& table, uint64_t made) {
  CudaTableTally tally = {};
  BASIN_RETURN_IF_ERROR(
      CheckCuda(cudaMemcpy(&tally, table.tally.data(), sizeof(tally), cudaMemcpyDeviceToHost), "copy"));
  if (tally.made == made && tally.refused == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(tally.made, " rows were made and ", tally.refused, " keys refused, expected ", made, " and 0"));
}

}  // namespace

absl::Status RunTableLadder(Ladders& ladders) {
  LadderStep step;
  if (!ladders.Wants("table_find") && !ladders.Wants("table_insert") && !ladders.Wants("table_find_or_insert")) {
    return absl::OkStatus();
  }
  if (ladders.options().cpu) BASIN_RETURN_IF_ERROR(RunOnHost(ladders, step));
  if (!ladders.options().device) return absl::OkStatus();
  OnDevice table;
  const cudaStream_t stream = ladders.stream();
  BASIN_RETURN_IF_ERROR(table.Make(ladders));
  const uint64_t count = table.count, a_batch = std::min(kBatch, count);
  const std::string rows_text = absl::StrCat("/dim:", kRowDim, "/rows:", count);

  LadderStep insert = step;
  insert.ladder = absl::StrCat("table_insert", rows_text);
  insert.name = "tuned";
  insert.gain =
      "16 threads look at a bucket of 16 keys in one access, one of them takes a free number by an atomic "
      "exchange, and all 16 write the row";
  insert.items = static_cast<double>(count);
  insert.bytes = insert.items * kInsertBytes;
  insert.work = [&]() -> absl::Status {  // into an empty table, batch by batch
    BASIN_RETURN_IF_ERROR(table.Clear(stream));
    for (uint64_t first = 0; first < count; first += a_batch) {
      const uint64_t n = std::min(a_batch, count - first);
      BASIN_RETURN_IF_ERROR(CheckCuda(StartFillTableKeys(stream, first, n, table.batch.as<uint64_t>()), "make keys"));
      BASIN_RETURN_IF_ERROR(table.FindOrInsertBatch(stream, n));
    }
    return absl::OkStatus();
  };
  insert.check = [&] { return ExpectTally(table, count); };
  BASIN_RETURN_IF_ERROR(ladders.Run(insert));

  BASIN_RETURN_IF_ERROR(
      CheckCuda(StartFillFoundKeys(stream, kSeed, count, a_batch, table.batch.as<uint64_t>()), "make keys"));
  LadderStep naive = step;
  naive.ladder = absl::StrCat("table_find", rows_text);
  naive.name = "naive";
  naive.gain =
      "many keys at once; but a thread reads its keys and its row piece by piece, and neighbours read far apart";
  naive.items = static_cast<double>(a_batch);
  naive.bytes = naive.items * kFindBytes;
  const auto same_rows = [&]() -> absl::Status {
    std::vector<float> rows(std::min(kComparedRows, a_batch) * kRowDim);
    BASIN_RETURN_IF_ERROR(
        CheckCuda(cudaMemcpy(rows.data(), table.pulled.data(), rows.size() * sizeof(float), cudaMemcpyDeviceToHost),
                  "copy rows"));
    return SameRows(rows, rows.size() / kRowDim, count);
  };
  const auto clear_pulled = [&] {
    return CheckCuda(cudaMemsetAsync(table.pulled.data(), 0xff, table.pulled.bytes(), stream), "clear");
  };
  naive.work = [&] {
    return CheckCuda(
        StartNaivePull(stream, table.index, table.start, table.batch.as<uint64_t>(), a_batch, table.pulled.as<float>()),
        "naive pull");
  };
  naive.check = same_rows;
  BASIN_RETURN_IF_ERROR(clear_pulled());
  BASIN_RETURN_IF_ERROR(ladders.Run(naive));

  LadderStep tuned = naive;
  tuned.name = "tuned";
  tuned.gain =
      "16 threads a key: its bucket is one access of 128 bytes, its row is moved 16 bytes a thread, and the next "
      "key's bucket is read meanwhile";
  tuned.work = [&] {
    return CheckCuda(
        StartPull(stream, table.index, table.start, table.batch.as<uint64_t>(), a_batch, table.pulled.as<float>()),
        "pull");
  };
  BASIN_RETURN_IF_ERROR(clear_pulled());
  BASIN_RETURN_IF_ERROR(ladders.Run(tuned));

  LadderStep again = tuned;
  again.ladder = absl::StrCat("table_find_or_insert", rows_text);
  again.gain =
      "as a push looks for its rows, all of which are there: no row is moved, and the time of the push is written";
  again.bytes = again.items * (8 + 32 + 2 * 4);
  again.work = [&] { return table.FindOrInsertBatch(stream, a_batch); };
  again.check = [&] { return ExpectTally(table, count); };
  return ladders.Run(again);
}

}  // namespace basin
