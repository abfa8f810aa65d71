#include "ps/run_spec.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

using wire::v1::Model;

// What CheckModel says of a model that `change` has spoilt.
template <class Change>
std::string Verdict(Change change) {
  Model model = OneVariable(4);
  AddInput(model, 10);
  change(model, *model.mutable_variables(0), *model.mutable_inputs(0));
  return CheckModel(model).ToString();
}

#define EXPECT_SAYS(text, ...)                                                                                        \
  EXPECT_PRED2([](const std::string& said, const std::string& part) { return said.find(part) != std::string::npos; }, \
               Verdict([](Model& m, wire::v1::Variable& v, wire::v1::Input& i) {                                      \
                 (void)m, (void)v, (void)i;                                                                           \
                 __VA_ARGS__;                                                                                         \
               }),                                                                                                    \
               text)

TEST(CheckModelTest, TakesAPlainModel) { EXPECT_SAYS("OK", ); }

TEST(CheckModelTest, RefusesByName) {
  EXPECT_SAYS("bounded_staleness is not in this version", m.set_consistency(wire::v1::CONSISTENCY_BOUNDED_STALENESS));
  EXPECT_SAYS("sync is not in this version", m.set_consistency(wire::v1::CONSISTENCY_SYNC));
  EXPECT_SAYS("\"w\": dtype f64 is not in this version", v.set_dtype(1));
  EXPECT_SAYS("dtype 99 is unknown", v.set_dtype(99));
  EXPECT_SAYS("has no name", v.clear_name());
  EXPECT_SAYS("at most 512", v.set_name(std::string(513, 'x')));
  EXPECT_SAYS("two variables are named \"w\"", *m.add_variables() = m.variables(0));
  EXPECT_SAYS("negative dimension", v.set_shape(0, -1));
  EXPECT_SAYS("larger than any machine", v.set_shape(0, int64_t{1} << 40), v.add_shape(int64_t{1} << 40));
  EXPECT_SAYS("at most 16", for (int k = 0; k < 17; ++k) v.add_shape(1));
  EXPECT_SAYS("no rule trains it", m.clear_rule());
  EXPECT_SAYS("learning_rate", m.mutable_rule()->set_learning_rate(-1));
  EXPECT_SAYS("it has no initializer", v.clear_initializer());
  EXPECT_SAYS("and has a rule", v.set_statistic(wire::v1::STATISTIC_MEAN), *v.mutable_rule() = m.rule());
  EXPECT_SAYS("a piece needs at least one item", i.set_piece_items(0));
  EXPECT_SAYS("at least one epoch", i.set_epochs(0));
  EXPECT_SAYS("make pieces larger", i.set_items(uint64_t{1} << 59));
  EXPECT_SAYS("two inputs are named", *m.add_inputs() = m.inputs(0));
}

TEST(CompareTest, NamesTheFirstDifferenceWithBothValues) {
  const Model spec = OneVariable(4);
  Model other = spec;
  other.mutable_variables(0)->set_shape(0, 5);
  EXPECT_EQ(Compare(spec, other, "worker 1", true).message(),
            "the model that worker 1 declares differs from the run's: the shape of variable 0 (\"w\") is [5], the run "
            "has [4]; start every task with the same model");
  other = spec;
  other.mutable_variables(0)->set_name("v");
  EXPECT_NE(Compare(spec, other, "x", true).message().find("is \"v\", the run has \"w\""), absl::string_view::npos);
  other = spec;
  other.mutable_variables(0)->mutable_initializer()->set_kind(wire::v1::INIT_KIND_CONSTANT);
  EXPECT_NE(Compare(spec, other, "x", true).message().find("initializer of variable 0"), absl::string_view::npos);
  other = spec;
  other.mutable_rule()->set_learning_rate(2);
  EXPECT_NE(Compare(spec, other, "x", true).message().find("rule of variable 0"), absl::string_view::npos);
}

TEST(CompareTest, OnlyTheChiefMustSayTheTrainingsSettings) {
  Model spec = OneVariable(4);
  spec.set_max_steps(100);
  AddInput(spec, 10);
  Model other = OneVariable(4);
  other.clear_rule();
  EXPECT_TRUE(Compare(spec, other, "x", /*loose=*/true).ok());
  EXPECT_FALSE(Compare(spec, other, "x", /*loose=*/false).ok());
}

TEST(RunModelTest, IsReadBackAndExtended) {
  Model model = Canonical(OneVariable(4));
  const RunModel first = *RunModel::Make("run", 2, model);
  EXPECT_EQ(RunModel::Read(first.bytes(), first.hash())->placement().digest(), first.placement().digest());
  EXPECT_EQ(first.Extended(model)->hash(), first.hash());
  *model.add_variables() = model.variables(0);
  model.mutable_variables(1)->set_name("v");
  const RunModel second = *first.Extended(model);
  EXPECT_EQ(second.spec().generations_size(), 2);
  EXPECT_TRUE(CheckExtends(first.spec(), second.spec()).ok());
  EXPECT_FALSE(CheckExtends(second.spec(), first.spec()).ok());
  EXPECT_EQ(second.placement().shard(ShardId(0)), first.placement().shard(ShardId(0)));
}

TEST(RunModelTest, HostileBytesAreRefused) {
  const RunModel model = *RunModel::Make("run", 1, OneVariable(4));
  EXPECT_FALSE(RunModel::Read(model.bytes(), "").ok());
  EXPECT_FALSE(RunModel::Read(model.bytes() + "x", model.hash()).ok());
  const auto spoilt = [&](auto change) {
    wire::v1::RunSpec spec = model.spec();
    change(spec);
    const std::string bytes = spec.SerializeAsString();
    const uint64_t hash = wire::RunHash(bytes);
    return RunModel::Read(bytes, absl::string_view(reinterpret_cast<const char*>(&hash), 8)).ok();
  };
  EXPECT_TRUE(spoilt([](auto&) {}));
  EXPECT_FALSE(spoilt([](auto& spec) { spec.set_ps_count(0); }));
  EXPECT_FALSE(spoilt([](auto& spec) { spec.set_ps_count(1u << 31); }));
  EXPECT_FALSE(spoilt([](auto& spec) { spec.set_generations(0, 2); }));
  EXPECT_FALSE(spoilt([](auto& spec) { spec.clear_generations(); }));
  EXPECT_FALSE(spoilt([](auto& spec) { spec.mutable_model()->mutable_variables(0)->set_shape(0, -4); }));
}

}  // namespace
}  // namespace basin
