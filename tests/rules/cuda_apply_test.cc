// The kernels against the host's Apply: the same bits.
#include "common/rules/cuda_apply.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "common/base/random.h"
#include "common/rules/apply.h"
#include "tests/device/on_device.h"

namespace basin {
namespace {

using Floats = std::vector<float>;

struct Block {
  RuleSpec rule;
  uint64_t step = 1;
  Floats gradient, parameters;
  std::array<Floats, kMaxSlots> slots;
};

Block RandomBlock(const RuleSpec& rule, size_t elements, uint64_t seed) {
  Block block;
  block.rule = rule;
  block.step = seed % 7 + 1;
  const auto fill = [elements, seed](uint64_t stream, float from, float to) {
    Floats values(elements);
    for (size_t i = 0; i < elements; ++i) {
      values[i] = from + (to - from) * static_cast<float>(UnitAt(RandomAt(seed, stream), i));
    }
    return values;
  };
  block.gradient = fill(0, -1, 1);
  block.parameters = fill(1, -2, 2);
  for (int slot = 0; slot < kMaxSlots; ++slot) block.slots[slot] = fill(2 + slot, 0.01f, 1);
  return block;
}

RuleSpec Rule(RuleKind kind, float learning_rate, bool nesterov = false) {
  RuleSpec rule;
  rule.kind = kind;
  rule.learning_rate = learning_rate;
  rule.nesterov = nesterov;
  rule.l1 = 0.02f;
  rule.l2 = 0.1f;
  return rule;
}

std::vector<RuleSpec> AllRules() {
  return {Rule(RuleKind::kSgd, 0.1f),      Rule(RuleKind::kMomentum, 0.1f), Rule(RuleKind::kMomentum, 0.1f, true),
          Rule(RuleKind::kAdagrad, 0.05f), Rule(RuleKind::kAdam, 0.01f),    Rule(RuleKind::kFtrl, 0.1f),
          Rule(RuleKind::kFtrl, 0.0f)};
}

bool SameBits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

class CudaApplyTest : public testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) GTEST_SKIP() << "no GPU: " << cudaGetErrorString(error);
  }

  // One launch for all; compares what it makes with the host, and returns not_finite.
  std::vector<uint32_t> Run(const std::vector<Block>& blocks) {
    std::vector<OnDevice<float>> memory;
    std::vector<CudaApplyItem> items;
    const auto put = [&memory](const Floats& values) {
      memory.emplace_back(values);
      return memory.back().data();
    };
    memory.reserve(7 * blocks.size());
    for (const Block& block : blocks) {
      const Floats poison(block.gradient.size(), -77.0f);
      CudaApplyItem item;
      item.rule = MakeCudaRule(block.rule, block.rule.learning_rate, block.step);
      item.gradient = put(block.gradient);
      item.parameters_in = put(block.parameters);
      item.parameters_out = put(poison);
      for (int slot = 0; slot < kMaxSlots; ++slot) {
        item.slots_in[slot] = put(block.slots[slot]);
        item.slots_out[slot] = put(poison);
      }
      item.elements = block.gradient.size();
      items.push_back(item);
    }
    const auto count = static_cast<uint32_t>(items.size());
    const uint64_t chunks = CountChunks(items.data(), count);
    const OnDevice<CudaApplyItem> items_there(items);
    const OnDevice<uint32_t> flags(std::vector<uint32_t>(blocks.size(), 99));
    ExpectCuda(StartApply(nullptr, items_there.data(), count, chunks, flags.data()));
    ExpectCuda(cudaDeviceSynchronize());
    const std::vector<uint32_t> not_finite = flags.Copy();
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (not_finite[i] == 0) ExpectAsOnTheHost(blocks[i], &memory[7 * i]);
    }
    return not_finite;
  }

 private:
  // `memory`: gradient, parameters in and out, then in and out of each slot.
  static void ExpectAsOnTheHost(const Block& block, const OnDevice<float>* memory) {
    Block expected = block;
    ApplyArguments arguments;
    arguments.gradient = block.gradient;
    arguments.parameters_in = block.parameters;
    arguments.parameters_out = absl::MakeSpan(expected.parameters);
    for (int slot = 0; slot < kMaxSlots; ++slot) {
      arguments.slots_in[slot] = block.slots[slot];
      arguments.slots_out[slot] = absl::MakeSpan(expected.slots[slot]);
    }
    arguments.step = block.step;
    arguments.learning_rate = block.rule.learning_rate;
    Apply(block.rule, arguments);
    const std::string what = ToText(block.rule) + ", " + std::to_string(block.gradient.size()) + " elements";
    EXPECT_TRUE(SameBits(memory[2].Copy(), expected.parameters)) << what;
    for (int slot = 0; slot < SlotCount(block.rule.kind); ++slot) {
      EXPECT_TRUE(SameBits(memory[4 + 2 * slot].Copy(), expected.slots[slot])) << what << ", slot " << slot;
    }
  }
};

