#include "ps/table/key_block.h"

#include <algorithm>
#include <cstring>

#include "ps/table/fetch_line.h"

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define BASIN_AVX2_FIND 1
#include <immintrin.h>
#endif

namespace basin {
namespace {

// Lines of a row that are fetched ahead; the processor follows longer ones by itself.
constexpr size_t kFetchedBytes = 256;
constexpr size_t kLineBytes = 64;

struct PlainMatch {
  // Bit i: keys[i] is the key.
  __attribute__((always_inline)) static uint32_t Of(const uint64_t* keys, uint64_t key) {
    uint32_t same = 0;
    for (uint32_t i = 0; i < 4; ++i) same |= static_cast<uint32_t>(keys[i] == key) << i;
    return same;
  }
};

template <bool kStamp, class Match>
__attribute__((always_inline)) inline void FindLoop(KeyIndex& index, const RowSlab& slab_given, const KeyBlock& block,
                                                    size_t row_bytes, uint32_t stamp, FoundRows* found) {
  const RowSlab::View slab = slab_given.view();
  const size_t size = block.size;
  const size_t fetched = std::min(row_bytes, kFetchedBytes);
  size_t rows = 0, later = 0;
  uint8_t places_later[KeyBlock::kKeys + 1];
  // Without branches: whether a key is in its first line is nothing that the processor could foresee. Each turn writes
  // both lists' next place, and moves on in one of them.
  for (size_t i = 0; i < size && slab.any(); ++i) {
    KeyIndex::Line* line = block.lines[i];
    const uint32_t same = Match::Of(line->keys, block.keys[i]);
    const uint32_t slot = static_cast<uint32_t>(__builtin_ctz(same | 8));
    const IndexValue value(line->values[slot]);
    const bool hit = (same != 0) & value.is_row();
    if (kStamp) line->stamps[slot] = hit ? stamp : line->stamps[slot];
    char* row = slab.At(hit ? value.row() : 0);
    for (size_t at = 0; at < fetched; at += kLineBytes) FetchLine(row + at);
    FetchLine(row + fetched - 1);
    FetchLine(hit ? line : line + 1);  // where the search goes on, but for the end of a page
    found->rows[rows] = row;
    found->places[rows] = static_cast<uint8_t>(i);
    rows += hit;
    places_later[later] = static_cast<uint8_t>(i);
    later += !hit;
  }
  if (!slab.any()) {
    for (later = 0; later < size; ++later) places_later[later] = static_cast<uint8_t>(later);
  }
  size_t without = 0;
  for (size_t k = 0; k < later; ++k) {
    const size_t i = places_later[k];
    const IndexValue value =
        kStamp ? index.FindAndStamp(block.hashes[i], block.keys[i], stamp) : index.Find(block.hashes[i], block.keys[i]);
    if (!value.is_row()) {
      found->places_without[without++] = static_cast<uint8_t>(i);
      continue;
    }
    char* row = slab.At(value.row());
    for (size_t at = 0; at < fetched; at += kLineBytes) FetchLine(row + at);
    found->rows[rows] = row;
    found->places[rows++] = static_cast<uint8_t>(i);
  }
  found->rows_found = rows;
  found->without_row = without;
}

template <bool kStamp>
void Plain(KeyIndex& index, const RowSlab& slab, const KeyBlock& block, size_t row_bytes, uint32_t stamp,
           FoundRows* found) {
  FindLoop<kStamp, PlainMatch>(index, slab, block, row_bytes, stamp, found);
}

#if defined(BASIN_AVX2_FIND)
struct Avx2Match {
  __attribute__((target("avx2"))) static inline uint32_t Of(const uint64_t* keys, uint64_t key) {
    const __m256i line = _mm256_load_si256(reinterpret_cast<const __m256i*>(keys));
    const __m256i same = _mm256_cmpeq_epi64(line, _mm256_set1_epi64x(static_cast<int64_t>(key)));
    return static_cast<uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(same)));
  }
};

template <bool kStamp>
__attribute__((target("avx2,bmi"))) void Avx2(KeyIndex& index, const RowSlab& slab, const KeyBlock& block,
                                              size_t row_bytes, uint32_t stamp, FoundRows* found) {
  FindLoop<kStamp, Avx2Match>(index, slab, block, row_bytes, stamp, found);
}

bool HasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"); }
#endif

using FindFunction = void (*)(KeyIndex&, const RowSlab&, const KeyBlock&, size_t, uint32_t, FoundRows*);
template <bool kStamp>
FindFunction Chosen() {
#if defined(BASIN_AVX2_FIND)
  if (HasAvx2()) return &Avx2<kStamp>;
#endif
  return &Plain<kStamp>;
}

}  // namespace

void KeyBlock::Load(const KeyIndex& index, const char* all_keys, size_t begin, size_t n) {
  size = begin < n ? std::min(kKeys, n - begin) : 0;
  layout = index.layout();
  all_keys += begin * sizeof(uint64_t);
  for (size_t i = 0; i < size; ++i) {
    std::memcpy(&keys[i], all_keys + i * sizeof(uint64_t), sizeof(uint64_t));
    hashes[i] = KeyIndex::Hash(keys[i]);
    lines[i] = index.FirstLine(hashes[i]);
    FetchLine(lines[i]);
  }
}

void KeyBlock::Refresh(const KeyIndex& index) {
  if (layout == index.layout()) return;
  layout = index.layout();
  for (size_t i = 0; i < size; ++i) lines[i] = index.FirstLine(hashes[i]);
}

void FindAndStamp(KeyIndex& index, const RowSlab& slab, const KeyBlock& block, size_t row_bytes, uint32_t stamp,
                  FoundRows* found) {
  static const FindFunction find = Chosen<true>();
  find(index, slab, block, row_bytes, stamp, found);
}

void FindOnly(KeyIndex& index, const RowSlab& slab, const KeyBlock& block, size_t row_bytes, FoundRows* found) {
  static const FindFunction find = Chosen<false>();
  find(index, slab, block, row_bytes, 0, found);
}

}  // namespace basin
