// A table in the memory of a GPU whose gradients and rows lie in memory that clients have mapped, beside a table on the
// host that gets the same: the same bits, and the same refusals.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/wire/device_places.h"
#include "ps/block.h"
#include "ps/device/block_plan.h"
#include "ps/device/ps_device.h"
#include "ps/table/host_table.h"
#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

using absl::StatusCode;

// What a lane would have lent.
constexpr size_t kRoomBytes = size_t{16} << 20;

class GpuPlacedRowsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto device = OpenPsDevice({.name = "cuda"});
    if (device.status().code() == StatusCode::kFailedPrecondition) GTEST_SKIP() << device.status().message();
    ASSERT_TRUE(device.ok()) << device.status();
    auto lane = (*device)->MakeLane();
    ASSERT_TRUE(lane.ok()) << lane.status();
    lane_ = *std::move(lane);
    void* room = nullptr;
    ASSERT_EQ(cudaMalloc(&room, kRoomBytes), cudaSuccess);
    room_.reset(static_cast<char*>(room));
  }

  static StoredTableOptions OptionsOf(uint32_t dim, RuleKind rule = RuleKind::kAdam, DType storage = DType::kF32,
                                      uint64_t max_bytes = 4 << 20) {
    StoredTableOptions options;
    options.name = absl::StrCat("of ", dim);
    options.dim = dim;
    options.storage = storage;
    options.init = {.kind = InitKind::kUniform, .a = -0.5f, .b = 0.25f, .seed = 7};
    options.rule.kind = rule;
    options.rule.learning_rate = 0.0625f;
    options.max_bytes = max_bytes;
    return options;
  }
  // A table in both places.
  struct Pair {
    StoredTableOptions options;
    std::unique_ptr<HostTable> host;
    std::unique_ptr<DeviceTable> there;
  };
  Pair Make(const StoredTableOptions& options) {
    const absl::Status reserved = lane_->Reserve({}, {&options, 1});
    EXPECT_TRUE(reserved.ok()) << reserved;
    return {options, std::make_unique<HostTable>(options, pool_), lane_->MakeTable(options.name)};
  }

  static std::string KeysFrom(uint64_t first, size_t count) {
    std::vector<uint64_t> keys(count);
    for (size_t i = 0; i < count; ++i) keys[i] = (first + i) * 0x9e3779b97f4a7c15ull;
    return std::string(reinterpret_cast<const char*>(keys.data()), count * sizeof(uint64_t));
  }
  static std::string Gradients(const Pair& pair, size_t count, uint64_t seed, DType type = DType::kF32) {
    std::vector<float> values(count * pair.options.dim);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(2 * UnitAt(seed, i) - 1);
    return type == DType::kF32 ? Floats(values) : Halves(type, values);
  }
  // The next place for rows; those of one length lie one behind the other.
  char* Place(size_t bytes, size_t row_bytes) {
    const size_t alignment = wire::RowPlaceAlignment(row_bytes);
    used_ = (used_ + alignment - 1) / alignment * alignment;
    char* const place = room_.get() + used_;
    used_ += bytes;
    EXPECT_LE(used_, kRoomBytes);
    return place;
  }
  char* Put(const std::string& bytes, size_t row_bytes) {
    char* const place = Place(bytes.size(), row_bytes);
    EXPECT_EQ(cudaMemcpy(place, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return place;
  }
  static std::string Get(const char* place, size_t bytes) {
    std::string found(bytes, '?');
    EXPECT_EQ(cudaMemcpy(found.data(), place, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
    return found;
  }

  // Begins a push on the device, placed or from the host, and does it on the host where it is good.
  absl::Status* Push(Pair& pair, const std::string& keys, const std::string& gradients, DType type, bool is_placed,
                     bool is_good = true) {
    const size_t count = keys.size() / sizeof(uint64_t), row_bytes = pair.options.dim * SizeOf(type);
    absl::Status& refused = refused_.emplace_back();
    absl::Status begun;
    if (is_placed) {
      begun = pair.there->PushPlaced(keys.data(), count, Put(gradients, row_bytes), NAN, now_, type, &refused);
    } else {
      begun = pair.there->Push(keys.data(), count, gradients.data(), NAN, now_, type);
    }
    EXPECT_EQ(begun, absl::OkStatus());
    if (is_good) {
      EXPECT_TRUE(pair.host->Push(keys.data(), count, gradients.data(), NAN, now_, type).ok());
    }
    return &refused;
  }
  const char* Pull(Pair& pair, const std::string& keys) {
    const size_t count = keys.size() / sizeof(uint64_t), row_bytes = pair.options.dim * sizeof(float);
    char* const place = Place(count * row_bytes, row_bytes);
    EXPECT_EQ(pair.there->PullPlaced(keys.data(), count, place), absl::OkStatus());
    return place;
  }
  static std::string OnHost(const Pair& pair, const std::string& keys) {
    const size_t count = keys.size() / sizeof(uint64_t);
    std::string rows(count * pair.options.dim * sizeof(float), '?');
    pair.host->Pull(keys.data(), count, rows.data());
    return rows;
  }
  void ExpectSame(Pair& pair, const std::string& keys, const char* place) {
    const std::string expected = OnHost(pair, keys);
    EXPECT_TRUE(Get(place, expected.size()) == expected) << "rows of " << pair.options.name << " differ";
  }
  void StartMessage() {
    used_ = 0;
    refused_.clear();
    lane_->StartMessage();
    now_ += absl::Seconds(1);
  }

  struct FreeOnDevice {
    void operator()(char* memory) const { static_cast<void>(cudaFree(memory)); }
  };
  const std::shared_ptr<BlockPool> pool_ = BlockPool::Make(0);
  std::shared_ptr<ShardDevice> lane_;
  std::unique_ptr<char, FreeOnDevice> room_;
  size_t used_ = 0;
  std::deque<absl::Status> refused_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(24);
};

TEST_F(GpuPlacedRowsTest, EachLengthTypeAndStorageGivesTheHostsBits) {
  std::deque<Pair> pairs;
  for (const uint32_t dim : {1, 3, 4, 6, 64}) pairs.push_back(Make(OptionsOf(dim)));
  pairs.push_back(Make(OptionsOf(5, RuleKind::kAdagrad, DType::kF16)));
  pairs.push_back(Make(OptionsOf(8, RuleKind::kRowwiseAdagrad, DType::kBF16)));
  for (uint64_t step = 1; step <= 4; ++step) {
    StartMessage();
    struct Pulled {
      Pair* pair;
      std::string keys;
      const char* place;
      const char* on_host;
    };
    std::vector<Pulled> pulled;
    // Entries of a table stand together, some placed and some not; pulls both ways.
    for (Pair& pair : pairs) {
      for (uint64_t entry = 0; entry < 8; ++entry) {
        const std::string keys = KeysFrom(entry * 1000 + step, 1 + (entry * 7 + step) % 40);
        const size_t count = keys.size() / sizeof(uint64_t);
        const DType type = entry % 4 == 1 ? DType::kF16 : entry % 4 == 2 ? DType::kBF16 : DType::kF32;
        Push(pair, keys, Gradients(pair, count, step * 100 + entry, type), type, /*is_placed=*/entry % 3 != 0);
        Pulled& last = pulled.emplace_back(Pulled{&pair, keys, nullptr, nullptr});
        if (entry % 2 == 0) {
          last.place = Pull(pair, keys);
        } else {
          last.on_host = *pair.there->Pull(keys.data(), count);
        }
      }
    }
    ASSERT_TRUE(lane_->Run().ok());
    for (const absl::Status& refused : refused_) EXPECT_EQ(refused, absl::OkStatus());
    for (const Pulled& one : pulled) {
      if (one.place != nullptr) ExpectSame(*one.pair, one.keys, one.place);
      if (one.on_host == nullptr) continue;
      const std::string expected = OnHost(*one.pair, one.keys);
      EXPECT_TRUE(expected == std::string(one.on_host, expected.size())) << one.pair->options.name;
    }
  }
}

TEST_F(GpuPlacedRowsTest, WhatIsNotFiniteRefusesItsPushAloneAndIsNamed) {
  Pair pair = Make(OptionsOf(6)), other = Make(OptionsOf(1));
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    StartMessage();
    std::vector<absl::Status*> refused;
    std::vector<std::string> keys;
    std::vector<const char*> places;
    const std::string beside = KeysFrom(1, 30), of_other = KeysFrom(5, 40);
    Push(pair, beside, Gradients(pair, 30, 9), DType::kF32, /*is_placed=*/false);
    for (uint64_t entry = 0; entry < 9; ++entry) {
      // The first, two that stand together, and the last; the bad number in one of several chunks.
      const bool is_bad = entry == 0 || entry == 3 || entry == 4 || entry == 8;
      const size_t count = entry == 3 ? 2000 : 20;
      keys.push_back(KeysFrom(entry * 10'000 + 100, count));
      std::string gradients = Gradients(pair, count, entry, type);
      const float bad = entry == 4 ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
      const std::string as_sent = type == DType::kF32 ? Floats({bad}) : Halves(type, {bad});
      // Row 17, column 2, and later ones.
      for (const size_t element : {size_t{17 * 6 + 2}, count * 6 - 1}) {
        if (is_bad) std::memcpy(gradients.data() + element * SizeOf(type), as_sent.data(), as_sent.size());
      }
      refused.push_back(Push(pair, keys.back(), gradients, type, /*is_placed=*/true, !is_bad));
      places.push_back(Pull(pair, keys.back()));
    }
    Push(other, of_other, Gradients(other, 40, 3), DType::kF32, /*is_placed=*/true);
    const char* const other_place = Pull(other, of_other);
    ASSERT_TRUE(lane_->Run().ok());
    for (uint64_t entry = 0; entry < 9; ++entry) {
      const bool is_bad = entry == 0 || entry == 3 || entry == 4 || entry == 8;
      EXPECT_EQ(refused[entry]->code(), is_bad ? StatusCode::kInvalidArgument : StatusCode::kOk) << entry;
      uint64_t key;
      std::memcpy(&key, keys[entry].data() + 17 * sizeof(key), sizeof(key));
      if (is_bad) {
        EXPECT_TRUE(absl::StrContains(
            refused[entry]->message(),
            absl::StrCat("table \"of 6\": the gradient of key ", key, " is not finite at element 2, expected finite")))
            << *refused[entry];
      }
      ExpectSame(pair, keys[entry], places[entry]);
    }
    ExpectSame(other, of_other, other_place);
    // What was not placed was applied once, as on the host.
    StartMessage();
    const char* const place = Pull(pair, beside);
    ASSERT_TRUE(lane_->Run().ok());
    ExpectSame(pair, beside, place);
    EXPECT_EQ(pair.there->counters().rows, pair.host->counters().rows);
  }
}

TEST_F(GpuPlacedRowsTest, NearItsBoundARefusedPushEvictsNothing) {
  Pair pair = Make(OptionsOf(16, RuleKind::kSgd, DType::kF32, 64 << 10));
  const size_t most = (size_t{64} << 10) / (16 * sizeof(float) + 12);
  StartMessage();
  Push(pair, KeysFrom(0, most * 6 / 10), Gradients(pair, most * 6 / 10, 1), DType::kF32, /*is_placed=*/true);
  ASSERT_TRUE(lane_->Run().ok());
  const TableCounters before = pair.there->counters();
  EXPECT_GT(before.rows, most / 2);
  StartMessage();
  const std::string keys = KeysFrom(1 << 20, most);
  std::string gradients = Gradients(pair, most, 2);
  const float bad = NAN;
  std::memcpy(gradients.data() + gradients.size() - sizeof(bad), &bad, sizeof(bad));
  const absl::Status* const refused = Push(pair, keys, gradients, DType::kF32, /*is_placed=*/true, /*is_good=*/false);
  ASSERT_TRUE(lane_->Run().ok());
  EXPECT_EQ(refused->code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(pair.there->counters().rows, before.rows);
  EXPECT_EQ(pair.there->counters().evicted, 0u);
  EXPECT_EQ(pair.there->counters().dropped_gradients, 0u);
  // A good one makes room.
  StartMessage();
  const std::string few = KeysFrom(1 << 20, most / 4);
  Push(pair, few, Gradients(pair, most / 4, 3), DType::kF32, /*is_placed=*/true);
  const char* const place = Pull(pair, few);
  ASSERT_TRUE(lane_->Run().ok());
  EXPECT_EQ(pair.there->counters().dropped_gradients, 0u);
  ExpectSame(pair, few, place);
}

TEST_F(GpuPlacedRowsTest, MoreThanABatchHoldsIsSeveral) {
  Pair pair = Make(OptionsOf(64, RuleKind::kAdagrad, DType::kF32, 32 << 20));
  const size_t each = 3000, entries = 1 + kBatchBytes / (each * 64 * sizeof(float));
  StartMessage();
  std::vector<std::string> keys;
  for (uint64_t entry = 0; entry < entries; ++entry) {
    keys.push_back(KeysFrom(entry * each, each));
    Push(pair, keys.back(), Gradients(pair, each, entry), DType::kF32, /*is_placed=*/true);
  }
  std::vector<const char*> places;
  for (const std::string& of_entry : keys) places.push_back(Pull(pair, of_entry));
  ASSERT_TRUE(lane_->Run().ok());
  for (uint64_t entry = 0; entry < entries; ++entry) ExpectSame(pair, keys[entry], places[entry]);
}

TEST_F(GpuPlacedRowsTest, AKeyThatStandsTwiceIsRefusedAtOnce) {
  Pair pair = Make(OptionsOf(4));
  StartMessage();
  const std::string keys = KeysFrom(1, 3) + KeysFrom(2, 1);
  absl::Status refused;
  EXPECT_EQ(
      pair.there
          ->PushPlaced(keys.data(), 4, Put(Gradients(pair, 4, 1), 4 * sizeof(float)), NAN, now_, DType::kF32, &refused)
          .code(),
      StatusCode::kInvalidArgument);
  ASSERT_TRUE(lane_->Run().ok());
  EXPECT_EQ(pair.there->counters().rows, 0u);
}

}  // namespace
}  // namespace basin
