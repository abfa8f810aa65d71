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

Model WithHalfTable() {
  Model model = OneVariable(4);
  wire::v1::Table* table = model.add_tables();
  table->set_name("user");
  table->set_dim(16);
  table->set_storage(static_cast<uint32_t>(DType::kF16));
  table->mutable_initializer()->set_kind(wire::v1::INIT_KIND_UNIFORM);
  table->mutable_initializer()->set_a(-0.5f);
  table->mutable_initializer()->set_b(0.5f);
  table->set_admit_after(2);
  table->set_admit_probability(0.5f);
  table->set_evict_unused_ms(1000);
  table->set_max_bytes(uint64_t{1} << 30);
  return model;
}

template <class Change>
std::string TableVerdict(Change change) {
  Model model = WithHalfTable();
  change(model, *model.mutable_tables(0));
  return CheckModel(model).ToString();
}

#define EXPECT_TABLE_SAYS(text, ...)                                                                                  \
  EXPECT_PRED2([](const std::string& said, const std::string& part) { return said.find(part) != std::string::npos; }, \
               TableVerdict([](Model& m, wire::v1::Table& t) {                                                        \
                 (void)m, (void)t;                                                                                    \
                 __VA_ARGS__;                                                                                         \
               }),                                                                                                    \
               text)

TEST(CheckModelTest, TakesTables) {
  EXPECT_TABLE_SAYS("OK", );
  EXPECT_TABLE_SAYS("OK", t.set_dim(1), t.set_storage(2));
  EXPECT_TABLE_SAYS("OK", t.set_dim(4096), t.set_storage(4));
  EXPECT_TABLE_SAYS("OK", t.set_admit_probability(1), t.set_admit_after(1), t.set_evict_unused_ms(0),
                    t.set_max_bytes(0));
  for (int kind = wire::v1::RULE_KIND_SGD; kind <= wire::v1::RULE_KIND_ROWWISE_ADAGRAD; ++kind) {
    Model model = WithHalfTable();
    *model.mutable_tables(0)->mutable_rule() = model.rule();
    model.mutable_tables(0)->mutable_rule()->set_kind(static_cast<wire::v1::RuleKind>(kind));
    model.mutable_tables(0)->mutable_rule()->set_initial_accumulator(0.1f);
    EXPECT_EQ(CheckModel(model).ToString(), "OK") << kind;
  }
}

TEST(CheckModelTest, ATableIsRefusedByName) {
  EXPECT_TABLE_SAYS("a table of the model has no name", t.clear_name());
  EXPECT_TABLE_SAYS("at most 512", t.set_name(std::string(513, 'x')));
  EXPECT_TABLE_SAYS("table \"w\" has the name of another", t.set_name("w"));
  EXPECT_TABLE_SAYS("table \"user\" has the name of another", *m.add_tables() = m.tables(0));
  EXPECT_TABLE_SAYS("table \"user\": dim is 0, expected 1 to 4096", t.set_dim(0));
  EXPECT_TABLE_SAYS("table \"user\": dim is 4097", t.set_dim(4097));
  EXPECT_TABLE_SAYS("storage is i32, expected f32, f16 or bf16", t.set_storage(6));
  EXPECT_TABLE_SAYS("storage is dtype 99", t.set_storage(99));
  EXPECT_TABLE_SAYS("it has no initializer", t.clear_initializer());
  EXPECT_TABLE_SAYS("glorot_uniform(seed 0) is for variables",
                    t.mutable_initializer()->set_kind(wire::v1::INIT_KIND_GLOROT_UNIFORM));
  EXPECT_TABLE_SAYS("assigned is for variables", t.mutable_initializer()->set_kind(wire::v1::INIT_KIND_ASSIGNED));
  EXPECT_TABLE_SAYS("high", t.mutable_initializer()->set_b(-1));
  EXPECT_TABLE_SAYS("does not fit f16", t.mutable_initializer()->set_b(1e6f));
  EXPECT_TABLE_SAYS("OK", t.mutable_initializer()->set_b(1e6f), t.set_storage(4));
  EXPECT_TABLE_SAYS("admit_after is 0, expected 1 to", t.set_admit_after(0));
  EXPECT_TABLE_SAYS("admit_probability is 0, expected more than 0 and at most 1", t.set_admit_probability(0));
  EXPECT_TABLE_SAYS("admit_probability is 1.5", t.set_admit_probability(1.5f));
  EXPECT_TABLE_SAYS("admit_probability is nan", t.set_admit_probability(NAN));
  EXPECT_TABLE_SAYS("evict_unused is", t.set_evict_unused_ms(~uint64_t{0}));
  EXPECT_TABLE_SAYS("max_bytes is 1, at least", t.set_max_bytes(1));
  EXPECT_TABLE_SAYS("table \"user\": rule", t.mutable_rule()->set_kind(wire::v1::RULE_KIND_FTRL),
                    t.mutable_rule()->set_l1(-1));
}

// Each is a bound on what a peer can make a ps allocate.
TEST(CheckModelTest, TablesAreLimitedInNumber) {
  Model model;
  *model.mutable_rule() = OneVariable(4).rule();
  for (uint32_t i = 0; i <= kMaxTables; ++i) {
    *model.add_tables() = WithHalfTable().tables(0);
    model.mutable_tables(static_cast<int>(i))->set_name(absl::StrCat("t", i));
  }
  EXPECT_NE(CheckModel(model).message().find("the model has 32769 tables, at most 32768"), absl::string_view::npos);
  model.mutable_tables()->RemoveLast();
  EXPECT_TRUE(CheckModel(model).ok());
}

