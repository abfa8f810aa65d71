#include "cluster_spec/placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cluster_spec/tools/balance_table.h"
#include "cluster_spec/tools/model_shapes.h"
#include "common/base/limits.h"
#include "common/base/random.h"

namespace basin {
namespace {

std::string ReadSourceFile(const std::string& path) {
  const char* root = std::getenv("BASIN_SOURCE_DIR");
  std::ifstream in(absl::StrCat(root == nullptr ? "." : root, "/", path), std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

PlacedVariable Vector(std::string name, int64_t elements, DType dtype = DType::kF32) {
  return {std::move(name), dtype, {elements}};
}

Placement Place(int ps_count, const std::vector<PlacedVariable>& variables) {
  auto placement = Placement::Make(ps_count).Extend(variables);
  EXPECT_TRUE(placement.ok()) << placement.status();
  return placement.ok() ? *std::move(placement) : Placement::Make(ps_count);
}

absl::Status StatusOf(const std::vector<PlacedVariable>& variables) {
  return Placement::Make(2).Extend(variables).status();
}

// Everything that holds for any placement made by one Extend.
void ExpectSound(const Placement& placement) {
  uint64_t total = 0;
  for (const PlacedVariable& variable : placement.variables()) total += variable.bytes();
  const uint64_t limit =
      std::clamp<uint64_t>(total / (20 * static_cast<uint64_t>(placement.ps_count())), kMinShardBytes, kMaxShardBytes);
  std::vector<uint64_t> bytes(static_cast<size_t>(placement.ps_count()));
  std::vector<std::vector<bool>> ordinals(bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i)
    ordinals[i].resize(placement.shards_on(PsOrdinal(static_cast<uint32_t>(i))));
  ShardId expected(0);
  for (uint32_t v = 0; v < placement.variables().size(); ++v) {
    const PlacedVariable& variable = placement.variables()[v];
    const auto [first, end] = placement.shards_of(VariableId(v));
    ASSERT_EQ(first, expected);
    ASSERT_LT(first, end);
    uint64_t next = 0, least = ~uint64_t{0}, most = 0;
    for (ShardId id = first; id < end; id = id.next()) {
      const ShardPlace& shard = placement.shard(id);
      ASSERT_EQ(shard.variable, VariableId(v));
      ASSERT_EQ(shard.begin, next);
      ASSERT_EQ(shard.begin * SizeOf(variable.dtype) % kShardAlignmentBytes, 0u);
      next = shard.end;
      least = std::min(least, placement.bytes(id));
      most = std::max(most, placement.bytes(id));
      bytes[shard.ps.value()] += placement.bytes(id);
      ASSERT_LT(shard.ordinal_on_ps, ordinals[shard.ps.value()].size());
      ASSERT_FALSE(ordinals[shard.ps.value()][shard.ordinal_on_ps]);
      ordinals[shard.ps.value()][shard.ordinal_on_ps] = true;
    }
    ASSERT_EQ(next, variable.elements());
    expected = end;
    ASSERT_LE(most, kMaxShardBytes);
    ASSERT_LE(most - least, 2 * kShardAlignmentBytes);
    if (end.value() - first.value() > 1) {
      ASSERT_GE(least, kMinShardBytes);
    }
    // Where the least size forbids a cut, a shard may exceed the limit, but not by the double.
    ASSERT_LT(most, std::max<uint64_t>(limit, 2 * kMinShardBytes) + 1);
  }
  ASSERT_EQ(expected.value(), placement.shards().size());
  for (size_t i = 0; i < bytes.size(); ++i)
    EXPECT_EQ(placement.bytes_on(PsOrdinal(static_cast<uint32_t>(i))), bytes[i]);
}

TEST(PlacementTest, WithoutVariablesThereAreNoShards) {
  const Placement placement = Placement::Make(3);
  EXPECT_EQ(placement.ps_count(), 3);
  EXPECT_TRUE(placement.shards().empty());
  EXPECT_EQ(placement.imbalance(), 1.0);
}

TEST(PlacementTest, ShardsAreAtMostOneMebibyte) {
  const Placement placement = Place(1, {Vector("w", 64 << 20)});
  ExpectSound(placement);
  EXPECT_EQ(placement.shards().size(), 256u);
}

TEST(PlacementTest, ShardsAreAtMostFivePercentOfTheMeanLoad) {
  const Placement placement = Place(2, {Vector("w", 2 << 20)});
  ExpectSound(placement);
  for (uint32_t i = 0; i < placement.shards().size(); ++i) EXPECT_LE(placement.bytes(ShardId(i)), (8u << 20) / 40);
}

TEST(PlacementTest, NothingIsCutBelow16KiB) {
  EXPECT_EQ(Place(4, {Vector("w", 4096)}).shards().size(), 1u);
  EXPECT_EQ(Place(4, {Vector("w", 8191)}).shards().size(), 1u);
  EXPECT_EQ(Place(4, {Vector("w", 8192)}).shards().size(), 2u);
  for (int64_t elements = 8192 - 40; elements < 3 * 8192; elements += 7) ExpectSound(Place(4, {Vector("w", elements)}));
}

TEST(PlacementTest, ScalarsAndEmptyVariablesHaveOneShard) {
  const Placement placement = Place(2, {{"scalar", DType::kI64, {}},
                                        {"empty", DType::kF32, {0, 7}},
                                        {"huge but empty", DType::kF32, {int64_t{1} << 62, 8, 0}}});
  ExpectSound(placement);
  ASSERT_EQ(placement.shards().size(), 3u);
  EXPECT_EQ(placement.shard(ShardId(0)).elements(), 1u);
  EXPECT_EQ(placement.shard(ShardId(1)).elements(), 0u);
  EXPECT_EQ(placement.bytes(ShardId(0)), 8u);
}

TEST(PlacementTest, LargestGoesFirstOntoTheLeastLoadedAndTiesToTheLowestOrdinal) {
  const Placement placement = Place(2, {Vector("a", 1000), Vector("b", 3000), Vector("c", 1000), Vector("d", 1000)});
  const auto ps = [&](uint32_t id) { return placement.shard(ShardId(id)).ps.value(); };
  EXPECT_EQ(ps(1), 0u);
  EXPECT_EQ(ps(0), 1u);
  EXPECT_EQ(ps(2), 1u);
  EXPECT_EQ(ps(3), 1u);
  EXPECT_EQ(placement.imbalance(), 1.0);
}

TEST(PlacementTest, ALaterExtendMovesNothing) {
  const Placement first = Place(3, {Vector("a", 300000), Vector("b", 70000, DType::kBF16)});
  const auto second = first.Extend({Vector("c", 2000000), {"d", DType::kF64, {}}});
  ASSERT_TRUE(second.ok());
  ASSERT_GT(second->shards().size(), first.shards().size());
  for (size_t i = 0; i < first.shards().size(); ++i) EXPECT_EQ(second->shards()[i], first.shards()[i]);
  EXPECT_EQ(first.variables().size(), 2u);
  EXPECT_NE(first.digest(), second->digest());
  EXPECT_LE(second->imbalance(), 1.05);
}

TEST(PlacementTest, TheSameCallsGiveTheSameDigestAndOthersAnother) {
  const std::vector<PlacedVariable> model = {Vector("a", 300000), Vector("b", 70000)};
  const uint64_t digest = Place(3, model).digest();
  EXPECT_EQ(Place(3, model).digest(), digest);
  EXPECT_NE(Place(4, model).digest(), digest);
  EXPECT_NE(Place(3, {Vector("a", 300000), Vector("c", 70000)}).digest(), digest);
  EXPECT_NE(Place(3, {Vector("a", 300000), {"b", DType::kF32, {70000, 1}}}).digest(), digest);
  EXPECT_NE(Place(3, {Vector("a", 300000), Vector("b", 70000, DType::kI32)}).digest(), digest);
}

TEST(PlacementTest, LanesGetEvenBytes) {
  const Placement placement = Place(2, BertBase());
  for (uint32_t lanes : {1u, 2u, 4u, 8u}) {
    std::vector<uint64_t> bytes(2 * lanes);
    for (uint32_t i = 0; i < placement.shards().size(); ++i) {
      const LaneIndex lane = placement.lane_of(ShardId(i), lanes);
      ASSERT_LT(lane.value(), lanes);
      bytes[placement.shard(ShardId(i)).ps.value() * lanes + lane.value()] += placement.bytes(ShardId(i));
    }
    EXPECT_LE(static_cast<double>(*std::max_element(bytes.begin(), bytes.end())),
              1.05 * (109482240.0 * 4 / (2 * lanes)))
        << lanes;
  }
}

TEST(PlacementTest, RandomModelsAreSound) {
  Random random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<PlacedVariable> model;
    const int count = 1 + static_cast<int>(random.Below(30));
    for (int i = 0; i < count; ++i) {
      const auto dtype = static_cast<DType>(1 + random.Below(9));
      model.push_back(
          {absl::StrCat("v", i), dtype, {static_cast<int64_t>(random.Below(uint64_t{1} << (1 + random.Below(22))))}});
    }
    ExpectSound(Place(1 + static_cast<int>(random.Below(20)), model));
    if (HasFatalFailure()) FAIL() << "round " << round;
  }
}

TEST(PlacementTest, BadVariablesAreRefusedByName) {
  EXPECT_EQ(StatusOf({{"w", DType::kF32, {3, -1}}}).message(),
            "variable \"w\": expected dimensions of 0 or more, found -1 at axis 1; declare the full shape");
  EXPECT_EQ(StatusOf({{"w", DType::kF32, {int64_t{1} << 40, int64_t{1} << 40}}}).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(StatusOf({{"w", DType::kI8, {int64_t{1} << 59}}}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(StatusOf({{"a", DType::kI8, {int64_t{1} << 60}}, {"b", DType::kI8, {1}}}).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(StatusOf({{"w", DType::kF32, std::vector<int64_t>(17, 1)}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StatusOf({{"", DType::kF32, {}}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StatusOf({{std::string(513, 'x'), DType::kF32, {}}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StatusOf({{"w", static_cast<DType>(0), {}}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StatusOf({Vector("w", 1), Vector("w", 2)}).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Place(2, {Vector("w", 1)}).Extend({Vector("w", 1)}).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(StatusOf(std::vector<PlacedVariable>(kMaxVariables + 1)).code(), absl::StatusCode::kResourceExhausted);
}

TEST(PlacementTest, TheModelsHaveTheirPublishedSizes) {
  const auto elements = [](const std::vector<PlacedVariable>& model) {
    uint64_t sum = 0;
    for (const PlacedVariable& variable : model) sum += variable.elements();
    return sum;
  };
  EXPECT_EQ(elements(ResNet50()), 25557032u);
  EXPECT_EQ(elements(BertBase()), 109482240u);
  EXPECT_EQ(elements(DlrmDense()) - elements(DlrmPerceptrons()), uint64_t{33762577} * 16);
  for (int ps_count : {1, 2, 7, 16, 100}) {
    for (const auto& model : {ResNet50(), BertBase(), DlrmDense()}) ExpectSound(Place(ps_count, model));
  }
}

TEST(PlacementTest, TheFullestPsIsWithinFivePercentAndTheDocumentedTableIsThisOne) {
  const std::vector<Balance> balances = ComputeBalances();
  EXPECT_EQ(balances.size(), 20u);
  for (const Balance& balance : balances) {
    if (balance.mean_bytes() >= 320 * 1024) {
      EXPECT_LE(balance.ratio(), 1.05) << balance.model << " on " << balance.ps_count;
    }
  }
  const std::string markdown = BalanceMarkdown(balances);
  EXPECT_NE(ReadSourceFile("docs/placement.md").find(markdown), std::string::npos)
      << "docs/placement.md does not hold what basin-placement-table prints:\n"
      << markdown;
}

TEST(PlacementTest, TheGoldenPlacementIsStillTheSame) {
  const auto first = Placement::Make(3).Extend({{"conv/kernel", DType::kF32, {3, 3, 64, 128}},
                                                {"conv/bias", DType::kF32, {128}},
                                                {"dense/kernel", DType::kBF16, {1000, 777}},
                                                {"step", DType::kI64, {}},
                                                {"none", DType::kF64, {0, 4}}});
  ASSERT_TRUE(first.ok());
  const auto second = first->Extend({{"head/kernel", DType::kF32, {1000, 333}}, {"mask", DType::kBool, {70001}}});
  ASSERT_TRUE(second.ok());
  const std::string actual = absl::StrFormat("digest %016x\n%sdigest %016x\n%s", first->digest(), first->Listing(),
                                             second->digest(), second->Listing());
  EXPECT_EQ(ReadSourceFile("tests/cluster_spec/golden/placement.txt"), actual)
      << "a placement that changes strands every checkpoint and every mixed cluster";
}

}  // namespace
}  // namespace basin
