// The rows of one table that a call moves, on a device: the twin of worker/client/row_batch. Keys are hashed and sorted
// there, repeated keys put together and their gradients summed, so that only different rows travel; rows that come back
// are written to all the places where their key stands.
//
// Order. Different keys stand bucket by bucket, in each by their hash (on the host: by where they first stand). Sums
// are made in the order of the batch and without atomics, so that the same batch gives the same bits: a key that stands
// at most kPiece times has the host's bits. One that stands more often is cut into pieces of kPiece places, each summed
// in order, then the pieces: 16 spans of them, each in order, then the spans. So a sum differs from the exact one by at
// most (kPiece + pieces / 16 + 17) * 2^-24 * the sum of the magnitudes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "common/device/cuda_memory.h"

namespace basin {

// Keys in bags: bag i has keys [offsets[i], offsets[i + 1]). In device memory, and checked by the caller: they ascend
// from 0 to the number of keys.
struct CudaRowBags {
  const uint64_t* offsets = nullptr;  // bags + 1; null: each key stands alone
  uint64_t bags = 0;
  bool mean = false;  // else the sum
};

// All pointers are to device memory unless said otherwise; work is ordered by the stream. Memory grows as it is needed
// and is used again; growing may wait for the device. For one thread at a time, with the device current.
class CudaRowBatch final {
 public:
  static constexpr uint64_t kMaxKeys = (uint64_t{1} << 31) - 1;  // CUB counts in int
  static constexpr uint32_t kPiece = 256;
  static constexpr uint32_t kNoKey = 0xffffffffu;

  // `device`: its name, for messages. The stream must outlive this.
  CudaRowBatch(std::string device, cudaStream_t stream) : device_(std::move(device)), stream_(stream) {}
  ~CudaRowBatch();
  CudaRowBatch(const CudaRowBatch&) = delete;
  CudaRowBatch& operator=(const CudaRowBatch&) = delete;

  // Sorts and counts the keys; they and the bags must stay as they are until what is asked for below has run. Waits for
  // the stream once, for the number of different keys and of those of each bucket; a second time, and sorts anew, for
  // the few batches in which two keys have the same leading bits of their hashes.
  // RESOURCE_EXHAUSTED: no memory; other errors are CUDA's. What was there before is lost then.
  // REQUIRES: count <= kMaxKeys; 8 <= bucket_bits <= 16, those of the table's placement.
  absl::Status Fill(const uint64_t* keys, uint64_t count, uint32_t bucket_bits, const CudaRowBags& bags);

  // For those who may not wait for the stream, and whose device may not be kept waiting by allocations either.
  // Makes room for such batches, so that with them nothing of the below allocates. dim 0: no gradients are summed.
  absl::Status Reserve(uint64_t count, bool bagged, uint32_t dim);
  // What is asked for from now on is ordered by this stream. What was asked for before has run.
  void UseStream(cudaStream_t stream) { stream_ = stream; }
  // Fill in two halves: FinishFill is for when all has run that StartFill asked for. False: two keys have the same
  // leading bits of their hashes, and both are to be called again, with whole_hashes.
  absl::Status StartFill(const uint64_t* keys, uint64_t count, uint32_t bucket_bits, const CudaRowBags& bags,
                         bool whole_hashes = false);
  bool FinishFill();

  uint64_t places() const { return places_; }
  // Rows of the caller's buffers: keys, or bags.
  uint64_t rows() const { return bags_.offsets != nullptr ? bags_.bags : places_; }
  // The different keys.
  uint32_t key_count() const { return key_count_; }
  const uint64_t* keys() const { return unique_.as<uint64_t>(); }
  // In host memory, until the next Fill: keys [bucket_begin()[b], bucket_begin()[b + 1]) are of bucket b.
  const uint32_t* bucket_begin() const { return host_buckets_; }
  // The same in device memory. REQUIRES: there are keys.
  const uint32_t* bucket_begin_there() const;
  // Which of the different keys stands at each place.
  const uint32_t* key_of_place() const { return key_of_place_.as<uint32_t>(); }

  // Sums the gradients, [rows(), dim], of each key to sums [key_count(), dim]. *not_finite becomes the first key with a
  // sum that is not finite, which is also so where one of its gradients is not; kNoKey: none.
  absl::Status SumGradients(const float* gradients, uint32_t dim, float* sums, uint32_t* not_finite);
  // Writes rows, [key_count(), dim], to the places where their keys stand, [places(), dim].
  absl::Status Scatter(const float* rows, uint32_t dim, float* places);
  // The bags' sums or means of rows, [key_count(), dim], in the order of their keys: the host's bits. REQUIRES: bags.
  absl::Status Pool(const float* rows, uint32_t dim, float* pooled);

  // Of device memory that is held.
  size_t memory_bytes() const;

 private:
  absl::Status Sort(const uint64_t* keys, uint32_t first_bit);
  absl::Status Check(cudaError_t error, const char* what) const;

  const std::string device_;
  cudaStream_t stream_;
  CudaRowBags bags_;
  uint64_t places_ = 0;
  uint32_t key_count_ = 0, bucket_bits_ = 0;
  uint32_t often_ = 0;                // keys that stand more than kPiece times
  CudaMemory hashes_, batch_places_;  // what is sorted
  // By place in sorted order: the hash, the place in the batch, and which of the different keys stands there.
  CudaMemory sorted_hashes_, sorted_places_, key_of_sorted_;
  CudaMemory key_of_place_, bag_of_place_;
  // By key: the key, and where its places begin in sorted order.
  CudaMemory unique_, begin_;
  CudaMemory tally_;     // what Fill waits for: a Tally, then where buckets begin
  CudaMemory partials_;  // sums of pieces
  CudaMemory scratch_;   // CUB's
  void* host_tally_ = nullptr;
  const uint32_t* host_buckets_ = nullptr;
};

}  // namespace basin