TEST_F(CudaApplyTest, EachRuleGivesTheHostsBitsAtEachLength) {
  for (const RuleSpec& rule : AllRules()) {
    for (const size_t elements : {1, 3, 4, 5, 2047, 2048, 2049, 2051, 4099, 100003}) {
      EXPECT_EQ(Run({RandomBlock(rule, elements, elements)}), std::vector<uint32_t>{0});
    }
  }
}

TEST_F(CudaApplyTest, ABatchOfManyBlocksIsOneLaunch) {
  std::vector<Block> blocks;
  const std::vector<RuleSpec> rules = AllRules();
  for (size_t i = 0; i < 200; ++i) blocks.push_back(RandomBlock(rules[i % rules.size()], 1 + i * i % 9001, i));
  EXPECT_EQ(Run(blocks), std::vector<uint32_t>(blocks.size(), 0));
}

TEST_F(CudaApplyTest, ABlockLargerThanTheGridIsWhole) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "millions of elements, which take minutes on the emulated device under the thread sanitizer";
#endif
  EXPECT_EQ(Run({RandomBlock(Rule(RuleKind::kAdam, 0.01f), 9'000'003, 5)}), std::vector<uint32_t>{0});
}

TEST_F(CudaApplyTest, AGradientThatIsNotFiniteIsFoundWhereverItLies) {
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity()};
  for (const size_t at : {size_t{0}, size_t{2046}, size_t{2047}, size_t{2048}, size_t{9000}, size_t{9001}}) {
    std::vector<Block> blocks;
    for (size_t i = 0; i < 3; ++i) blocks.push_back(RandomBlock(Rule(RuleKind::kAdagrad, 0.1f), 9002, i));
    blocks[1].gradient[at] = bad[at % 3];
    EXPECT_EQ(Run(blocks), (std::vector<uint32_t>{0, 1, 0})) << at;
  }
}

TEST_F(CudaApplyTest, StatisticsGiveTheHostsBits) {
  for (const StatisticKind statistic : {StatisticKind::kMean, StatisticKind::kSum, StatisticKind::kLast}) {
    for (const uint64_t count : {1, 2, 7}) {
      const Block block = RandomBlock(Rule(RuleKind::kSgd, 0), 4099, count);
      const OnDevice<float> update(block.gradient), in(block.parameters), out(block.gradient);
      CudaApplyItem item;
      item.rule = MakeCudaStatistic(statistic, count);
      item.gradient = update.data();
      item.parameters_in = in.data();
      item.parameters_out = out.data();
      item.elements = block.gradient.size();
      const uint64_t chunks = CountChunks(&item, 1);
      const OnDevice<CudaApplyItem> there({item});
      const OnDevice<uint32_t> flag(std::vector<uint32_t>{99});
      ExpectCuda(StartApply(nullptr, there.data(), 1, chunks, flag.data()));
      ExpectCuda(cudaDeviceSynchronize());
      Floats expected(block.gradient.size());
      ApplyStatistic(statistic, count, block.gradient, block.parameters, absl::MakeSpan(expected));
      EXPECT_TRUE(SameBits(out.Copy(), expected)) << static_cast<int>(statistic) << ", count " << count;
      EXPECT_EQ(flag.Copy(), std::vector<uint32_t>{0});
    }
  }
}

TEST_F(CudaApplyTest, AnEmptyBlockIsNoTrouble) {
  std::vector<Block> blocks;
  for (const size_t elements : {size_t{10}, size_t{0}, size_t{5000}}) {
    blocks.push_back(RandomBlock(Rule(RuleKind::kSgd, 0.1f), elements, elements));
  }
  EXPECT_EQ(Run(blocks), std::vector<uint32_t>(3, 0));
}

}  // namespace
}  // namespace basin
