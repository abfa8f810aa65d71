// The DeviceRows seam: the rows of one table that a call with device pointers moves, on the device. Twins as those of
// DeviceCopies, which makes them: device_rows_cuda.cc where the build has CUDA; tests have one in host memory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/base/dtype.h"
#include "worker/client/row_batch.h"
#include "worker/client/rows_span.h"

namespace basin {

// What is moved. Device memory is lent until the call is done.
struct DeviceRowsItem {
  int device = 0;
  const uint64_t* keys = nullptr;  // [count], in host memory, or the device's
  uint64_t count = 0;
  bool keys_there = false;
  RowBags bags;  // host memory; checked by whoever starts the call
  uint32_t dim = 0, bucket_bits = 0;
  const float* push = nullptr;  // device memory, [count, dim], or [bags, dim]; nullptr: none
  float* pull = nullptr;        // likewise
  DType sent_as = DType::kF32;  // what sums leave as
};

// What became of one call's keys and gradients: as CudaRowBatch has them, different keys bucket by bucket. The methods
// that take a Done start something, and call it on a thread of the copies when that has ended; it must not wait. Each
// is for when those before have ended, but that pieces go at the same time. For one thread at a time.
class DeviceRows {
 public:
  using Done = std::function<void(const absl::Status&)>;
  using Mark = std::shared_ptr<const void>;

  // Nothing of it is under way then. What it had of the device's memory is for the next calls.
  virtual ~DeviceRows() = default;
  // In the order of the copies out, behind the mark: sorts the keys, puts repeated ones together, sums their gradients,
  // and looks for sums that cannot be sent.
  virtual void Reduce(const Mark& after, Done done) = 0;
  // Of what Reduce has made: keys [bucket_begin()[b], bucket_begin()[b + 1]) are of bucket b.
  virtual absl::Span<const uint32_t> bucket_begin() const = 0;
  // A sum that is not finite, or that its type cannot hold.
  struct Unsendable {
    uint64_t key = 0;
    uint32_t column = 0;
    float value = 0;
  };
  virtual const Unsendable* unsendable() const = 0;  // nullptr: none
  // Copies keys [first, first + n) and their sums into host memory, as messages have them: entry by entry
  // (MostKeysOfEntry), of each its keys and then its rows. REQUIRES: whole entries, kMaxRowsBytes together.
  virtual void PackOut(uint32_t first, uint32_t n, void* to, Done done) = 0;
  // Copies rows of those keys, [n, dim] floats, into the device.
  virtual void RowsIn(uint32_t first, uint32_t n, const void* from, Done done) = 0;
  // Of pieces whose rows go through a lane's block, which is memory of the device: their spans, one piece's behind the
  // other's. Once, before the two below.
  virtual void SetSpans(absl::Span<const RowsSpan> spans) = 0;
  // Some of them, with so many keys together.
  struct Placed {
    size_t first = 0, count = 0;
    uint32_t keys = 0;
  };
  // Copies their keys into host memory, and their sums, where there are any, to `sums` in a block, row by row.
  virtual void PlaceOut(const Placed& piece, void* keys, void* sums, Done done) = 0;
  // Copies their rows out of a block, as RowsIn does.
  virtual void PlacedIn(const Placed& piece, const void* from, Done done) = 0;
  // Writes `pull` of rows that are all in the device: each to the places of its key, or the bags' sums or means.
  virtual void Spread(Done done) = 0;
};

}  // namespace basin
