// A lane whose tables lie in the memory of a GPU beside one with tables on the host: the same messages, and the same
// answers to the bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cluster_spec/table_placement.h"
#include "common/base/dtype.h"
#include "common/base/random.h"
#include "ps/device/cuda_table_batch.h"
#include "ps/device/ps_device.h"
#include "ps/lane_rows.h"
#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

using absl::StatusCode;

using TableKeys = std::vector<uint64_t>;

const TablePlacement kOnePs = TablePlacement::Make(1);

wire::v1::Table* AddTable(wire::v1::Model& model, const std::string& name, uint32_t dim, DType storage = DType::kF32,
                          uint64_t max_bytes = 1 << 20) {
  auto* table = model.add_tables();
  table->set_name(name);
  table->set_dim(dim);
  table->set_storage(static_cast<uint32_t>(storage));
  table->mutable_initializer()->set_kind(wire::v1::INIT_KIND_UNIFORM);
  table->mutable_initializer()->set_a(-0.5f);
  table->mutable_initializer()->set_b(0.25f);
  table->mutable_initializer()->set_seed(7);
  table->set_admit_after(1);
  table->set_admit_probability(1);
  table->set_max_bytes(max_bytes);
  return table;
}

wire::v1::Model ModelOf(wire::v1::RuleKind rule) {
  wire::v1::Model model = OneVariable(4, rule);
  model.mutable_rule()->set_learning_rate(0.0625f);
  model.mutable_rule()->set_initial_accumulator(0.1f);
  return model;
}

// The n-th key of a bucket, from `from` on.
TableKeys KeysOfBucket(uint32_t bucket, size_t n, uint64_t from = 0) {
  TableKeys keys;
  for (uint64_t key = from; keys.size() < n; ++key) {
    if (kOnePs.BucketOf(key) == bucket) keys.push_back(key);
  }
  return keys;
}

class GpuLaneTablesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto device = OpenPsDevice({.name = "cuda"});
    if (device.status().code() == StatusCode::kFailedPrecondition) GTEST_SKIP() << device.status().message();
    ASSERT_TRUE(device.ok()) << device.status();
  }

  static std::unique_ptr<LaneHarness> LaneOnDevice(const PsDeviceOptions& options) {
    auto device = OpenPsDevice(options);
    EXPECT_TRUE(device.ok()) << device.status();
    auto lane = (*device)->MakeLane();
    EXPECT_TRUE(lane.ok()) << lane.status();
    LaneCoreOptions core = LaneHarness::DefaultOptions();
    core.device = *std::move(lane);
    return std::make_unique<LaneHarness>(core);
  }
  void Open(const wire::v1::Model& model) {
    model_ = model;
    sequences_.clear();
    host_ = std::make_unique<LaneHarness>();
    device_ = LaneOnDevice({.name = "cuda"});
    for (LaneHarness* lane : {host_.get(), device_.get()}) {
      lane->Join(1, 0);
      lane->SetUpModel(1, model);
      ASSERT_NE(lane->core.model(), nullptr);
    }
  }

  TestEntry Pull(uint32_t table, const TableKeys& keys) const {
    return {.shard = BucketShard(table, kOnePs.BucketOf(keys[0])).value(),
            .flags = wire::kPull,
            .payload = std::string(reinterpret_cast<const char*>(keys.data()), keys.size() * sizeof(uint64_t)),
            .rows = static_cast<uint32_t>(keys.size())};
  }
  // With the bucket's next sequence; an element of the gradients is a function of its place and of `seed`.
  TestEntry Push(uint32_t table, const TableKeys& keys, uint64_t seed, uint16_t flags = wire::kPush,
                 DType type = DType::kF32) {
    TestEntry entry = Pull(table, keys);
    entry.flags = flags;
    entry.sequence = ++sequences_[entry.shard];
    entry.dtype = type;
    std::vector<float> gradients(keys.size() * model_.tables(static_cast<int>(table)).dim());
    for (size_t i = 0; i < gradients.size(); ++i) gradients[i] = static_cast<float>(2 * UnitAt(seed, i) - 1);
    entry.payload += type == DType::kF32 ? Floats(gradients) : Halves(type, gradients);
    return entry;
  }
  // Both lanes' answer, which is the same.
  Heard Both(const std::vector<TestEntry>& entries, float learning_rate = NAN) {
    for (LaneHarness* lane : {host_.get(), device_.get()}) lane->header(1).learning_rate = learning_rate;
    const Heard expected = host_->Update(1, entries);
    Heard found = device_->Update(1, entries);
    EXPECT_EQ(found.status(), expected.status());
    EXPECT_EQ(found.message.entries.size(), expected.message.entries.size());
    for (size_t i = 0; i < std::min(found.message.entries.size(), expected.message.entries.size()); ++i) {
      const wire::Entry &a = found.message.entries[i], &b = expected.message.entries[i];
      EXPECT_EQ(a.code, b.code) << "entry " << i;
      EXPECT_EQ(a.flags, b.flags) << "entry " << i;
      EXPECT_EQ(a.version, b.version) << "entry " << i;
      EXPECT_EQ(a.rows, b.rows) << "entry " << i;
      EXPECT_EQ(a.dtype, b.dtype) << "entry " << i;
      const absl::Span<const char> rows = found.message.payloads[i], wanted = expected.message.payloads[i];
      EXPECT_TRUE(absl::string_view(rows.data(), rows.size()) == absl::string_view(wanted.data(), wanted.size()))
          << "rows of entry " << i << " differ";
    }
    const LaneCounters &here = host_->core.counters(), &there = device_->core.counters();
    EXPECT_EQ(there.rows.value(), here.rows.value());
    EXPECT_EQ(there.applied.value(), here.applied.value());
    EXPECT_EQ(there.repeats.value(), here.repeats.value());
    EXPECT_EQ(there.refused.value(), here.refused.value());
    EXPECT_EQ(there.pulled.value(), here.pulled.value());
    return found;
  }
  static StatusCode CodeOf(const Heard& heard, size_t entry) {
    return static_cast<StatusCode>(heard.message.entries.at(entry).code);
  }

  wire::v1::Model model_;
  std::map<uint32_t, uint64_t> sequences_;  // by shard
  std::unique_ptr<LaneHarness> host_, device_;
};

