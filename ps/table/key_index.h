// The index of a table: from a key to the number of its row, or to the count of a key that is not admitted yet, with
// the time of its last push. Extendible hashing (Fagin, Nievergelt, Pippenger, Strong, ACM TODS 4, 1979) over segments,
// and open addressing by cache lines inside a segment.
//
//   directory[top bits of the hash] -> segment -> up to 7 pages of 128 lines -> line of 4 entries, 64 B
//
// A segment that is full takes one page more and is laid out anew; one of 7 pages splits into two of 4. So the index
// grows by a few microseconds' work here and there, and is 72 to 87.5% full. Entries that find their line full stand
// in the next one that is not; a removal moves them back, and there are no tombstones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/base/random.h"
#include "ps/block.h"
#include "ps/table/table_memory.h"

namespace basin {

// An entry's value: nothing, a row, or a candidate with its count of pushes.
class IndexValue final {
 public:
  static constexpr uint32_t kLargestCount = (1u << 31) - 1;
  constexpr IndexValue() = default;
  constexpr explicit IndexValue(uint32_t bits) : bits_(bits) {}
  static constexpr IndexValue Row(uint32_t row) { return IndexValue(row + 1); }
  static constexpr IndexValue Candidate(uint32_t count) { return IndexValue(kCandidate | count); }

  constexpr bool empty() const { return bits_ == 0; }
  constexpr bool is_row() const { return static_cast<int32_t>(bits_) > 0; }
  constexpr bool is_candidate() const { return (bits_ & kCandidate) != 0; }
  constexpr uint32_t row() const { return bits_ - 1; }
  constexpr uint32_t count() const { return bits_ & ~kCandidate; }
  constexpr uint32_t bits() const { return bits_; }

 private:
  static constexpr uint32_t kCandidate = 1u << 31;
  uint32_t bits_ = 0;
};

class KeyIndex final {
 public:
  static constexpr uint32_t kSlots = 4;
  struct alignas(64) Line {
    uint64_t keys[kSlots];
    uint32_t values[kSlots];  // IndexValue
    uint32_t stamps[kSlots];
  };
  static_assert(sizeof(Line) == 64);

  struct Evicted {
    uint64_t key;
    IndexValue value;
  };

  // `memory` outlives the index.
  explicit KeyIndex(TableMemory* memory);

  static uint64_t Hash(uint64_t key) { return Mix64(key); }
  // Where a search for the hash begins, until layout() changes.
  Line* FirstLine(uint64_t hash) const {
    const Segment& segment = SegmentAt(hash);
    return LineAt(segment, HomeOf(segment, hash));
  }
  uint64_t layout() const { return layout_; }
  // The key's value; empty: the key is not there.
  IndexValue Find(uint64_t hash, uint64_t key) const {
    const Segment& segment = SegmentAt(hash);
    for (uint32_t at = HomeOf(segment, hash);;) {
      const Line* line = LineAt(segment, at);
      const int slot = SlotOf(*line, key);
      if (slot >= 0) return IndexValue(line->values[slot]);
      if (slot == kHasGap) return IndexValue();
      if (++at == segment.lines) at = 0;
    }
  }
  // As Find; a row's last push is now `stamp`.
  IndexValue FindAndStamp(uint64_t hash, uint64_t key, uint32_t stamp) {
    const Segment& segment = SegmentAt(hash);
    for (uint32_t at = HomeOf(segment, hash);;) {
      Line* line = LineAt(segment, at);
      const int slot = SlotOf(*line, key);
      if (slot >= 0) {
        line->stamps[slot] = stamp;
        return IndexValue(line->values[slot]);
      }
      if (slot == kHasGap) return IndexValue();
      if (++at == segment.lines) at = 0;
    }
  }

  // REQUIRES: the key is not there; HasRoom(hash); `value` is not empty.
  void Insert(uint64_t hash, uint64_t key, IndexValue value, uint32_t stamp);
  // REQUIRES: the key is there; neither value is empty.
  void Replace(uint64_t hash, uint64_t key, IndexValue value, uint32_t stamp);

  bool HasRoom(uint64_t hash) const { return SegmentAt(hash).entries < CapacityOf(SegmentAt(hash)); }
  // Makes the segment of `hash` larger, or two of it. False without memory, or where keys that were chosen to collide
  // would have it grow without end; nothing has changed then.
  bool Grow(uint64_t hash);

  uint32_t segments() const { return static_cast<uint32_t>(segments_.size()); }
  uint32_t SegmentNumber(uint64_t hash) const { return directory_[DirectoryAt(hash)]; }
  uint32_t RowsIn(uint32_t segment) const { return segments_[segment].entries - segments_[segment].candidates; }
  uint32_t CandidatesIn(uint32_t segment) const { return segments_[segment].candidates; }
  uint64_t candidates() const { return candidates_; }
  uint64_t rows() const { return entries_ - candidates_; }

