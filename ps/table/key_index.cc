#include "ps/table/key_index.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/base/status_macros.h"

namespace basin {
namespace {

// Above this many directory entries a segment, keys were chosen to collide.
constexpr uint64_t kMostSpread = 64;

}  // namespace

KeyIndex::KeyIndex(TableMemory* memory) : memory_(memory), segments_(1), directory_(1, 0) {
  // What a search finds before there is any memory: one page that stays empty.
  static Line nothing[kLinesPerPage] = {};
  segments_[0].pages[0] = nothing;
  segments_[0].lines = kLinesPerPage;
}

void KeyIndex::Put(Segment& segment, uint64_t hash, const Entry& entry) {
  uint32_t at = HomeOf(segment, hash);
  for (;;) {
    Line* line = LineAt(segment, at);
    const uint32_t gap = GapOf(*line);
    if (gap < kSlots) {
      line->keys[gap] = entry.key;
      line->values[gap] = entry.value;
      line->stamps[gap] = entry.stamp;
      return;
    }
    if (++at == segment.lines) at = 0;
  }
}

void KeyIndex::Insert(uint64_t hash, uint64_t key, IndexValue value, uint32_t stamp) {
  Segment& segment = SegmentAt(hash);
  Put(segment, hash, {key, value.bits(), stamp});
  ++segment.entries;
  ++entries_;
  segment.candidates = static_cast<uint16_t>(segment.candidates + value.is_candidate());
  candidates_ += value.is_candidate();
}

void KeyIndex::Replace(uint64_t hash, uint64_t key, IndexValue value, uint32_t stamp) {
  Segment& segment = SegmentAt(hash);
  uint32_t at = HomeOf(segment, hash);
  int slot;
  while ((slot = SlotOf(*LineAt(segment, at), key)) < 0) {
    BASIN_CHECK(slot == kFull);
    if (++at == segment.lines) at = 0;
  }
  Line* line = LineAt(segment, at);
  const int change = static_cast<int>(value.is_candidate()) - IndexValue(line->values[slot]).is_candidate();
  segment.candidates = static_cast<uint16_t>(segment.candidates + change);
  candidates_ += static_cast<uint64_t>(static_cast<int64_t>(change));
  line->values[slot] = value.bits();
  line->stamps[slot] = stamp;
}

void KeyIndex::Remove(Segment& segment, uint32_t hole, uint32_t slot) {
  Line* line = LineAt(segment, hole);
  bool was_full = GapOf(*line) == kSlots;
  line->values[slot] = 0;
  // An entry stands past its home only if every line between was full. A hole in a full line may break that for what
  // stands later: the first such entry moves into it, and its place is the hole then.
  for (uint32_t distance = 1, at = hole; was_full; ++distance) {
    if (++at == segment.lines) at = 0;
    if (at == hole) return;
    Line* later = LineAt(segment, at);
    const bool later_is_full = GapOf(*later) == kSlots;
    for (uint32_t i = 0; i < kSlots; ++i) {
      if (later->values[i] == 0) continue;
      const uint32_t home = HomeOf(segment, Hash(later->keys[i]));
      const uint32_t passed = at >= home ? at - home : at + segment.lines - home;
      if (passed < distance) continue;
      line->keys[slot] = later->keys[i];
      line->values[slot] = later->values[i];
      line->stamps[slot] = later->stamps[i];
      later->values[i] = 0;
      line = later;
      slot = i;
      hole = at;
      distance = 0;
      break;
    }
    was_full = later_is_full;
  }
}

void KeyIndex::RemoveCounted(Segment& segment, uint32_t line, uint32_t slot) {
  const bool candidate = IndexValue(LineAt(segment, line)->values[slot]).is_candidate();
  Remove(segment, line, slot);
  --segment.entries;
  --entries_;
  segment.candidates = static_cast<uint16_t>(segment.candidates - candidate);
  candidates_ -= candidate;
}

template <class Take>
void KeyIndex::Scan(Segment& segment, const Take& take) {
  uint32_t at = static_cast<uint32_t>((Mix64(++scans_) & 0xffffffffu) * segment.lines >> 32);
  for (uint32_t visited = 0; visited < segment.lines; ++visited) {
    Line* line = LineAt(segment, at);
    for (uint32_t slot = 0; slot < kSlots;) {
      const Entry entry{line->keys[slot], line->values[slot], line->stamps[slot]};
      // A removal may put another entry here: the slot is looked at again.
      if (entry.value != 0 && take(entry)) {
        RemoveCounted(segment, at, slot);
      } else {
        ++slot;
      }
    }
    if (++at == segment.lines) at = 0;
  }
}

void KeyIndex::EvictOldest(uint32_t number, bool candidates, size_t most, std::vector<Evicted>* evicted) {
  Segment& segment = segments_[number];
  stamps_.clear();
  for (uint32_t at = 0; at < segment.lines; ++at) {
    const Line* line = LineAt(segment, at);
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      const IndexValue value(line->values[slot]);
      if (!value.empty() && value.is_candidate() == candidates) stamps_.push_back(line->stamps[slot]);
    }
  }
  most = std::min(most, stamps_.size());
  if (most == 0) return;
  std::nth_element(stamps_.begin(), stamps_.begin() + static_cast<ptrdiff_t>(most - 1), stamps_.end());
  const uint32_t last = stamps_[most - 1];
  // Those older than `last` all go, and of its equals as many as are left to take.
  size_t equals = most - static_cast<size_t>(std::count_if(stamps_.begin(), stamps_.end(),
                                                           [last](uint32_t stamp) { return stamp < last; }));
  Scan(segment, [&](const Entry& entry) {
    if (IndexValue(entry.value).is_candidate() != candidates || entry.stamp > last) return false;
    if (entry.stamp == last && equals == 0) return false;
    if (entry.stamp == last) --equals;
    evicted->push_back({entry.key, IndexValue(entry.value)});
    return true;
  });
}

