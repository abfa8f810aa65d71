#include "ps/shard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/base/random.h"
#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

constexpr uint32_t kWorker = 0x02000001;

class ShardTest : public ::testing::Test {
 protected:
  std::unique_ptr<Shard> Make(wire::v1::Model model, std::shared_ptr<BlockPool> pool = BlockPool::Make(0)) {
    const auto elements = static_cast<uint64_t>(model.variables(0).shape(0));
    return std::make_unique<Shard>(
        ShardOptions{.variable = model.variables(0), .rule = model.rule(), .begin = 0, .end = elements},
        std::move(pool));
  }
  static Shard::Write WriteOf(const std::string& bytes, uint64_t sequence, uint64_t incarnation = 1) {
    return {.worker = kWorker,
            .incarnation = Incarnation(incarnation),
            .sequence = Sequence(sequence),
            .learning_rate = std::nanf(""),
            .payload = bytes};
  }
  static std::vector<float> Values(Shard& shard) { return {shard.parameters(), shard.parameters() + shard.elements()}; }
};

TEST_F(ShardTest, APushIsAppliedByTheRule) {
  auto shard = Make(OneVariable(2));
  EXPECT_EQ(shard->version(), Version(1));
  ASSERT_TRUE(shard->Apply(WriteOf(Floats({1, -2}), 1)).ok());
  EXPECT_EQ(Values(*shard), (std::vector<float>{-1, 2}));
  EXPECT_EQ(shard->version(), Version(2));
  EXPECT_EQ(shard->last_sequence(kWorker, Incarnation(1)), Sequence(1));
}

TEST_F(ShardTest, ARepeatChangesNothing) {
  auto shard = Make(OneVariable(1));
  ASSERT_TRUE(shard->Apply(WriteOf(Floats({1}), 1)).ok());
  EXPECT_TRUE(shard->Apply(WriteOf(Floats({1}), 1))->repeat);
  EXPECT_EQ(Values(*shard), (std::vector<float>{-1}));
  EXPECT_EQ(shard->version(), Version(2));
}

