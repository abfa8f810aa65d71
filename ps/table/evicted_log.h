// The last keys that a table evicted, numbered from 0 on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace basin {

class EvictedLog final {
 public:
  explicit EvictedLog(uint64_t remembered) : chunks_(remembered / kChunk) {}

  void Add(uint64_t key) {
    std::unique_ptr<uint64_t[]>& chunk = chunks_[end_ / kChunk % chunks_.size()];
    if (chunk == nullptr) chunk = std::make_unique<uint64_t[]>(kChunk);
    chunk[end_++ % kChunk] = key;
  }
  uint64_t end() const { return end_; }
  // As HostTable::Evicted.
  uint64_t Read(uint64_t since, size_t most, std::vector<uint64_t>* keys) const {
    const uint64_t remembered = chunks_.size() * kChunk;
    const uint64_t first = std::max(since, end_ > remembered ? end_ - remembered : 0);
    for (uint64_t i = first; i < end_ && i - first < most; ++i) {
      keys->push_back(chunks_[i / kChunk % chunks_.size()][i % kChunk]);
    }
    return first;
  }

 private:
  static constexpr uint64_t kChunk = 4096;  // memory comes as keys do, with no copy
  std::vector<std::unique_ptr<uint64_t[]>> chunks_;
  uint64_t end_ = 0;
};

}  // namespace basin
