#include "cluster_spec/tf_config.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace basin {
namespace {

constexpr char kCluster[] =
    R"("cluster": {"ps": ["ps0:2222", "ps1:2222"], "worker": ["worker0:2222", "worker1:2222", "worker2:2222"]})";

TfConfig ReadConfig(absl::string_view json) {
  auto config = ParseTfConfig(json);
  EXPECT_TRUE(config.ok()) << json << ": " << config.status();
  return config.ok() ? *std::move(config) : TfConfig();
}

// The base cluster with `rest` behind it.
TfConfig Base(absl::string_view rest) { return ReadConfig(absl::StrCat("{", kCluster, ", ", rest, "}")); }

std::string ErrorOfConfig(absl::string_view json) {
  const auto config = ParseTfConfig(json);
  return config.ok() ? "no error" : std::string(config.status().message());
}

constexpr char kPs0[] = R"("task": {"type": "ps", "index": 0})";

TEST(TfConfigTest, MasterIsTheTasksAddress) {
  const TfConfig config = Base(kPs0);
  EXPECT_EQ(*config.task_type, "ps");
  EXPECT_EQ(*config.task_index, 0);
  EXPECT_EQ(*config.master(), "ps0:2222");
  EXPECT_EQ(*config.master({"worker", 1, {}}), "worker1:2222");
}

TEST(TfConfigTest, SessionMasterIsTakenVerbatim) {
  const TfConfig config = Base(absl::StrCat(kPs0, R"(, "session_master": "sessionmaster:2222", "rpc_layer": "grpc")"));
  EXPECT_EQ(*config.master(), "sessionmaster:2222");
  EXPECT_EQ(*config.master({"worker", 1, "test"}), "sessionmaster:2222");
}

TEST(TfConfigTest, RpcLayerGoesInFront) {
  EXPECT_EQ(*Base(absl::StrCat(kPs0, R"(, "rpc_layer": "grpc")")).master(), "grpc://ps0:2222");
  EXPECT_EQ(*Base(absl::StrCat(kPs0, R"(, "rpc_layer": "")")).master(), "ps0:2222");
}

TEST(TfConfigTest, ArgumentsWinOverTfConfig) {
  const TfConfig config = Base(R"("task": {"type": "ps", "index": 1}, "rpc_layer": "grpc")");
  TaskOverrides overrides{"ps", 0, {}};
  EXPECT_EQ(*config.master(overrides), "grpc://ps0:2222");
  overrides = {"worker", 1, "test"};
  EXPECT_EQ(*config.master(overrides), "test://worker1:2222");
  EXPECT_EQ(*config.type(overrides), "worker");
  EXPECT_EQ(*config.index(overrides), 1);
}

TEST(TfConfigTest, ANumberAsTypeBecomesItsString) {
  const TfConfig config = ReadConfig(R"({"cluster": {"123456": ["a:1", "b:1"]}, "task": {"type": 123456, "index": 0}})");
  EXPECT_EQ(*config.task_type, "123456");
  EXPECT_EQ(*config.master(), "a:1");
}

TEST(TfConfigTest, AStringAsIndexBecomesItsNumber) {
  EXPECT_EQ(*Base(R"("task": {"type": "ps", "index": "1"})").task_index, 1);
  EXPECT_EQ(*Base(R"("task": {"type": "ps", "index": "0"})").index({{}, 1, {}}), 1);
}

TEST(TfConfigTest, MasterIsEmptyWithoutACluster) {
  EXPECT_EQ(*ReadConfig("{}").master(), "");
  EXPECT_EQ(*ReadConfig(R"({"cluster": {"worker": ["worker0:2222"]}})").master(), "");
  EXPECT_FALSE(ReadConfig("{}").task_type.has_value());
  EXPECT_FALSE(ReadConfig("{}").task_index.has_value());
}

TEST(TfConfigTest, MasterOfATaskThatIsNotThereIsAnError) {
  EXPECT_FALSE(Base(R"("task": {"type": "ps", "index": 2})").master().ok());
  EXPECT_FALSE(Base(R"("task": {"type": "evaluator", "index": 0})").master().ok());
  EXPECT_FALSE(Base(R"("task": {"type": "ps"})").master().ok());
  EXPECT_FALSE(Base(R"("task": {})").master().ok());
}

TEST(TfConfigTest, TheAzureExampleWorksAsPasted) {
  const TfConfig config = ReadConfig(R"(
{
    "cluster": {
        "ps": ["host0:2222", "host1:2222"],
        "worker": ["host2:2222", "host3:2222", "host4:2222"],
    },
    "task": {"type": "ps", "index": 0},
    "environment": "cloud"
})");
  EXPECT_EQ(*config.cluster.num_tasks("ps"), 2u);
  EXPECT_EQ(*config.cluster.num_tasks("worker"), 3u);
  EXPECT_EQ(*config.environment, "cloud");
  EXPECT_EQ(*config.master(), "host0:2222");
  ASSERT_EQ(config.warnings.size(), 1u);
  EXPECT_TRUE(absl::StartsWith(config.warnings[0], "TF_CONFIG line 5 column 61: a comma before '}'"))
      << config.warnings[0];
}

TEST(TfConfigTest, EveryKeyIsRead) {
  const TfConfig config = Base(
      R"("task": {"type": "worker", "index": 2, "trial": "7", "cloud": "europe"}, "rpc_layer": "grpc", "environment": "google",
         "eval_session_master": "e", "model_dir": "/m", "service": {"x": 1}, "job": {"y": 2}, "something_else": null)");
  EXPECT_EQ(*config.trial, "7");
  EXPECT_EQ(*config.cloud, "europe");
  EXPECT_EQ(*config.eval_session_master, "e");
  EXPECT_EQ(*config.model_dir, "/m");
  EXPECT_EQ(*config.environment, "google");
  EXPECT_TRUE(config.warnings.empty()) << config.warnings[0];
}

TEST(TfConfigTest, ALikelySpellingMistakeIsAWarning) {
  const TfConfig config = ReadConfig("{\"clutser\": {}, \"master\": \"a:1\",\n \"task\": {\"typ\": \"ps\"}}");
  ASSERT_EQ(config.warnings.size(), 3u);
  EXPECT_EQ(config.warnings[0],
            "TF_CONFIG line 1 column 2: key \"clutser\" is not known and is ignored; did you mean \"cluster\"?");
  EXPECT_EQ(config.warnings[1],
            "TF_CONFIG line 1 column 17: key \"master\" is ignored here; a job belongs inside \"cluster\"");
  EXPECT_EQ(config.warnings[2],
            "TF_CONFIG line 2 column 11: key \"task.typ\" is not known and is ignored; did you mean \"type\"?");
}

TEST(TfConfigTest, SetButEmptyIsAnError) {
  EXPECT_EQ(ErrorOfConfig(""), "TF_CONFIG line 1 column 1: is set but empty; unset it, or set it to {}");
}

TEST(TfConfigTest, WrongTypesAreRefusedWithTheirPlace) {
  EXPECT_EQ(ErrorOfConfig("{\"task\": {\"index\":\n -1}}"),
            "TF_CONFIG line 2 column 2: task.index: expected an integer from 0 to 65535, found a number \"-1\"; write "
            "this task's position in "
            "its job, counted from 0");
  for (const char* json :
       {R"([])", R"("x")", R"({"task": []})", R"({"task": {"index": 1.5}})", R"({"task": {"index": "1.0"}})",
        R"({"task": {"index": true}})", R"({"task": {"index": 65536}})", R"({"task": {"type": []}})",
        R"({"cluster": null})", R"({"cluster": []})", R"({"rpc_layer": 1})", R"({"environment": {}})",
        R"({"session_master": 1})", R"({"cluster": {"ps": ["a"]}})", R"({"cluster": {"ps": ["grpc://a:1"]}})"})
    EXPECT_TRUE(absl::StartsWith(ErrorOfConfig(json), "TF_CONFIG line 1 column ")) << json << " -> " << ErrorOfConfig(json);
}

TEST(TfConfigTest, FormattedTfConfigReadsBackStrictly) {
  const TfConfig base = Base(kPs0);
  const std::string text = FormatTfConfig(base.cluster, {Role::kWorker, 2});
  const TfConfig read = ReadConfig(text);
  EXPECT_EQ(read.cluster, base.cluster);
  EXPECT_EQ(*read.task_type, "worker");
  EXPECT_EQ(*read.task_index, 2);
  EXPECT_TRUE(read.warnings.empty());
  EXPECT_EQ(text, absl::StrCat("{", kCluster, R"(, "task": {"type": "worker", "index": 2}})"));
}

TEST(TfConfigTest, FormattedTfConfigUsesTheClustersOwnNameForTheChief) {
  const TfConfig sagemaker = ReadConfig(R"({"cluster": {"master": ["a:1"], "ps": ["a:2"]}})");
  EXPECT_EQ(*ReadConfig(FormatTfConfig(sagemaker.cluster, {Role::kChief, 0})).task_type, "master");
  EXPECT_EQ(*ReadConfig(FormatTfConfig(sagemaker.cluster, {Role::kEvaluator, 0})).task_type, "evaluator");
}

}  // namespace
}  // namespace basin
