#include "worker/client/row_batch.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/key_hash.h"
#include "common/base/status_macros.h"
#include "common/codec/half.h"
#include "worker/client/half_overflow.h"

namespace basin {
namespace {

constexpr size_t kAhead = 12;  // places: about what one row's miss takes

// Four floats at a time: rows in messages are aligned for nothing, and compilers do not see through that by themselves.
using Four = float __attribute__((vector_size(16)));

// Writes the row, or adds it to what is there. kDim 0: the length is `dim`; known lengths make loops without ends.
template <uint32_t kDim, bool kAdd>
void PutRow(const float* from, float scale, uint32_t dim, char* to) {
  const uint32_t n = kDim == 0 ? dim : kDim;
  uint32_t i = 0;
  for (; i + 4 <= n; i += 4) {
    Four value, before;
    std::memcpy(&value, from + i, sizeof(value));
    value *= scale;
    if constexpr (kAdd) {
      std::memcpy(&before, to + i * sizeof(float), sizeof(before));
      value += before;
    }
    std::memcpy(to + i * sizeof(float), &value, sizeof(value));
  }
  for (; i < n; ++i) {
    float value = from[i] * scale, before;
    if constexpr (kAdd) {
      std::memcpy(&before, to + i * sizeof(float), sizeof(before));
      value += before;
    }
    std::memcpy(to + i * sizeof(float), &value, sizeof(value));
  }
}

// The largest magnitude, as bits: NaN and Inf are the largest of all. Four lanes of 4, so that no sum waits for
// another.
uint32_t LargestBits(const float* values, size_t count) {
  int32_t largest[16] = {};
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    int32_t bits[16];
    std::memcpy(bits, values + i, sizeof(bits));
    for (int lane = 0; lane < 16; ++lane) largest[lane] = std::max(largest[lane], bits[lane] & 0x7fffffff);
  }
  int32_t most = *std::max_element(largest, largest + 16);
  for (; i < count; ++i) most = std::max(most, static_cast<int32_t>(std::bit_cast<uint32_t>(values[i]) & 0x7fffffffu));
  return static_cast<uint32_t>(most);
}

// Names the first number of that magnitude, or beyond it.
std::string NotFinite(absl::Span<const uint64_t> keys, const RowBags& bags, uint32_t dim, const float* gradients,
                      DType type) {
  const bool bagged = !bags.offsets.empty();
  size_t at = 0;
  while (std::abs(gradients[at]) < OverflowsFrom(type)) ++at;
  const size_t row = at / dim;
  return absl::StrCat(std::isnan(gradients[at])   ? "NaN"
                      : std::isinf(gradients[at]) ? "Inf"
                                                  : TooLargeFor(type, gradients[at]),
                      " in the gradient of ",
                      bagged ? absl::StrCat("bag ", row) : absl::StrCat("key ", keys[row], " (place ", row, ")"),
                      ", column ", at % dim);
}

// Calls `work` with the length as a constant where it is a usual one.
template <class Work>
auto WithLength(uint32_t dim, Work work) {
  switch (dim) {
    case 8:
      return work.template operator()<8>();
    case 16:
      return work.template operator()<16>();
    case 32:
      return work.template operator()<32>();
    case 64:
      return work.template operator()<64>();
    default:
      return work.template operator()<0>();
  }
}

void PrefetchRow(const float* row, uint32_t dim) {
  const char* at = reinterpret_cast<const char*>(row);
  const size_t bytes = std::min<size_t>(dim * sizeof(float), 256);
  for (size_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(at + offset);
}

template <class T>
void Grow(std::vector<T>& vector, size_t size) {
  if (vector.size() < size) vector.resize(size);
}

}  // namespace

absl::Status CheckBags(absl::Span<const uint64_t> offsets, size_t keys) {
  if (offsets.empty()) return absl::InvalidArgumentError("bags have no offsets; n bags have n + 1");
  if (offsets.front() != 0)
    return absl::InvalidArgumentError(absl::StrCat("bags begin at ", offsets.front(), ", expected 0"));
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    if (offsets[i] > offsets[i + 1]) {
      return absl::InvalidArgumentError(
          absl::StrCat("bags[", i + 1, "] is ", offsets[i + 1], " after ", offsets[i], "; offsets ascend"));
    }
  }
  if (offsets.back() != keys) {
    return absl::InvalidArgumentError(
        absl::StrCat("bags end at ", offsets.back(), ", expected the number of keys, ", keys));
  }
  return absl::OkStatus();
}