TEST_F(GpuLaneTablesTest, EachRuleAndStorageGivesTheHostsBits) {
  for (const auto rule : {wire::v1::RULE_KIND_SGD, wire::v1::RULE_KIND_MOMENTUM, wire::v1::RULE_KIND_ADAGRAD,
                          wire::v1::RULE_KIND_ADAM, wire::v1::RULE_KIND_FTRL}) {
    wire::v1::Model model = ModelOf(rule);
    AddTable(model, "wide", 1);
    AddTable(model, "user", 8, DType::kF16);
    AddTable(model, "item", 6);
    AddTable(model, "word", 12, DType::kBF16);
    Open(model);
    Random random(rule);
    for (uint64_t step = 1; step <= 5; ++step) {
      SCOPED_TRACE(absl::StrCat("rule ", rule, ", message ", step));
      // Tables in turn, so that a table's entries do not stand together; gradients in 16 bits between the others; one
      // variable among them.
      std::vector<TestEntry> entries;
      for (uint32_t bucket = 0; bucket < 24; ++bucket) {
        const uint32_t table = bucket / 2 % 4;
        TableKeys keys = KeysOfBucket(bucket, 6);
        keys.resize(1 + random.Below(6));
        const DType type = bucket % 5 == 0 ? DType::kF16 : bucket % 7 == 0 ? DType::kBF16 : DType::kF32;
        const uint64_t what = random.Below(3);
        entries.push_back(what == 0 ? Pull(table, keys)
                                    : Push(table, keys, step * 100 + bucket,
                                           what == 1 ? wire::kPush : wire::kPush | wire::kPull, type));
      }
      entries.push_back(
          {.flags = wire::kPush | wire::kPull, .sequence = step, .payload = Floats({1, 2, 3, float(step)})});
      const Heard heard = Both(entries, step == 3 ? 0.25f : NAN);
      for (size_t i = 0; i < entries.size(); ++i) EXPECT_EQ(CodeOf(heard, i), StatusCode::kOk);
    }
    for (uint32_t bucket = 0; bucket < 24; ++bucket) Both({Pull(bucket / 2 % 4, KeysOfBucket(bucket, 6))});
  }
}

