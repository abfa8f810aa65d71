// Repeated keys of a push. A client merges them, but a peer may send anything, and the host applies a key that stands
// twice twice. On a device each key stands once in a kernel, so an entry becomes as many turns as its most frequent key
// has places. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace basin {

class KeyTurns final {
 public:
  // `multiplier`: odd, and unknown to peers, who could otherwise choose keys that collide.
  explicit KeyTurns(uint64_t multiplier) : multiplier_(multiplier) {}

  // Of n unaligned keys; returns how many turns there are. Turn t has the places whose key stood t times before.
  uint32_t Count(const char* keys, size_t n);
  // The places of the last Count, turn by turn, ascending in each; turn t begins at turn_begin()[t] and ends at
  // turn_begin()[t + 1]. REQUIRES: there was more than one turn.
  const std::vector<uint32_t>& places() const { return places_; }
  const std::vector<uint32_t>& turn_begin() const { return turn_begin_; }

 private:
  struct Slot {
    uint64_t key = 0;
    uint32_t round = 0;  // of the Count that wrote it; another: empty
    uint32_t times = 0;
  };
  void Sort(size_t n, uint32_t turns);

  const uint64_t multiplier_;
  uint32_t round_ = 0;
  std::vector<Slot> slots_;  // a power of two, more than twice the keys
  std::vector<uint32_t> turn_of_, places_, turn_begin_;
};

}  // namespace basin