void KeyIndex::EvictBefore(uint32_t number, uint32_t before, std::vector<Evicted>* evicted) {
  Scan(segments_[number], [&](const Entry& entry) {
    if (entry.stamp >= before) return false;
    evicted->push_back({entry.key, IndexValue(entry.value)});
    return true;
  });
}

void KeyIndex::Collect(const Segment& segment, std::vector<Entry>* entries) const {
  entries->clear();
  for (uint32_t at = 0; at < segment.lines; ++at) {
    const Line* line = LineAt(segment, at);
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      if (line->values[slot] != 0) entries->push_back({line->keys[slot], line->values[slot], line->stamps[slot]});
    }
  }
}

// REQUIRES: that many pages, less those that the segment has, are free.
void KeyIndex::LayOut(Segment& segment, uint32_t page_count, const std::vector<Entry>& entries) {
  while (segment.page_count > page_count) free_pages_.push_back(segment.pages[--segment.page_count]);
  while (segment.page_count < page_count) {
    segment.pages[segment.page_count++] = free_pages_.back();
    free_pages_.pop_back();
  }
  for (uint32_t page = 0; page < page_count; ++page) std::memset(segment.pages[page], 0, kPageBytes);
  segment.lines = static_cast<uint16_t>(page_count * kLinesPerPage);
  segment.entries = static_cast<uint16_t>(entries.size());
  segment.candidates = 0;
  for (const Entry& entry : entries) {
    segment.candidates = static_cast<uint16_t>(segment.candidates + IndexValue(entry.value).is_candidate());
    Put(segment, Hash(entry.key), entry);
  }
}

bool KeyIndex::TakePages(size_t count) {
  while (free_pages_.size() < count) {
    BlockRef block;
    size_t pages = PiecesToTake(pages_, kPageBytes);
    while (pages > 0 && !(block = memory_->Take(pages * kPageBytes))) pages /= 2;
    if (pages == 0) return false;
    Line* lines = reinterpret_cast<Line*>(block.mutable_floats());
    for (size_t page = pages; page > 0; --page) free_pages_.push_back(lines + (page - 1) * kLinesPerPage);
    pages_ += pages;
    blocks_.push_back(std::move(block));
  }
  return true;
}

bool KeyIndex::Deepen() {
  if (depth_ >= 30 || (uint64_t{2} << depth_) > kMostSpread * segments_.size()) return false;
  std::vector<uint32_t> deeper(directory_.size() * 2);
  for (size_t i = 0; i < deeper.size(); ++i) deeper[i] = directory_[i / 2];
  directory_ = std::move(deeper);
  ++depth_;
  return true;
}

bool KeyIndex::Grow(uint64_t hash) {
  ++layout_;
  const uint32_t number = SegmentNumber(hash);
  const uint32_t pages = segments_[number].page_count;
  if (pages < kMaxPages) {
    if (!TakePages(1)) return false;
    Collect(segments_[number], &collected_);
    LayOut(segments_[number], pages + 1, collected_);
    return true;
  }
  const uint32_t depth = segments_[number].depth;
  Collect(segments_[number], &collected_);
  for (std::vector<Entry>& half : halves_) half.clear();
  for (const Entry& entry : collected_) halves_[Hash(entry.key) >> (63 - depth) & 1].push_back(entry);
  uint32_t half_pages[2];
  for (int i = 0; i < 2; ++i) {
    half_pages[i] = std::min<uint32_t>(kMaxPages, static_cast<uint32_t>(halves_[i].size()) / kEntriesPerPage + 1);
  }
  if (!TakePages(half_pages[0] + half_pages[1] - pages)) return false;
  if (depth == depth_ && !Deepen()) return false;

  const uint32_t other = segments();
  segments_.emplace_back();
  segments_[number].depth = segments_[other].depth = static_cast<uint8_t>(depth + 1);
  // The segment stands in a run of the directory, of which the upper half is the new one's.
  const size_t run = size_t{1} << (depth_ - depth);
  const size_t begin = DirectoryAt(hash) / run * run;
  std::fill_n(directory_.begin() + static_cast<ptrdiff_t>(begin + run / 2), run / 2, other);
  LayOut(segments_[number], half_pages[0], halves_[0]);
  LayOut(segments_[other], half_pages[1], halves_[1]);
  return true;
}

}  // namespace basin