TEST_F(ShardTest, AGapChangesNothing) {
  auto shard = Make(OneVariable(1));
  EXPECT_EQ(shard->Apply(WriteOf(Floats({1}), 2)).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(shard->last_sequence(kWorker, Incarnation(1)), Sequence(0));
}

TEST_F(ShardTest, ANewLifeNumbersFromOneAgainAndTheOldOneIsRefused) {
  auto shard = Make(OneVariable(1));
  ASSERT_TRUE(shard->Apply(WriteOf(Floats({1}), 1, 1)).ok());
  ASSERT_TRUE(shard->Apply(WriteOf(Floats({1}), 1, 2)).ok());
  EXPECT_EQ(Values(*shard), (std::vector<float>{-2}));
  EXPECT_EQ(shard->Apply(WriteOf(Floats({1}), 2, 1)).status().code(), absl::StatusCode::kAborted);
}

TEST_F(ShardTest, ARefusedPushDoesNotUseItsSequenceUp) {
  auto shard = Make(OneVariable(2));
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(shard->Apply(WriteOf(Floats({1, bad}), 1)).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(shard->Apply(WriteOf(Floats({1}), 1)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(shard->version(), Version(1));
  EXPECT_EQ(Values(*shard), (std::vector<float>{0, 0}));
  EXPECT_TRUE(shard->Apply(WriteOf(Floats({1, 1}), 1)).ok());
}

TEST_F(ShardTest, BytesThatAreNotAlignedAreApplied) {
  auto shard = Make(OneVariable(3));
  const std::string bytes = "x" + Floats({1, 2, 3});
  Shard::Write write = WriteOf(bytes, 1);
  write.payload = absl::MakeConstSpan(bytes).subspan(1);
  ASSERT_TRUE(shard->Apply(write).ok());
  EXPECT_EQ(Values(*shard), (std::vector<float>{-1, -2, -3}));
}

// In 16 bits a gradient does what the same numbers do in 32, with every rule and statistic, at any address, in place
// and into a fresh block, over several of the pieces in which it is made into floats.
TEST_F(ShardTest, AGradientOf16BitsIsAppliedAsItsFloats) {
  constexpr int64_t kElements = 20'001;
  std::vector<wire::v1::Model> models;
  for (const auto rule : {wire::v1::RULE_KIND_SGD, wire::v1::RULE_KIND_MOMENTUM, wire::v1::RULE_KIND_ADAGRAD,
                          wire::v1::RULE_KIND_ADAM, wire::v1::RULE_KIND_FTRL}) {
    models.push_back(OneVariable(kElements, rule));
    models.back().mutable_rule()->set_initial_accumulator(0.1f);
  }
  for (const auto statistic : {wire::v1::STATISTIC_MEAN, wire::v1::STATISTIC_SUM, wire::v1::STATISTIC_LAST}) {
    models.push_back(OneVariable(kElements));
    models.back().mutable_variables(0)->set_statistic(statistic);
  }
  for (const DType type : {DType::kF16, DType::kBF16}) {
    for (const wire::v1::Model& model : models) {
      auto floats = Make(model), halves = Make(model);
      for (uint64_t i = 1; i <= 3; ++i) {
        std::vector<float> gradient(kElements);
        for (size_t k = 0; k < gradient.size(); ++k) gradient[k] = static_cast<float>(UnitAt(i, k) - 0.5);
        const std::string narrow = "x" + Halves(type, gradient);
        Widen(type, narrow.data() + 1, gradient.size(), gradient.data());
        const std::string wide = Floats(gradient);
        ASSERT_TRUE(floats->Apply(WriteOf(wide, i)).ok());
        Shard::Write write = WriteOf(narrow, i);
        write.dtype = type;
        write.payload = absl::MakeConstSpan(narrow).subspan(1);
        const wire::Frame held = i == 2 ? *halves->Read() : wire::Frame();
        ASSERT_TRUE(halves->Apply(write).ok());
      }
      EXPECT_EQ(Values(*halves), Values(*floats)) << model.rule().kind() << " " << Name(type);
    }
  }
}

TEST_F(ShardTest, ABadGradientOf16BitsChangesNothing) {
  auto shard = Make(OneVariable(3));
  for (const DType type : {DType::kF16, DType::kBF16}) {
    const auto apply = [&](const std::string& bytes) {
      Shard::Write write = WriteOf(bytes, 1);
      write.dtype = type;
      return shard->Apply(write).status();
    };
    const absl::Status infinite = apply(Halves(type, {1, 2, std::numeric_limits<float>::infinity()}));
    EXPECT_EQ(infinite.message(), "push to \"w\" elements [0, 3): element 2 is Inf");
    EXPECT_EQ(apply(Halves(type, {std::nanf(""), 2, 3})).message(), "push to \"w\" elements [0, 3): element 0 is NaN");
    EXPECT_EQ(apply(Floats({1, 2, 3})).message(), absl::StrCat("push to \"w\" elements [0, 3): 12 bytes, the shard has "
                                                               "6 in ",
                                                               Name(type)));
  }
  EXPECT_EQ(Values(*shard), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(shard->last_sequence(kWorker, Incarnation(1)), Sequence(0));
}

TEST_F(ShardTest, WhatWasReadHoldsStillWhileItIsHeld) {
  auto shard = Make(OneVariable(2, wire::v1::RULE_KIND_MOMENTUM));
  ASSERT_TRUE(shard->Apply(WriteOf(Floats({1, 1}), 1)).ok());
  const float* in_place = shard->parameters();
  ASSERT_TRUE(shard->Apply(WriteOf(Floats({1, 1}), 2)).ok());
  EXPECT_EQ(shard->parameters(), in_place);
  const wire::Frame frame = *shard->Read();
  const std::vector<float> before = ToFloats(frame.view());
  ASSERT_TRUE(shard->Apply(WriteOf(Floats({1, 1}), 3)).ok());
  EXPECT_NE(shard->parameters(), in_place);
  EXPECT_EQ(ToFloats(frame.view()), before);
  EXPECT_EQ(Values(*shard), (std::vector<float>{-4.25f, -4.25f}));  // v: -1, -1.5, -1.75
}

TEST_F(ShardTest, InPlaceAndInAFreshBlockGiveTheSame) {
  for (const auto rule : {wire::v1::RULE_KIND_MOMENTUM, wire::v1::RULE_KIND_ADAGRAD, wire::v1::RULE_KIND_ADAM}) {
    wire::v1::Model model = OneVariable(5, rule);
    model.mutable_rule()->set_initial_accumulator(0.1f);
    auto a = Make(model), b = Make(model);
    for (uint64_t i = 1; i <= 5; ++i) {
      const wire::Frame held = *b->Read();
      ASSERT_TRUE(a->Apply(WriteOf(Floats({1, 2, 3, 4, 5}), i)).ok());
      ASSERT_TRUE(b->Apply(WriteOf(Floats({1, 2, 3, 4, 5}), i)).ok());
    }
    EXPECT_EQ(Values(*a), Values(*b));
  }
}

TEST_F(ShardTest, AShardThatIsAssignedHasNoValuesBefore) {
  wire::v1::Model model = OneVariable(2);
  model.mutable_variables(0)->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ASSIGNED);
  auto shard = Make(model);
  EXPECT_EQ(shard->version(), Version(0));
  EXPECT_EQ(shard->Read().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(shard->Apply(WriteOf(Floats({1, 1}), 1)).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(shard->Assign(WriteOf(Floats({5, 6}), 1)).ok());
  EXPECT_EQ(shard->version(), Version(1));
  EXPECT_EQ(ToFloats(shard->Read()->view()), (std::vector<float>{5, 6}));
  EXPECT_TRUE(shard->Assign(WriteOf(Floats({7, 7}), 1))->repeat);
  EXPECT_EQ(shard->Assign(WriteOf(Floats({std::nanf(""), 7}), 2)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Values(*shard), (std::vector<float>{5, 6}));
}

TEST_F(ShardTest, AnAssignmentStartsTheSlotsAfresh) {
  auto shard = Make(OneVariable(1, wire::v1::RULE_KIND_MOMENTUM));
  ASSERT_TRUE(shard->Apply(WriteOf(Floats({1}), 1)).ok());
  ASSERT_TRUE(shard->Assign(WriteOf(Floats({10}), 2)).ok());
  ASSERT_TRUE(shard->Apply(WriteOf(Floats({1}), 3)).ok());
  EXPECT_EQ(Values(*shard), (std::vector<float>{9}));
}

TEST_F(ShardTest, StatisticsAreMeanSumAndLast) {
  const std::pair<wire::v1::Statistic, float> expected[] = {
      {wire::v1::STATISTIC_MEAN, 4}, {wire::v1::STATISTIC_SUM, 8}, {wire::v1::STATISTIC_LAST, 6}};
  for (const auto& [statistic, value] : expected) {
    wire::v1::Model model = OneVariable(1);
    model.mutable_variables(0)->set_statistic(statistic);
    auto shard = Make(model);
    ASSERT_TRUE(shard->Apply(WriteOf(Floats({2}), 1)).ok());
    ASSERT_TRUE(shard->Apply(WriteOf(Floats({6}), 2)).ok());
    EXPECT_EQ(Values(*shard), (std::vector<float>{value})) << statistic;
  }
}

TEST_F(ShardTest, TheMessagesLearningRateWins) {
  auto shard = Make(OneVariable(1));
  const std::string bytes = Floats({1});
  Shard::Write write = WriteOf(bytes, 1);
  write.learning_rate = 0.25f;
  ASSERT_TRUE(shard->Apply(write).ok());
  EXPECT_EQ(Values(*shard), (std::vector<float>{-0.25f}));
}

TEST_F(ShardTest, StalenessIsVersionBeforeTheApplyLessVersionPulled) {
  auto shard = Make(OneVariable(1));
  const std::string bytes = Floats({1});
  for (uint64_t i = 1; i <= 3; ++i) {
    Shard::Write write = WriteOf(bytes, i);
    write.pulled = Version(1);
    EXPECT_EQ(shard->Apply(write)->staleness, i - 1);
  }
}

TEST_F(ShardTest, WithoutMemoryForAFreshBlockNothingChanges) {
  const auto pool = BlockPool::Make(BlockPool::Footprint(4));
  auto shard = Make(OneVariable(1), pool);
  ASSERT_TRUE(shard->Apply(WriteOf(Floats({1}), 1)).ok());
  {
    const wire::Frame held = *shard->Read();
    EXPECT_EQ(shard->Apply(WriteOf(Floats({1}), 2)).status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(Values(*shard), (std::vector<float>{-1}));
  }
  EXPECT_TRUE(shard->Apply(WriteOf(Floats({1}), 2)).ok());
  EXPECT_EQ(Values(*shard), (std::vector<float>{-2}));
}

}  // namespace
}  // namespace basin
