// Shards in the memory of a GPU beside the same shards on the host: the same bits, whatever is done to both.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/random.h"
#include "common/codec/half.h"
#include "ps/device/block_plan.h"
#include "ps/device/ps_device.h"
#include "ps/shard.h"
#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

using absl::StatusCode;

constexpr uint32_t kWorker = 0x02000001;

std::vector<float> Random(size_t count, uint64_t seed) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(2 * UnitAt(seed, i) - 1);
  return values;
}

ShardOptions OptionsOf(uint64_t elements, wire::v1::RuleKind rule = wire::v1::RULE_KIND_ADAM) {
  const wire::v1::Model model = OneVariable(static_cast<int64_t>(elements), rule);
  ShardOptions options{.variable = model.variables(0), .rule = model.rule(), .begin = 0, .end = elements};
  options.rule.set_learning_rate(0.05f);
  options.rule.set_initial_accumulator(0.1f);
  options.rule.set_l1(0.02f);
  options.rule.set_l2(0.1f);
  options.variable.mutable_initializer()->set_kind(wire::v1::INIT_KIND_UNIFORM);
  options.variable.mutable_initializer()->set_a(-1);
  options.variable.mutable_initializer()->set_b(1);
  return options;
}

class GpuShardsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto device = OpenPsDevice({.name = "cuda"});
    if (device.status().code() == StatusCode::kFailedPrecondition) GTEST_SKIP() << device.status().message();
    ASSERT_TRUE(device.ok()) << device.status();
    Open({.name = "cuda"});
  }
  void Open(const PsDeviceOptions& options) {
    auto device = OpenPsDevice(options);
    ASSERT_TRUE(device.ok()) << device.status();
    auto lane = (*device)->MakeLane();
    ASSERT_TRUE(lane.ok()) << lane.status();
    lane_ = *std::move(lane);
  }

  // A shard in both places.
  struct Pair {
    std::unique_ptr<Shard> host, device;
  };
  Pair Make(const ShardOptions& options) {
    const absl::Status reserved = lane_->Reserve({&options, 1}, {});
    EXPECT_TRUE(reserved.ok()) << reserved;
    return {std::make_unique<Shard>(options, pool_), std::make_unique<Shard>(options, *lane_)};
  }
  static Shard::Write WriteOf(absl::Span<const char> bytes, uint64_t sequence) {
    return {.worker = kWorker,
            .incarnation = Incarnation(1),
            .sequence = Sequence(sequence),
            .learning_rate = std::nanf(""),
            .payload = bytes};
  }
  // What is read on the device, which has run by then.
  wire::Frame Read(Shard& shard) {
    auto frame = shard.Read();
    EXPECT_TRUE(frame.ok()) << frame.status();
    EXPECT_TRUE(lane_->Run().ok());
    return *frame;
  }
  void ExpectSame(Pair& pair, const std::string& what) {
    EXPECT_EQ(pair.host->version(), pair.device->version()) << what;
    EXPECT_EQ(pair.host->Read()->view(), Read(*pair.device).view()) << what;
  }
  void PushBoth(Pair& pair, const std::vector<float>& gradient, uint64_t sequence, const std::string& what = "") {
    const std::string bytes = Floats(gradient);
    const auto host = pair.host->Apply(WriteOf(bytes, sequence)), device = pair.device->Apply(WriteOf(bytes, sequence));
    EXPECT_EQ(host.status(), device.status()) << what;
  }

  std::shared_ptr<ShardDevice> lane_;
  const std::shared_ptr<BlockPool> pool_ = BlockPool::Make(0);
};

TEST_F(GpuShardsTest, EachRuleGivesTheHostsBits) {
  for (const auto rule : {wire::v1::RULE_KIND_SGD, wire::v1::RULE_KIND_MOMENTUM, wire::v1::RULE_KIND_ADAGRAD,
                          wire::v1::RULE_KIND_ADAM, wire::v1::RULE_KIND_FTRL}) {
    for (const uint64_t elements : {0, 1, 3, 64, 4099, 1 << 18}) {
      const std::string what = absl::StrCat("rule ", rule, ", ", elements, " elements");
      Pair pair = Make(OptionsOf(elements, rule));
      for (uint64_t step = 1; step <= 4; ++step) {
        PushBoth(pair, Random(elements, step), step, what);
        if (step % 2 == 0) ExpectSame(pair, what);
      }
    }
  }
}