TEST(CheckModelTest, RowwiseAdagradIsForTables) {
  Model model = WithHalfTable();
  model.mutable_rule()->set_kind(wire::v1::RULE_KIND_ROWWISE_ADAGRAD);
  EXPECT_NE(CheckModel(model).message().find("variable \"w\": rule adagrad_rowwise is for tables"),
            absl::string_view::npos);
  // The model's rule may be for the tables where no variable needs it.
  *model.mutable_variables(0)->mutable_rule() = OneVariable(4).rule();
  EXPECT_TRUE(CheckModel(model).ok());
  model.clear_variables();
  EXPECT_TRUE(CheckModel(model).ok());
}

TEST(CompareTest, NamesTheFirstDifferenceOfTables) {
  const Model spec = Canonical(WithHalfTable());
  const auto difference = [&](auto change, bool loose = true) {
    Model other = WithHalfTable();
    change(other, *other.mutable_tables(0));
    return std::string(Compare(spec, Canonical(other), "worker 1", loose).message());
  };
  EXPECT_EQ(difference([](auto&, auto&) {}), "");
  EXPECT_EQ(difference([](auto&, auto& t) { t.set_dim(17); }),
            "the model that worker 1 declares differs from the run's: the dim of table 0 (\"user\") is 17, the run has "
            "16; start every task with the same model");
  const auto says = [&](const char* part, auto change) {
    EXPECT_NE(difference(change).find(part), std::string::npos) << difference(change);
  };
  says("the name of table 0 is \"x\", the run has \"user\"", [](auto&, auto& t) { t.set_name("x"); });
  says("the storage of table 0 (\"user\") is f32, the run has f16", [](auto&, auto& t) { t.set_storage(2); });
  says("the initializer of table 0", [](auto&, auto& t) { t.mutable_initializer()->set_seed(7); });
  says("the admission of table 0 (\"user\") is after 3 pushes with probability 0.5, the run has after 2",
       [](auto&, auto& t) { t.set_admit_after(3); });
  says("with probability 1, the run has", [](auto&, auto& t) { t.set_admit_probability(1); });
  says("the eviction of table 0 (\"user\") is never for disuse", [](auto&, auto& t) { t.set_evict_unused_ms(0); });
  says("no max_bytes, the run has after 1000 ms of disuse, max_bytes 1073741824",
       [](auto&, auto& t) { t.set_max_bytes(0); });
  says("the rule of table 0", [](auto&, auto& t) { t.mutable_rule()->set_kind(wire::v1::RULE_KIND_ADAM); });
  // Who leaves rules to the chief need not say a table's either.
  EXPECT_EQ(difference([](auto& m, auto&) { m.clear_rule(); }), "");
  EXPECT_NE(difference([](auto& m, auto&) { m.clear_rule(); }, /*loose=*/false), "");
}

TEST(CompareTest, ATablesRuleThatIsTheModelsIsNoDifference) {
  const Model spec = Canonical(WithHalfTable());
  Model other = WithHalfTable();
  *other.mutable_tables(0)->mutable_rule() = other.rule();
  EXPECT_TRUE(Compare(spec, Canonical(other), "x", /*loose=*/false).ok());
  EXPECT_EQ(Canonical(other).SerializeAsString(), spec.SerializeAsString());
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

TEST(RunModelTest, TablesAreAppended) {
  const RunModel first = *RunModel::Make("run", 2, Canonical(OneVariable(4)));
  const Model with = Canonical(WithHalfTable());
  EXPECT_FALSE(Covers(first.spec().model(), with));
  const RunModel second = *first.Extended(with);
  ASSERT_EQ(second.spec().model().tables_size(), 1);
  EXPECT_EQ(second.table_placement().buckets(), 256u);
  EXPECT_EQ(second.rule_of(second.spec().model().tables(0)).kind(), wire::v1::RULE_KIND_SGD);
  EXPECT_TRUE(CheckExtends(first.spec(), second.spec()).ok());
  EXPECT_NE(CheckExtends(second.spec(), first.spec()).message().find("1 variables, 0 tables"), absl::string_view::npos);
  EXPECT_EQ(second.Extended(with)->hash(), second.hash());
  EXPECT_EQ(RunModel::Read(second.bytes(), second.hash())->spec().model().tables(0).dim(), 16u);
  Model changed = with;
  changed.mutable_tables(0)->set_dim(8);
  EXPECT_FALSE(CheckExtends(second.spec(), RunModel::Make("run", 2, changed)->spec()).ok());
}

TEST(RunModelTest, ANewTableMayNotTakeTheNameOfAVariableThatTheDeclarationLeavesOut) {
  Model model = Canonical(OneVariable(4));
  *model.add_variables() = model.variables(0);
  model.mutable_variables(1)->set_name("user");
  const RunModel first = *RunModel::Make("run", 2, model);
  EXPECT_TRUE(CheckModel(WithHalfTable()).ok());
  EXPECT_EQ(first.Extended(Canonical(WithHalfTable())).status().code(), absl::StatusCode::kInvalidArgument);
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
  EXPECT_FALSE(spoilt([](auto& spec) { spec.mutable_model()->add_tables(); }));
}

}  // namespace
}  // namespace basin