  // Removes rows, or else candidates, of the segment: the `most` that were pushed least recently. Appends them.
  void EvictOldest(uint32_t segment, bool candidates, size_t most, std::vector<Evicted>* evicted);
  // Removes the segment's rows and candidates whose stamp is below `before`. Appends them.
  void EvictBefore(uint32_t segment, uint32_t before, std::vector<Evicted>* evicted);

  size_t beside_bytes() const {
    return segments_.capacity() * sizeof(Segment) + directory_.capacity() * sizeof(uint32_t) +
           free_pages_.capacity() * sizeof(Line*);
  }

 private:
  static constexpr uint32_t kLinesPerPage = 128;
  static constexpr uint32_t kPageShift = 7;
  static constexpr size_t kPageBytes = kLinesPerPage * sizeof(Line);
  static constexpr uint32_t kMaxPages = 7;
  // 7 of 8 slots: above, the lines that a search reads become many.
  static constexpr uint32_t kEntriesPerPage = kLinesPerPage * kSlots / 8 * 7;
  struct alignas(64) Segment {
    Line* pages[kMaxPages];
    uint16_t entries;
    uint16_t candidates;
    uint16_t lines;
    uint8_t page_count;
    uint8_t depth;  // how many top bits of the hash its keys share
  };
  static_assert(sizeof(Segment) == 64);
  struct Entry {
    uint64_t key;
    uint32_t value;
    uint32_t stamp;
  };
  static constexpr int kHasGap = -1;
  static constexpr int kFull = -2;

  size_t DirectoryAt(uint64_t hash) const { return (hash >> 1) >> (63 - depth_); }
  const Segment& SegmentAt(uint64_t hash) const { return segments_[directory_[DirectoryAt(hash)]]; }
  Segment& SegmentAt(uint64_t hash) { return segments_[directory_[DirectoryAt(hash)]]; }
  static uint32_t HomeOf(const Segment& segment, uint64_t hash) {
    return static_cast<uint32_t>((hash & 0xffffffffu) * segment.lines >> 32);
  }
  static Line* LineAt(const Segment& segment, uint32_t at) {
    return segment.pages[at >> kPageShift] + (at & (kLinesPerPage - 1));
  }
  static uint32_t CapacityOf(const Segment& segment) { return segment.page_count * kEntriesPerPage; }
  // The key's slot; kHasGap: not there, and no later line has it; kFull: later lines may. An empty slot's key is
  // whatever stood there last.
  static int SlotOf(const Line& line, uint64_t key) {
    uint32_t same = 0;
    for (uint32_t i = 0; i < kSlots; ++i) same |= static_cast<uint32_t>(line.keys[i] == key) << i;
    for (; same != 0; same &= same - 1) {
      const int slot = __builtin_ctz(same);
      if (line.values[slot] != 0) [[likely]]
        return slot;
    }
    return GapOf(line) < kSlots ? kHasGap : kFull;
  }
  // The first empty slot, or kSlots.
  static uint32_t GapOf(const Line& line) {
    uint32_t gap = 0;
    while (gap < kSlots && line.values[gap] != 0) ++gap;
    return gap;
  }
  static void Put(Segment& segment, uint64_t hash, const Entry& entry);
  // Empties the slot and moves entries back that passed over it.
  static void Remove(Segment& segment, uint32_t line, uint32_t slot);
  void RemoveCounted(Segment& segment, uint32_t line, uint32_t slot);
  // Calls `take(entry)` for each entry, from a line that differs from call to call; true removes it.
  template <class Take>
  void Scan(Segment& segment, const Take& take);

  bool Deepen();
  bool TakePages(size_t count);
  void LayOut(Segment& segment, uint32_t page_count, const std::vector<Entry>& entries);
  void Collect(const Segment& segment, std::vector<Entry>* entries) const;

  TableMemory* const memory_;
  std::vector<BlockRef> blocks_;
  std::vector<Line*> free_pages_;
  size_t pages_ = 0;
  std::vector<Segment> segments_;
  std::vector<uint32_t> directory_;  // 2^depth_ numbers of segments
  uint32_t depth_ = 0;
  uint64_t entries_ = 0;
  uint64_t candidates_ = 0;
  uint64_t scans_ = 0;
  uint64_t layout_ = 0;
  // Kept for their memory.
  std::vector<Entry> collected_, halves_[2];
  std::vector<uint32_t> stamps_;
};

}  // namespace basin