TEST_F(GpuShardsTest, NesterovSchedulesAndFrozenFtrlToo) {
  ShardOptions nesterov = OptionsOf(1000, wire::v1::RULE_KIND_MOMENTUM);
  nesterov.rule.set_nesterov(true);
  for (const ShardOptions& options : {nesterov, OptionsOf(1000, wire::v1::RULE_KIND_FTRL)}) {
    Pair pair = Make(options);
    for (uint64_t step = 1; step <= 4; ++step) {
      const std::string bytes = Floats(Random(1000, step));
      Shard::Write write = WriteOf(bytes, step);
      write.learning_rate = step == 3 ? 0 : 0.5f / static_cast<float>(step);
      ASSERT_TRUE(pair.host->Apply(write).ok());
      ASSERT_TRUE(pair.device->Apply(write).ok());
    }
    ExpectSame(pair, "at a rate of 0 in between");
  }
}

TEST_F(GpuShardsTest, StatisticsGiveTheHostsBits) {
  for (const auto statistic : {wire::v1::STATISTIC_MEAN, wire::v1::STATISTIC_SUM, wire::v1::STATISTIC_LAST}) {
    ShardOptions options = OptionsOf(100);
    options.variable.set_statistic(statistic);
    Pair pair = Make(options);
    for (uint64_t step = 1; step <= 3; ++step) {
      PushBoth(pair, Random(100, step), step);
      ExpectSame(pair, absl::StrCat("statistic ", statistic, ", push ", step));
    }
  }
}

TEST_F(GpuShardsTest, InitialValuesAreTheHosts) {
  for (const auto kind :
       {wire::v1::INIT_KIND_ZEROS, wire::v1::INIT_KIND_CONSTANT, wire::v1::INIT_KIND_UNIFORM,
        wire::v1::INIT_KIND_NORMAL, wire::v1::INIT_KIND_GLOROT_UNIFORM, wire::v1::INIT_KIND_HE_NORMAL}) {
    ShardOptions options = OptionsOf(5000);
    options.variable.mutable_initializer()->set_kind(kind);
    options.variable.mutable_initializer()->set_seed(7);
    options.begin = 1024;
    options.end = 5000;
    Pair pair = Make(options);
    ExpectSame(pair, absl::StrCat("initializer ", kind));
  }
}

