// What the C ABI says of a model before any parameter server sees it.
#include <basin/basin.h>
#include <basin/client.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace {

basin_table Good() {
  basin_table table = {};
  table.size = sizeof(table);
  table.name = "user";
  table.dim = 16;
  table.storage = {2, 32, 1};
  table.initializer = {BASIN_UNIFORM, -1, 1, 7};
  return table;
}

struct ModelHolder {
  ~ModelHolder() { basin_model_free(model); }
  basin_model* model = basin_model_new();
};

// The message of adding a table that `change` has spoilt, with its code.
template <class Change>
std::string Verdict(Change change) {
  const ModelHolder holder;
  basin_table table = Good();
  change(table);
  basin_status status = {};
  uint32_t id = 99;
  const int32_t code = basin_model_add_table(holder.model, &table, &id, &status);
  EXPECT_EQ(code, status.code);
  EXPECT_EQ(id, code == BASIN_OK ? 0u : 99u);
  return code == BASIN_OK ? "OK" : status.message;
}

TEST(AddTableTest, ChecksEveryField) {
  const auto says = [](const char* expected, auto change) {
    const std::string found = Verdict(change);
    EXPECT_NE(found.find(expected), std::string::npos) << found;
  };
  says("OK", [](basin_table&) {});
  says("a table", [](basin_table& t) { t.name = nullptr; });
  says("a table", [](basin_table& t) { t.name = ""; });
  says("table \"user\": dim is 0, expected 1 to 4096", [](basin_table& t) { t.dim = 0; });
  says("dim is 4097", [](basin_table& t) { t.dim = 4097; });
  says("OK", [](basin_table& t) { t.storage = {2, 16, 1}; });
  says("OK", [](basin_table& t) { t.storage = {4, 16, 1}; });
  says("OK", [](basin_table& t) { t.storage = {0, 0, 0}; });
  says("storage is i32, expected f32, f16 or bf16", [](basin_table& t) { t.storage = {0, 32, 1}; });
  says("storage: unknown element type", [](basin_table& t) { t.storage = {2, 24, 1}; });
  says("initializer kind 5; a row's is", [](basin_table& t) { t.initializer.kind = BASIN_GLOROT_UNIFORM; });
  says("initializer kind -1", [](basin_table& t) { t.initializer.kind = -1; });
  says("admit_probability is 1.1", [](basin_table& t) { t.admit_probability = 1.1f; });
  says("admit_probability is nan", [](basin_table& t) { t.admit_probability = NAN; });
  says("evict_unused_s is -1", [](basin_table& t) { t.evict_unused_s = -1; });
  says("evict_unused_s is inf", [](basin_table& t) { t.evict_unused_s = INFINITY; });
  basin_rule rule = {};
  basin_rule_init(&rule, sizeof(rule), 7, 1);
  says("rule kind 7 is unknown", [&](basin_table& t) { t.rule = &rule; });
  basin_rule_init(&rule, sizeof(rule), BASIN_RULE_ROWWISE_ADAGRAD, 1);
  says("OK", [&](basin_table& t) { t.rule = &rule; });
}

TEST(AddTableTest, NullsAreRefused) {
  const ModelHolder holder;
  const basin_table table = Good();
  EXPECT_EQ(basin_model_add_table(nullptr, &table, nullptr, nullptr), BASIN_INVALID_ARGUMENT);
  EXPECT_EQ(basin_model_add_table(holder.model, nullptr, nullptr, nullptr), BASIN_INVALID_ARGUMENT);
  EXPECT_EQ(basin_model_add_table(holder.model, &table, nullptr, nullptr), BASIN_OK);
}