TEST_F(GpuLaneTablesTest, ABadGradientRefusesItsEntryAloneAndKeepsTheSequence) {
  wire::v1::Model model = ModelOf(wire::v1::RULE_KIND_ADAM);
  AddTable(model, "user", 4);
  Open(model);
  const TableKeys keys[] = {KeysOfBucket(3, 2), KeysOfBucket(4, 2), KeysOfBucket(5, 2)};
  std::vector<TestEntry> entries;
  for (const TableKeys& of_bucket : keys) entries.push_back(Push(0, of_bucket, 1, wire::kPush | wire::kPull));
  const float bad = NAN;
  std::string& payload = entries[1].payload;
  std::memcpy(payload.data() + payload.size() - sizeof(bad), &bad, sizeof(bad));
  const Heard heard = Both(entries);
  EXPECT_EQ(CodeOf(heard, 0), StatusCode::kOk);
  EXPECT_EQ(CodeOf(heard, 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(heard, 2), StatusCode::kOk);
  EXPECT_EQ(device_->core.counters().rows.value(), 4u);
  EXPECT_EQ(device_->core.TakeNotes(), host_->core.TakeNotes()) << "the same words";
  --sequences_[entries[1].shard];
  EXPECT_EQ(CodeOf(Both({Push(0, keys[1], 2, wire::kPush | wire::kPull)}), 0), StatusCode::kOk);
  Both({Pull(0, keys[0]), Pull(0, keys[1]), Pull(0, keys[2])});
}

TEST_F(GpuLaneTablesTest, RepeatsGapsAndBucketsThatStandTwiceAreAsOnTheHost) {
  wire::v1::Model model = ModelOf(wire::v1::RULE_KIND_MOMENTUM);
  AddTable(model, "user", 4);
  Open(model);
  const TableKeys keys = KeysOfBucket(9, 3);
  const TestEntry first = Push(0, keys, 1, wire::kPush | wire::kPull);
  Both({first});
  EXPECT_TRUE(Both({first}).message.entries[0].flags & wire::kRepeat);
  TestEntry gap = Push(0, keys, 2);
  gap.sequence += 5;
  EXPECT_EQ(CodeOf(Both({gap}), 0), StatusCode::kOutOfRange);
  --sequences_[first.shard];
  // In one message: what it was, a push, the same again, the next push, what it is.
  const TestEntry second = Push(0, keys, 3), third = Push(0, keys, 4, wire::kPush | wire::kPull);
  const Heard heard = Both({Pull(0, keys), second, second, third, gap, Pull(0, keys), Pull(0, keys)});
  EXPECT_TRUE(heard.message.entries[2].flags & wire::kRepeat);
  EXPECT_EQ(heard.message.entries[5].version, Version(4));
  device_->Join(2, 0, "another");
  host_->Join(2, 0, "another");
  Both({third});  // of a life that was replaced
}

TEST_F(GpuLaneTablesTest, AKeyThatStandsTwiceIsAppliedTwice) {
  for (const DType storage : {DType::kF32, DType::kF16}) {
    wire::v1::Model model = ModelOf(wire::v1::RULE_KIND_ADAM);
    AddTable(model, "user", 4, storage);
    Open(model);
    const TableKeys keys = KeysOfBucket(9, 3), other = KeysOfBucket(10, 3);
    const TableKeys repeated = {keys[0], keys[1], keys[0], keys[0], keys[2], keys[1]};
    for (uint64_t step = 1; step <= 3; ++step) {
      for (const DType type : {DType::kF32, DType::kBF16}) {
        Both({Push(0, repeated, step, wire::kPush | wire::kPull, type), Push(0, other, step, wire::kPush, type)});
      }
    }
    Both({Pull(0, keys), Pull(0, other)});
  }
}

TEST_F(GpuLaneTablesTest, AnEntryThatIsLargerThanABatchIsAppliedWhole) {
  constexpr uint32_t kDim = 512;
  wire::v1::Model model = ModelOf(wire::v1::RULE_KIND_SGD);
  AddTable(model, "user", kDim, DType::kF32, 8 << 20);
  Open(model);
  const size_t a_batch = CudaTableBatch::kGradientBytes / (kDim * sizeof(float));
  const TableKeys keys = KeysOfBucket(9, a_batch + 300), other = KeysOfBucket(8, 10);
  TestEntry large = Push(0, keys, 1);
  Both({Push(0, other, 5, wire::kPush | wire::kPull), large, Pull(0, KeysOfBucket(9, 3))});
  for (size_t begin = 0; begin < keys.size(); begin += 400) {
    Both({Pull(0, TableKeys(keys.begin() + begin, keys.begin() + std::min(keys.size(), begin + 400)))});
  }
  // And where only its last number is bad, none of it.
  large = Push(0, keys, 2);
  const float bad = std::numeric_limits<float>::infinity();
  std::memcpy(large.payload.data() + large.payload.size() - sizeof(bad), &bad, sizeof(bad));
  EXPECT_EQ(CodeOf(Both({large}), 0), StatusCode::kInvalidArgument);
  Both({Pull(0, TableKeys(keys.begin(), keys.begin() + 400))});
}

TEST_F(GpuLaneTablesTest, UnusedRowsGoAsOnTheHost) {
  wire::v1::Model model = ModelOf(wire::v1::RULE_KIND_SGD);
  AddTable(model, "user", 4)->set_evict_unused_ms(60000);
  Open(model);
  const auto pass = [&](absl::Duration duration) {
    for (LaneHarness* lane : {host_.get(), device_.get()}) {
      const absl::Time until = lane->now + duration;
      while (lane->core.next_wake() <= until) {
        lane->now = std::max(lane->now, lane->core.next_wake());
        lane->Tick();
        lane->Beat(1);
      }
      lane->now = until;
    }
    EXPECT_EQ(device_->core.counters().rows.value(), host_->core.counters().rows.value());
    EXPECT_EQ(device_->core.counters().evicted.value(), host_->core.counters().evicted.value());
  };
  const TableKeys gone = KeysOfBucket(3, 5), stays = KeysOfBucket(4, 5);
  Both({Push(0, gone, 1), Push(0, stays, 2)});
  pass(absl::Seconds(40));
  Both({Push(0, stays, 3)});
  EXPECT_EQ(device_->core.counters().rows.value(), 10u);
  pass(absl::Seconds(30));
  EXPECT_EQ(device_->core.counters().rows.value(), 5u);
  EXPECT_EQ(device_->core.counters().evicted.value(), 5u);
  Both({Pull(0, gone), Pull(0, stays)});
  // The bucket's record has not gone with its rows.
  TestEntry again = Push(0, gone, 1);
  again.sequence = 1;
  EXPECT_TRUE(Both({again}).message.entries[0].flags & wire::kRepeat);
  // It tells the same keys, in whichever order.
  const auto told = [&](LaneHarness& lane, uint64_t since) {
    wire::v1::Evicted ask;
    ask.set_table(0);
    ask.set_since(since);
    return lane.Ask(1, wire::Kind::kEvicted, ask).at(0).As<wire::v1::EvictedKeys>();
  };
  for (const uint64_t since : {uint64_t{0}, uint64_t{5}, uint64_t{6}, std::numeric_limits<uint64_t>::max()}) {
    auto found = told(*device_, since), expected = told(*host_, since);
    std::sort(found.mutable_keys()->begin(), found.mutable_keys()->end());
    std::sort(expected.mutable_keys()->begin(), expected.mutable_keys()->end());
    EXPECT_EQ(found.SerializeAsString(), expected.SerializeAsString()) << "since " << since;
  }
  EXPECT_EQ(told(*device_, 0).keys_size(), 5);
  EXPECT_EQ(told(*device_, 3).keys_size(), 2);
}

TEST_F(GpuLaneTablesTest, PastItsBoundTheRowsPushedLongestAgoMakeRoom) {
  constexpr uint32_t kDim = 256;
  wire::v1::Model model = ModelOf(wire::v1::RULE_KIND_SGD);
  AddTable(model, "user", kDim);
  Open(model);
  const size_t most = (size_t{1} << 20) / (kDim * sizeof(float));
  TableKeys last;
  for (uint64_t step = 0; step < 40; ++step) {
    device_->now += absl::Seconds(1);
    last = KeysOfBucket(static_cast<uint32_t>(step), 60);
    EXPECT_EQ(CodeOf(device_->Update(1, {Push(0, last, step)}), 0), StatusCode::kOk);
    device_->Beat(1);
    EXPECT_LE(device_->core.counters().rows.value(), most);
  }
  const LaneCounters& counters = device_->core.counters();
  EXPECT_EQ(counters.dropped_gradients.value(), 0u);
  EXPECT_GT(counters.rows.value(), most * 8 / 10);
  EXPECT_EQ(counters.rows.value() + counters.evicted.value(), 40u * 60u);
  // The keys that went are told, as many as the table has rows, and that others are forgotten.
  wire::v1::Evicted ask;
  ask.set_table(0);
  const auto told = device_->Ask(1, wire::Kind::kEvicted, ask).at(0).As<wire::v1::EvictedKeys>();
  EXPECT_EQ(told.next(), counters.evicted.value());
  EXPECT_EQ(static_cast<uint64_t>(told.keys_size()), std::min<uint64_t>(1024, counters.evicted.value()));
  EXPECT_TRUE(told.missed());
  const std::set<uint64_t> gone(told.keys().begin(), told.keys().end());
  EXPECT_EQ(gone.size(), static_cast<size_t>(told.keys_size())) << "no key comes twice";
  for (const uint64_t key : last) EXPECT_FALSE(gone.contains(key));
  // Those of the last message are all there, as the host has them.
  sequences_.clear();
  host_->Update(1, {Push(0, last, 39)});
  const auto rows = [&](LaneHarness& lane) {
    const Heard heard = lane.Update(1, {Pull(0, last)});
    return std::string(heard.message.payloads.at(0).data(), heard.message.payloads.at(0).size());
  };
  EXPECT_TRUE(rows(*device_) == rows(*host_)) << "rows of the last message differ";
}

TEST_F(GpuLaneTablesTest, TheEvaluatorsRowIsThePulledOne) {
  wire::v1::Model model = ModelOf(wire::v1::RULE_KIND_ADAGRAD);
  AddTable(model, "user", 5, DType::kF16);
  Open(model);
  const TableKeys keys = KeysOfBucket(77, 2);
  Both({Push(0, {keys[0]}, 1)});
  for (const uint64_t key : keys) {
    std::vector<float> expected(5), found(5);
    ASSERT_TRUE(host_->core.rows().Row(0, key, expected.data()));
    ASSERT_TRUE(device_->core.rows().Row(0, key, found.data()));
    EXPECT_EQ(found, expected);
  }
}

TEST_F(GpuLaneTablesTest, ATableThatDoesNotFitIsRefusedWithBothNumbersBeforeTraining) {
  wire::v1::Model model = ModelOf(wire::v1::RULE_KIND_SGD);
  AddTable(model, "small", 4);
  AddTable(model, "huge", 4, DType::kF32, uint64_t{64} << 20);
  const uint64_t limit = uint64_t{40} << 20;
  const std::unique_ptr<LaneHarness> lane = LaneOnDevice({.name = "cuda", .memory_limit_bytes = limit});
  lane->Join(1, 0);
  const auto install = [&](const wire::v1::Model& declared) {
    return lane->Install(1, lane->Declare(1, declared).at(0).As<wire::v1::Declared>()).at(0).status();
  };
  const absl::Status refused = install(model);
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(absl::StrContains(refused.message(), absl::StrCat("\"huge\" takes all of its part of max_bytes at once, ",
                                                                uint64_t{64} << 20, " bytes on cuda:0")))
      << refused;
  EXPECT_TRUE(absl::StrContains(refused.message(), absl::StrCat("of ", limit, " bytes are taken"))) << refused;
  EXPECT_EQ(lane->core.model(), nullptr);
}

TEST_F(GpuLaneTablesTest, TablesThatADeviceCannotHoldStayOnTheHostAndTheLogSaysSo) {
  wire::v1::Model model = ModelOf(wire::v1::RULE_KIND_SGD);
  AddTable(model, "there", 4);
  AddTable(model, "counted", 4)->set_admit_after(2);
  AddTable(model, "lucky", 4)->set_admit_probability(0.5f);
  AddTable(model, "unbounded", 4)->set_max_bytes(0);
  AddTable(model, "wide", 4096, DType::kF32);  // 18 rows of it, 16 KiB each, fit; with Adam's slots they do not
  *model.mutable_tables(4)->mutable_rule() = model.rule();
  model.mutable_tables(4)->mutable_rule()->set_kind(wire::v1::RULE_KIND_ADAM);
  model.mutable_tables(4)->mutable_rule()->set_learning_rate(0.5f);
  Open(model);
  std::string notes;
  for (const std::string& note : device_->core.TakeNotes()) absl::StrAppend(&notes, note, "\n");
  EXPECT_FALSE(absl::StrContains(notes, "there")) << notes;
  EXPECT_TRUE(absl::StrContains(notes, "table \"counted\" stays on the host, not on cuda:0: it admits keys")) << notes;
  EXPECT_TRUE(absl::StrContains(notes, "table \"lucky\" stays on the host, not on cuda:0: it admits keys")) << notes;
  EXPECT_TRUE(absl::StrContains(notes, "table \"unbounded\" stays on the host, not on cuda:0: it has no max_bytes"))
      << notes;
  EXPECT_EQ(absl::StrContains(notes, "table \"wide\""), 18 * (3 * 4096 * 4 + 28) > (1 << 20)) << notes;
  std::vector<TestEntry> entries;
  for (uint64_t step = 1; step <= 3; ++step) {
    entries.clear();
    for (uint32_t table = 0; table < 5; ++table) {
      entries.push_back(Push(table, KeysOfBucket(20 + table, 3), step, wire::kPush | wire::kPull));
    }
    Both(entries);
  }
  EXPECT_EQ(device_->core.counters().dropped_gradients.value(), host_->core.counters().dropped_gradients.value());
  device_->SetUpModel(1, model);
  EXPECT_TRUE(device_->core.TakeNotes().empty()) << "it is said once";
}

}  // namespace
}  // namespace basin
