// Which keys of a push stand more than once.
#include "ps/device/key_turns.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "common/base/random.h"

namespace basin {
namespace {

std::string BytesOf(const std::vector<uint64_t>& keys) {
  std::string bytes(1, 'x');  // so that they are not aligned
  return bytes.append(reinterpret_cast<const char*>(keys.data()), keys.size() * sizeof(uint64_t));
}

uint32_t CountOf(KeyTurns& turns, const std::vector<uint64_t>& keys) {
  return turns.Count(BytesOf(keys).data() + 1, keys.size());
}

TEST(KeyTurnsTest, DifferentKeysAreOneTurn) {
  KeyTurns turns(0x9e3779b97f4a7c15);
  EXPECT_EQ(CountOf(turns, {7}), 1u);
  EXPECT_EQ(CountOf(turns, {0, 1, ~uint64_t{0}, uint64_t{1} << 63}), 1u);
  EXPECT_EQ(CountOf(turns, {7, 0}), 1u) << "an earlier call's keys are forgotten";
}

TEST(KeyTurnsTest, PlacesStandTurnByTurnInTheirOrder) {
  KeyTurns turns(0x9e3779b97f4a7c15);
  EXPECT_EQ(CountOf(turns, {5, 0, 5, 9, 5, 0}), 3u);
  EXPECT_EQ(turns.turn_begin(), (std::vector<uint32_t>{0, 3, 5, 6}));
  EXPECT_EQ(turns.places(), (std::vector<uint32_t>{0, 1, 3, 2, 5, 4}));
}

// A multiplier of 1 puts small keys into one place, as an enemy would who knew it.
TEST(KeyTurnsTest, EachKeyStandsOnceInATurnWhateverTheKeys) {
  for (const uint64_t multiplier : {uint64_t{1}, uint64_t{0x9e3779b97f4a7c15}}) {
    KeyTurns turns(multiplier);
    Random random(multiplier);
    for (const size_t n : {10, 3000, 200, 1000}) {
      std::vector<uint64_t> keys(n);
      for (uint64_t& key : keys) key = random.Below(n / 4 + 1);
      std::map<uint64_t, uint32_t> times;
      uint32_t most = 0;
      for (const uint64_t key : keys) most = std::max(most, ++times[key]);
      ASSERT_EQ(CountOf(turns, keys), most);
      std::map<uint64_t, uint32_t> stood;
      for (uint32_t turn = 0; turn < most; ++turn) {
        for (uint32_t at = turns.turn_begin()[turn]; at < turns.turn_begin()[turn + 1]; ++at) {
          ASSERT_EQ(stood[keys[turns.places()[at]]]++, turn);
        }
      }
      ASSERT_EQ(stood, times);
    }
  }
}

}  // namespace
}  // namespace basin