TEST(AddTableTest, NamesAreUniqueOverVariablesAndTables) {
  const ModelHolder holder;
  basin_status status = {};
  basin_variable variable = {};
  variable.size = sizeof(variable);
  variable.name = "user";
  variable.dtype = {2, 32, 1};
  variable.initializer.kind = BASIN_ZEROS;
  ASSERT_EQ(basin_model_add_variable(holder.model, &variable, nullptr, &status), BASIN_OK) << status.message;
  basin_table table = Good();
  EXPECT_EQ(basin_model_add_table(holder.model, &table, nullptr, &status), BASIN_ALREADY_EXISTS);
  table.name = "item";
  uint32_t id = 99;
  EXPECT_EQ(basin_model_add_table(holder.model, &table, &id, &status), BASIN_OK) << status.message;
  EXPECT_EQ(id, 0u);  // tables are numbered apart from variables
  variable.name = "item";
  EXPECT_EQ(basin_model_add_variable(holder.model, &variable, nullptr, &status), BASIN_ALREADY_EXISTS);
}

TEST(AddTableTest, AnOlderCallersStructIsShorter) {
  const ModelHolder holder;
  basin_table table = Good();
  table.size = offsetof(basin_table, admit_after);
  table.admit_probability = NAN;  // not there for this caller
  EXPECT_EQ(basin_model_add_table(holder.model, &table, nullptr, nullptr), BASIN_OK);
}

TEST(RowsTest, NullsAreRefused) {
  basin_call* call = nullptr;
  basin_rows rows = {};
  rows.size = sizeof(rows);
  basin_status status = {};
  EXPECT_EQ(basin_start_rows(nullptr, &rows, 1, &call, &status), BASIN_INVALID_ARGUMENT);
  EXPECT_EQ(basin_start_rows(nullptr, &rows, 1, nullptr, &status), BASIN_INVALID_ARGUMENT);
  EXPECT_EQ(call, nullptr);
  uint64_t key = 0;
  size_t count = 9;
  int32_t missed = 9;
  EXPECT_EQ(basin_evicted_keys(nullptr, 0, &key, 1, &count, &missed, &status), BASIN_INVALID_ARGUMENT);
  EXPECT_EQ(basin_evicted_keys(nullptr, 0, nullptr, 1, &count, &missed, &status), BASIN_INVALID_ARGUMENT);
  EXPECT_EQ(basin_evicted_keys(nullptr, 0, &key, 1, nullptr, &missed, &status), BASIN_INVALID_ARGUMENT);
  EXPECT_EQ(basin_evicted_keys(nullptr, 0, &key, 0, &count, &missed, &status), BASIN_INVALID_ARGUMENT);
  basin_table table = {};
  EXPECT_EQ(basin_get_table(nullptr, 0, &table, &status), BASIN_INVALID_ARGUMENT);
}

TEST(RuleInitTest, HasTheUsualSettings) {
  basin_rule rule = {};
  basin_rule_init(&rule, sizeof(rule), BASIN_RULE_ROWWISE_ADAGRAD, 0.5f);
  EXPECT_EQ(rule.learning_rate, 0.5f);
  EXPECT_EQ(rule.initial_accumulator, 0.1f);
  EXPECT_EQ(rule.epsilon, 1e-7f);
  basin_rule_init(&rule, sizeof(rule), BASIN_RULE_FTRL, 0.5f);
  EXPECT_EQ(rule.initial_accumulator, 0.1f);
  EXPECT_EQ(rule.l1, 0);
  EXPECT_EQ(rule.l2, 0);
  EXPECT_EQ(rule.beta, 0);
  EXPECT_EQ(rule.epsilon, 0);
}

TEST(CppModelTest, TablesTakeTheirOptions) {
  basin::Model model;
  const basin::Table user = model.Table("user", {.dim = 64,
                                                 .storage = basin::kF16,
                                                 .rule = basin::RowwiseAdagrad{.learning_rate = .02f},
                                                 .admit_after = 2,
                                                 .max_bytes = 400ull << 30});
  const basin::Table item = model.Table("item", {8});
  EXPECT_TRUE(model.status().ok()) << model.status().message();
  EXPECT_EQ(user.id, 0u);
  EXPECT_EQ(user.dim, 64u);
  EXPECT_EQ(item.id, 1u);
  model.Table("no length", {});
  EXPECT_EQ(model.status().code(), BASIN_INVALID_ARGUMENT);
  EXPECT_NE(model.status().message().find("\"no length\": dim is 0"), std::string::npos) << model.status().message();
}

}  // namespace
