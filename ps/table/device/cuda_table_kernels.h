// The kernels of cuda_table that look for keys.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/base/dtype.h"
#include "common/rules/cuda_row_layout.h"
#include "common/rules/cuda_rows.h"
#include "common/rules/initializer.h"

namespace basin {

// All in device memory.
struct CudaKeyIndex {
  static constexpr uint32_t kBucket = 16;
  static constexpr uint32_t kWindow = 8;
  // In place of a key: never taken, and taken before. The two keys with these values have numbers of their own behind
  // all others.
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static constexpr uint64_t kGone = kEmpty - 1;
  static constexpr uint32_t kReserved = 2;

  uint64_t* keys = nullptr;      // `numbers` of them
  uint32_t* stamps = nullptr;    // `numbers` + kReserved
  uint32_t* reserved = nullptr;  // 1 where kGone, kEmpty (in this order) have a row
  uint32_t numbers = 0;          // a multiple of kBucket
};

struct CudaTableTally {
  unsigned long long made, refused, evicted;
};

// The last evicted keys: that of number n at n modulo size, of all that CudaTableTally counts as evicted.
struct CudaEvictedLog {
  uint64_t* keys = nullptr;  // in device memory
  uint64_t size = 0;         // a power of two
};

// How a row begins.
struct CudaRowStart {
  InitSpec init;
  float slots[kMaxSlots] = {};
  CudaRowLayout layout;
  DType storage = DType::kF32;
  char* rows = nullptr;
};

cudaError_t StartPull(cudaStream_t stream, const CudaKeyIndex& index, const CudaRowStart& start, const uint64_t* keys,
                      uint64_t count, float* rows);
cudaError_t StartFindOrInsert(cudaStream_t stream, const CudaKeyIndex& index, const CudaRowStart& start,
                              const uint64_t* keys, uint64_t count, uint32_t stamp, const uint32_t* bad_key,
                              uint32_t* number_of, CudaTableTally* tally);
// Each key that has no number takes over that of the row in its way that was pushed longest ago, if that was before
// `stamp`; it is not counted as refused any more. REQUIRES: behind StartFindOrInsert of these keys, with this stamp; no
// key repeats.
cudaError_t StartMakeRoom(cudaStream_t stream, const CudaKeyIndex& index, const CudaRowStart& start,
                          const CudaEvictedLog& log, const uint64_t* keys, uint64_t count, uint32_t stamp,
                          uint32_t* number_of, CudaTableTally* tally);
cudaError_t StartEvictBefore(cudaStream_t stream, const CudaKeyIndex& index, const CudaEvictedLog& log, uint32_t stamp,
                             CudaTableTally* tally);

}  // namespace basin