TEST_F(GpuShardsTest, AnAssignmentStartsTheSlotsAfresh) {
  ShardOptions options = OptionsOf(300);
  options.variable.mutable_initializer()->set_kind(wire::v1::INIT_KIND_ASSIGNED);
  Pair pair = Make(options);
  EXPECT_EQ(pair.device->Read().status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(pair.device->Apply(WriteOf(Floats(Random(300, 1)), 1)).status().code(), StatusCode::kFailedPrecondition);
  uint64_t sequence = 0;
  for (uint64_t round = 1; round <= 2; ++round) {
    const std::string values = Floats(Random(300, 100 + round));
    ++sequence;
    ASSERT_TRUE(pair.host->Assign(WriteOf(values, sequence)).ok());
    ASSERT_TRUE(pair.device->Assign(WriteOf(values, sequence)).ok());
    ExpectSame(pair, "assigned");
    for (int push = 0; push < 3; ++push) PushBoth(pair, Random(300, push), ++sequence);
    ExpectSame(pair, "pushed");
  }
  std::vector<float> bad = Random(300, 1);
  bad[299] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(pair.device->Assign(WriteOf(Floats(bad), sequence + 1)).status().message(),
            "push to \"w\" elements [0, 300): element 299 is Inf");
  ExpectSame(pair, "refused");
}

TEST_F(GpuShardsTest, ABadGradientOfABatchIsRefusedAndTheOthersAreApplied) {
  std::vector<Pair> pairs;
  std::vector<std::string> gradients;
  for (uint64_t i = 0; i < 20; ++i) {
    pairs.push_back(Make(OptionsOf(1000 + 317 * i, i % 2 == 0 ? wire::v1::RULE_KIND_ADAM : wire::v1::RULE_KIND_SGD)));
  }
  for (uint64_t step = 1; step <= 3; ++step) {
    gradients.clear();
    for (uint64_t i = 0; i < pairs.size(); ++i) {
      std::vector<float> gradient = Random(pairs[i].host->elements(), i * 10 + step);
      if (i == step * 3) gradient.back() = std::nanf("");
      gradients.push_back(Floats(gradient));
    }
    std::vector<wire::Frame> frames;
    for (uint64_t i = 0; i < pairs.size(); ++i) {
      const uint64_t sequence = pairs[i].host->last_sequence(kWorker, Incarnation(1)).value() + 1;
      static_cast<void>(pairs[i].host->Apply(WriteOf(gradients[i], sequence)));
      ASSERT_TRUE(*pairs[i].device->Begin(Shard::Change::kPush, WriteOf(gradients[i], sequence)));
      frames.push_back(*pairs[i].device->Read());
    }
    ASSERT_TRUE(lane_->Run().ok());
    for (uint64_t i = 0; i < pairs.size(); ++i) {
      const absl::Status status = pairs[i].device->End().status();
      EXPECT_EQ(status.code(), i == step * 3 ? StatusCode::kInvalidArgument : StatusCode::kOk) << status;
      EXPECT_EQ(pairs[i].host->last_sequence(kWorker, Incarnation(1)),
                pairs[i].device->last_sequence(kWorker, Incarnation(1)));
      if (status.ok()) {
        EXPECT_EQ(frames[i].view(), pairs[i].host->Read()->view()) << i;
      }
      ExpectSame(pairs[i], absl::StrCat("shard ", i));
    }
  }
}

TEST_F(GpuShardsTest, MoreThanABatchHoldsIsSeveral) {
  std::vector<Pair> pairs;
  const size_t large = 3 * kBatchBytes / kMaxShardBytes, small = kBatchShards + 100;
  for (size_t i = 0; i < large + small; ++i) {
    pairs.push_back(Make(OptionsOf(i < large ? kMaxShardBytes / sizeof(float) : 5)));
  }
  std::vector<std::string> gradients;
  for (size_t i = 0; i < pairs.size(); ++i) gradients.push_back(Floats(Random(pairs[i].host->elements(), i)));
  std::vector<wire::Frame> frames;
  for (size_t i = 0; i < pairs.size(); ++i) {
    ASSERT_TRUE(pairs[i].host->Apply(WriteOf(gradients[i], 1)).ok());
    ASSERT_TRUE(*pairs[i].device->Begin(Shard::Change::kPush, WriteOf(gradients[i], 1)));
    frames.push_back(*pairs[i].device->Read());
  }
  ASSERT_TRUE(lane_->Run().ok());
  for (size_t i = 0; i < pairs.size(); ++i) {
    ASSERT_TRUE(pairs[i].device->End().ok());
    ASSERT_EQ(frames[i].view(), pairs[i].host->Read()->view()) << i;
  }
}

TEST_F(GpuShardsTest, BytesThatAreNotAlignedAreApplied) {
  Pair pair = Make(OptionsOf(33));
  std::string bytes = Floats(Random(33, 1));
  bytes.insert(bytes.begin(), 'x');
  const absl::Span<const char> payload = absl::MakeConstSpan(bytes).subspan(1);
  ASSERT_TRUE(pair.host->Apply(WriteOf(payload, 1)).ok());
  ASSERT_TRUE(pair.device->Apply(WriteOf(payload, 1)).ok());
  ExpectSame(pair, "");
}

TEST_F(GpuShardsTest, GradientsIn16BitsAreAppliedAsOnTheHost) {
  for (const DType type : {DType::kF16, DType::kBF16}) {
    Pair pair = Make(OptionsOf(4099)), beside = Make(OptionsOf(77));
    for (uint64_t step = 1; step <= 3; ++step) {
      std::string halves(4099 * 2, 0);
      ASSERT_TRUE(Narrow(type, Random(4099, step).data(), 4099, halves.data()));
      Shard::Write write = WriteOf(halves, step);
      write.dtype = type;
      ASSERT_TRUE(pair.host->Apply(write).ok());
      const std::string floats = Floats(Random(77, step));
      ASSERT_TRUE(beside.host->Apply(WriteOf(floats, step)).ok());
      ASSERT_TRUE(*beside.device->Begin(Shard::Change::kPush, WriteOf(floats, step)));
      ASSERT_TRUE(*pair.device->Begin(Shard::Change::kPush, write));
      ASSERT_TRUE(beside.device->End().ok());
      ASSERT_TRUE(pair.device->End().ok());
    }
    ExpectSame(pair, "halves");
    ExpectSame(beside, "floats");
    const std::string bad(4099 * 2, '\x7f');  // a NaN in both types
    Shard::Write write = WriteOf(bad, 4);
    write.dtype = type;
    EXPECT_EQ(pair.device->Apply(write).status(), pair.host->Apply(write).status());
    ExpectSame(pair, "refused");
  }
}

TEST_F(GpuShardsTest, WhatWasReadHoldsStillAndIsNotCopiedAgain) {
  Pair pair = Make(OptionsOf(50000));
  PushBoth(pair, Random(50000, 1), 1);
  const wire::Frame first = Read(*pair.device);
  EXPECT_EQ(Read(*pair.device).data(), first.data());
  const std::string before(first.view());
  PushBoth(pair, Random(50000, 2), 2);
  EXPECT_EQ(first.view(), before);
  const wire::Frame second = Read(*pair.device);
  EXPECT_NE(second.data(), first.data());
  EXPECT_NE(second.view(), before);
}

TEST_F(GpuShardsTest, CopiesOnTheHostStayFew) {
  Open({.name = "cuda", .reply_limit_bytes = 70 * BlockPool::Footprint(4096)});
  std::vector<Pair> pairs;
  for (int i = 0; i < 200; ++i) pairs.push_back(Make(OptionsOf(1024)));
  for (Pair& pair : pairs) ExpectSame(pair, "");
}

TEST_F(GpuShardsTest, WithoutPinnedMemoryForAReplyNothingElseFails) {
  Open({.name = "cuda", .reply_limit_bytes = BlockPool::Footprint(4096)});
  Pair pair = Make(OptionsOf(1024));
  const wire::Frame held = Read(*pair.device);
  PushBoth(pair, Random(1024, 1), 1);
  EXPECT_EQ(pair.device->Read().status().code(), StatusCode::kResourceExhausted);
  PushBoth(pair, Random(1024, 2), 2);
}

TEST_F(GpuShardsTest, WithoutDeviceMemoryShardsAreRefusedWithBothNumbers) {
  const uint64_t limit = lane_->bytes() + 4 * 4096;
  Open({.name = "cuda", .memory_limit_bytes = limit});
  const ShardOptions fits = OptionsOf(1024, wire::v1::RULE_KIND_MOMENTUM), more = OptionsOf(1024);
  ASSERT_TRUE(lane_->Reserve({&fits, 1}, {}).ok());
  EXPECT_EQ(lane_->bytes(), limit);
  const absl::Status refused = lane_->Reserve({&more, 1}, {});
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(
      refused.message(),
      absl::StrCat("the model's shards, with the rule's slots and the blocks of a batch, need ", 7 * 4096,
                   " bytes on cuda:0; ", limit, " of ", limit,
                   " bytes are taken already; use more ps, or start basin-ps with a larger --device-memory-limit"));
  EXPECT_EQ(lane_->bytes(), limit);
  Shard shard(fits, *lane_);
  EXPECT_TRUE(shard.Apply(WriteOf(Floats(Random(1024, 1)), 1)).ok());
}

TEST_F(GpuShardsTest, MoreThanTheDeviceHasIsRefused) {
  Open({.name = "cuda", .memory_limit_bytes = uint64_t{1} << 60});
  const ShardOptions all = OptionsOf(uint64_t{1} << 50, wire::v1::RULE_KIND_SGD);
  const absl::Status refused = lane_->Reserve({&all, 1}, {});
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted) << refused;
  Pair pair = Make(OptionsOf(10));
  PushBoth(pair, Random(10, 1), 1);
  ExpectSame(pair, "");
}

}  // namespace
}  // namespace basin
