#include "ps/device/key_turns.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace basin {

uint32_t KeyTurns::Count(const char* keys, size_t n) {
  const size_t size = std::max<size_t>(64, std::bit_ceil(2 * n + 1));
  if (slots_.size() < size || ++round_ == 0) {
    slots_.assign(std::max(size, slots_.size()), Slot());
    round_ = 1;
  }
  const int shift = 64 - std::countr_zero(slots_.size());
  const size_t mask = slots_.size() - 1;
  turn_of_.resize(n);
  uint32_t turns = 0;
  for (size_t i = 0; i < n; ++i) {
    uint64_t key;
    std::memcpy(&key, keys + i * sizeof(key), sizeof(key));
    size_t at = key * multiplier_ >> shift;
    while (slots_[at].round == round_ && slots_[at].key != key) at = (at + 1) & mask;
    Slot& slot = slots_[at];
    if (slot.round != round_) slot = {.key = key, .round = round_};
    turn_of_[i] = slot.times++;
    turns = std::max(turns, slot.times);
  }
  if (turns > 1) Sort(n, turns);
  return turns;
}

void KeyTurns::Sort(size_t n, uint32_t turns) {
  turn_begin_.assign(turns + 1, 0);
  for (const uint32_t turn : turn_of_) ++turn_begin_[turn + 1];
  for (uint32_t turn = 0; turn < turns; ++turn) turn_begin_[turn + 1] += turn_begin_[turn];
  places_.resize(n);
  std::vector<uint32_t> next(turn_begin_.begin(), turn_begin_.end() - 1);
  for (size_t i = 0; i < n; ++i) places_[next[turn_of_[i]]++] = static_cast<uint32_t>(i);
}

}  // namespace basin