size_t RowBatch::memory_bytes() const {
  const auto of = [](const auto& vector) { return vector.capacity() * sizeof(vector[0]); };
  return of(buckets_) + of(place_) + of(key_of_) + of(keys_) + of(bag_of_) + of(offsets_) + of(hashes_) + of(counts_) +
         of(sorted_keys_) + of(sorted_hashes_) + of(slots_);
}

void RowBatch::Fill(const TablePlacement& placement, uint32_t dim, absl::Span<const uint64_t> keys,
                    const RowBags& bags) {
  BASIN_CHECK(keys.size() <= kMaxKeys);
  dim_ = dim;
  place_count_ = keys.size();
  key_count_ = 0;
  buckets_.clear();
  bagged_ = !bags.offsets.empty();
  mean_ = bags.mean;
  bag_count_ = bagged_ ? bags.offsets.size() - 1 : 0;
  if (bagged_) {
    offsets_.assign(bags.offsets.begin(), bags.offsets.end());
    Grow(bag_of_, keys.size());
    for (size_t bag = 0; bag < bag_count_; ++bag)
      std::fill(bag_of_.begin() + static_cast<int64_t>(offsets_[bag]),
                bag_of_.begin() + static_cast<int64_t>(offsets_[bag + 1]), static_cast<uint32_t>(bag));
  }
  Grow(place_, keys.size());
  Grow(key_of_, keys.size());
  Grow(keys_, keys.size());
  Grow(hashes_, keys.size());
  Grow(sorted_keys_, keys.size());
  Grow(sorted_hashes_, keys.size());
  if (keys.size() < placement.buckets() / 8) {
    SortFew(placement, keys);
  } else {
    SortByCounting(placement, keys);
  }
}

void RowBatch::SortByCounting(const TablePlacement& placement, absl::Span<const uint64_t> keys) {
  const uint32_t buckets = placement.buckets(), shift = 64 - placement.bits();
  counts_.assign(buckets + 1, 0);
  for (size_t i = 0; i < keys.size(); ++i) {
    const uint64_t hash = KeyHash(keys[i]);
    hashes_[i] = hash;
    ++counts_[hash >> shift];
  }
  uint32_t sum = 0;
  for (uint32_t& count : counts_) sum += std::exchange(count, sum);
  for (size_t i = 0; i < keys.size(); ++i) {
    const uint64_t hash = hashes_[i];
    const uint32_t at = counts_[hash >> shift]++;
    place_[at] = static_cast<uint32_t>(i);
    sorted_keys_[at] = keys[i];
    sorted_hashes_[at] = static_cast<uint32_t>(hash);
  }
  // Each count has moved on to its bucket's end.
  for (uint32_t bucket = 0, begin = 0; bucket < buckets; ++bucket) {
    if (counts_[bucket] > begin) Close(bucket, begin, counts_[bucket]);
    begin = counts_[bucket];
  }
}

// Without a walk over all buckets.
void RowBatch::SortFew(const TablePlacement& placement, absl::Span<const uint64_t> keys) {
  const uint32_t shift = 64 - placement.bits();
  for (size_t i = 0; i < keys.size(); ++i) hashes_[i] = KeyHash(keys[i]) >> shift << 32 | i;
  std::sort(hashes_.begin(), hashes_.begin() + static_cast<int64_t>(keys.size()));
  for (size_t at = 0; at < keys.size(); ++at) {
    place_[at] = static_cast<uint32_t>(hashes_[at]);
    sorted_keys_[at] = keys[place_[at]];
    sorted_hashes_[at] = static_cast<uint32_t>(KeyHash(sorted_keys_[at]));
  }
  for (uint32_t begin = 0; begin < keys.size();) {
    uint32_t end = begin + 1;
    while (end < keys.size() && hashes_[end] >> 32 == hashes_[begin] >> 32) ++end;
    Close(static_cast<uint32_t>(hashes_[begin] >> 32), begin, end);
    begin = end;
  }
}

// Puts the repeated keys of one bucket together.
void RowBatch::Close(uint32_t bucket, uint32_t begin, uint32_t end) {
  const auto first = static_cast<uint32_t>(key_count_);
  uint64_t* const keys = keys_.data() + first;
  uint32_t count = 0;
  if (end - begin == 1) {
    keys[count++] = sorted_keys_[begin];
    key_of_[begin] = 0;
  } else {
    const uint32_t slots = std::bit_ceil(2 * (end - begin)), mask = slots - 1;
    Grow(slots_, slots);
    if (++round_ == 0) {
      std::fill(slots_.begin(), slots_.end(), Slot());
      round_ = 1;
    }
    for (uint32_t at = begin; at < end; ++at) {
      const uint64_t key = sorted_keys_[at];
      uint32_t slot = sorted_hashes_[at] & mask;
      while (slots_[slot].round == round_ && keys[slots_[slot].key] != key) slot = (slot + 1) & mask;
      if (slots_[slot].round != round_) {
        slots_[slot] = {round_, count};
        keys[count++] = key;
      }
      key_of_[at] = slots_[slot].key;
    }
  }
  key_count_ += count;
  buckets_.push_back({.bucket = bucket, .first_key = first, .keys = count, .begin = begin, .end = end});
}

