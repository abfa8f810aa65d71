// Repeated keys of a batch put together, and their gradients summed: worker/client/row_batch and cuda_row_batch.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/kernels/ladder.h"
#include "bench/kernels/naive_kernels.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_memory.h"
#include "common/device/cuda_row_batch.h"
#include "worker/client/row_batch.h"

namespace basin {
namespace {

constexpr uint32_t kDim = 64;
constexpr double kExponent = 1.05;
constexpr uint64_t kDifferent = 10'000'000;

std::vector<uint64_t> ZipfKeys(uint64_t count) {
  // The rank of a key has a probability in proportion to rank^-1.05: the inverse of the sum's integral.
  std::vector<uint64_t> keys(count);
  const double power = 1 - kExponent;
  const double most = std::pow(static_cast<double>(kDifferent) + 1, power);
  for (uint64_t i = 0; i < count; ++i) {
    keys[i] = Mix64(static_cast<uint64_t>(std::pow(1 + UnitAt(5, i) * (most - 1), 1 / power)));
  }
  return keys;
}

// The host's sums, keys in the host's order.
void MergeOnHost(RowBatch* batch, const std::vector<uint64_t>& keys, const std::vector<float>& gradients,
                 std::vector<float>* sums) {
  batch->Fill(TablePlacement::Make(1), kDim, keys, {});
  sums->resize(batch->keys().size() * kDim);
  for (const RowBatch::Bucket& bucket : batch->buckets()) {
    batch->WriteGradients(bucket, 0, bucket.keys, gradients.data(),
                          reinterpret_cast<char*>(sums->data() + size_t{bucket.first_key} * kDim));
  }
}

// Against float64, by the bound that cuda_row_batch.h states; atomic additions come in any order, so they get a bound
// of their own.
absl::Status Compare(const CudaRowBatch& batch, const std::vector<uint64_t>& keys, const std::vector<float>& gradients,
                     const float* sums_there, bool in_order) {
  const auto copy = [](void* to, const void* from, size_t bytes) {
    return CheckCuda(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "copy");
  };
  const size_t count = batch.key_count();
  std::vector<uint64_t> unique(count);
  std::vector<uint32_t> key_of_place(keys.size()), times(count);
  std::vector<float> sums(count * kDim);
  BASIN_RETURN_IF_ERROR(copy(unique.data(), batch.keys(), count * sizeof(uint64_t)));
  BASIN_RETURN_IF_ERROR(copy(key_of_place.data(), batch.key_of_place(), keys.size() * sizeof(uint32_t)));
  BASIN_RETURN_IF_ERROR(copy(sums.data(), sums_there, sums.size() * sizeof(float)));
  std::vector<double> exact(sums.size()), magnitude(sums.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    const size_t key = key_of_place[i];
    if (key >= count || unique[key] != keys[i])
      return absl::InternalError(absl::StrCat("place ", i, " has another key"));
    ++times[key];
    for (size_t column = 0; column < kDim; ++column) {
      const double g = gradients[i * kDim + column];
      exact[key * kDim + column] += g;
      magnitude[key * kDim + column] += std::abs(g);
    }
  }
  for (size_t at = 0; at < sums.size(); ++at) {
    const double terms = times[at / kDim];
    const double roundings =
        in_order ? std::min<double>(terms, CudaRowBatch::kPiece + std::ceil(terms / CudaRowBatch::kPiece) / 16 + 17)
                 : terms;
    if (std::abs(sums[at] - exact[at]) <= roundings * 0x1p-24 * magnitude[at]) continue;
    return absl::InternalError(
        absl::StrCat("key ", unique[at / kDim], ", column ", at % kDim, " is ", sums[at], ", expected ", exact[at]));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunMergeLadder(Ladders& ladders) {
  const uint64_t count = ladders.options().keys;
  LadderStep step{.ladder = absl::StrCat("merge/zipf:1.05/keys:", count, "/dim:", kDim),
                  .items = static_cast<double>(count)};
  if (!ladders.Wants(step.ladder)) return absl::OkStatus();
  const std::vector<uint64_t> keys = ZipfKeys(count);
  std::vector<float> gradients(count * kDim), host_sums;
  for (size_t i = 0; i < gradients.size(); ++i) gradients[i] = SampleAt(1, i, -0.5f);
  RowBatch host;
  MergeOnHost(&host, keys, gradients, &host_sums);
  const auto different = static_cast<double>(host.keys().size());
  // Keys and gradients are read; different keys, their sums, and which key stands where are written.
  step.bytes = static_cast<double>(count) * (8 + 4 * kDim + 4) + different * (8 + 4 * kDim);
  if (ladders.options().cpu) {
    LadderStep cpu = step;
    cpu.name = "cpu";
    cpu.gain = "one thread: sorted by bucket, then a small hash table a bucket";
    cpu.on_device = false;
    cpu.work = [&] {
      MergeOnHost(&host, keys, gradients, &host_sums);
      return absl::OkStatus();
    };
    cpu.check = [] { return absl::OkStatus(); };  // it is what the others are compared with, by way of float64
    BASIN_RETURN_IF_ERROR(ladders.Run(cpu));
  }
  if (!ladders.options().device) return absl::OkStatus();

  CudaMemory keys_there, gradients_there, sums, not_finite;
  const auto put = [](CudaMemory* memory, const void* values, size_t bytes) -> absl::Status {
    BASIN_RETURN_IF_ERROR(memory->Resize("cuda", bytes));
    return CheckCuda(cudaMemcpy(memory->data(), values, bytes, cudaMemcpyHostToDevice), "copy");
  };
  BASIN_RETURN_IF_ERROR(put(&keys_there, keys.data(), keys.size() * sizeof(uint64_t)));
  BASIN_RETURN_IF_ERROR(put(&gradients_there, gradients.data(), gradients.size() * sizeof(float)));
  BASIN_RETURN_IF_ERROR(sums.Resize("cuda", host_sums.size() * sizeof(float)));
  BASIN_RETURN_IF_ERROR(not_finite.Resize("cuda", sizeof(uint32_t)));
  BASIN_RETURN_IF_ERROR(CheckCuda(cudaDeviceSynchronize(), "wait for copies"));
  CudaRowBatch batch("cuda", ladders.stream());
  const auto fill = [&]() -> absl::Status {
    BASIN_RETURN_IF_ERROR(batch.Fill(keys_there.as<uint64_t>(), count, TablePlacement::Make(1).bits(), {}));
    if (batch.key_count() == host.keys().size()) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(batch.key_count(), " different keys, expected ", host.keys().size()));
  };
  LadderStep naive = step;
  naive.name = "naive";
  naive.gain =
      "keys are sorted by the device; sums by atomic additions, which collide where keys are hot, and come in any "
      "order";
  naive.work = [&]() -> absl::Status {
    BASIN_RETURN_IF_ERROR(fill());
    return CheckCuda(StartNaiveMerge(ladders.stream(), batch.key_of_place(), count, batch.key_count(),
                                     gradients_there.as<float>(), kDim, sums.as<float>()),
                     "naive merge");
  };
  naive.check = [&] { return Compare(batch, keys, gradients, sums.as<float>(), /*in_order=*/false); };
  BASIN_RETURN_IF_ERROR(ladders.Run(naive));
  LadderStep tuned = step;
  tuned.name = "tuned";
  tuned.gain =
      "each key's gradients are added in registers and written once, in the order of the batch; hot keys are cut into "
      "pieces, so that no thread has more than 256 rows";
  tuned.work = [&]() -> absl::Status {
    BASIN_RETURN_IF_ERROR(fill());
    return batch.SumGradients(gradients_there.as<float>(), kDim, sums.as<float>(), not_finite.as<uint32_t>());
  };
  tuned.check = [&] { return Compare(batch, keys, gradients, sums.as<float>(), /*in_order=*/true); };
  BASIN_RETURN_IF_ERROR(ladders.Run(tuned));
  LadderStep sort = step;
  sort.name = "sort";
  sort.gain = "no gain: the part of the step above that sorts keys, with its wait for the number of different ones";
  sort.bytes = static_cast<double>(count) * (8 + 4) + different * 8;
  sort.work = fill;
  sort.check = [] { return absl::OkStatus(); };  // by the step above
  return ladders.Run(sort);
}

}  // namespace basin