void RowBatch::WriteKeys(const Bucket& bucket, uint32_t first, uint32_t n, char* out) const {
  static_assert(std::endian::native == std::endian::little);
  std::memcpy(out, keys_.data() + bucket.first_key + first, n * sizeof(uint64_t));
}

void RowBatch::WriteGradients(const Bucket& bucket, uint32_t first, uint32_t n, const float* gradients,
                              char* out) const {
  WithLength(dim_, [&]<uint32_t kDim>() {
    const uint32_t dim = dim_;
    uint32_t next = first;  // of the different keys: the first standing of each writes, the others add
    for (uint32_t at = bucket.begin; at < bucket.end; ++at) {
      if (const size_t ahead = at + kAhead; ahead < place_count_ && !bagged_)
        PrefetchRow(gradients + size_t{place_[ahead]} * dim, dim);
      const uint32_t key = key_of_[at];
      if (key - first >= n) continue;
      size_t row = place_[at];
      float scale = 1;
      if (bagged_) {
        row = bag_of_[row];
        if (mean_) scale = 1.0f / static_cast<float>(offsets_[row + 1] - offsets_[row]);
      }
      const float* const from = gradients + row * dim;
      char* const to = out + size_t{key - first} * dim * sizeof(float);
      if (key == next) {
        PutRow<kDim, false>(from, scale, dim, to);
        ++next;
      } else {
        PutRow<kDim, true>(from, scale, dim, to);
      }
    }
  });
}

void RowBatch::Scatter(const Bucket& bucket, uint32_t first, uint32_t n, const char* rows, float* places) const {
  const size_t bytes = dim_ * sizeof(float);
  for (uint32_t at = bucket.begin; at < bucket.end; ++at) {
    const uint32_t key = key_of_[at];
    if (key - first >= n) continue;
    std::memcpy(places + size_t{place_[at]} * dim_, rows + size_t{key - first} * bytes, bytes);
  }
}

void RowBatch::Pool(const float* places, float* pooled) const {
  BASIN_CHECK(bagged_);
  for (size_t bag = 0; bag < bag_count_; ++bag) {
    float* const to = pooled + bag * dim_;
    std::fill_n(to, dim_, 0.0f);
    const uint64_t begin = offsets_[bag], end = offsets_[bag + 1];
    for (uint64_t key = begin; key < end; ++key) {
      const float* const from = places + key * dim_;
      for (uint32_t i = 0; i < dim_; ++i) to[i] += from[i];
    }
    if (!mean_ || begin == end) continue;
    const float scale = 1.0f / static_cast<float>(end - begin);
    for (uint32_t i = 0; i < dim_; ++i) to[i] *= scale;
  }
}

std::string RowBatch::FindNotFinite(absl::Span<const uint64_t> keys, const RowBags& bags, const float* gradients,
                                    DType type) const {
  const float limit = OverflowsFrom(type);
  const auto limit_bits = std::bit_cast<uint32_t>(limit);
  const uint32_t largest = LargestBits(gradients, rows() * dim_);
  if (largest >= limit_bits) return NotFinite(keys, bags, dim_, gradients, type);
  // Only gradients that are huge, and repeated, can have a sum that is too large.
  const double sum = static_cast<double>(std::bit_cast<float>(largest)) * static_cast<double>(place_count_);
  if (key_count_ == place_count_ || sum < static_cast<double>(std::min(limit, LargestFinite(DType::kF32)))) return "";
  std::vector<float> row(dim_);
  for (const Bucket& bucket : buckets_) {
    for (uint32_t key = 0; key < bucket.keys; ++key) {
      WriteGradients(bucket, key, 1, gradients, reinterpret_cast<char*>(row.data()));
      if (LargestBits(row.data(), dim_) < limit_bits) continue;
      const float found = *std::find_if(row.begin(), row.end(), [&](float v) { return !(std::abs(v) < limit); });
      return absl::StrCat(std::isfinite(found) ? TooLargeFor(type, found) : "Inf",
                          " in the sum of the gradients of key ", keys_[bucket.first_key + key],
                          ", which are finite each");
    }
  }
  return "";
}

}  // namespace basin
