#include "cluster_spec/describe.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "cluster_spec/json_text.h"

namespace basin {
namespace {

constexpr char kWorker[] =
    R"({"cluster": {"ps": ["a:1"], "worker": ["b:1", "c:1"],}, "task": {"type": "worker", "index": 0}})";

TEST(DescribeTest, AValidTaskIsToldRoleIndexChiefAndAddresses) {
  const auto config = ParseTfConfig(kWorker);
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(Describe(*config, Resolve(*config)),
            "role       worker\n"
            "index      0\n"
            "address    b:1\n"
            "chief      worker 0 (no chief job, so the first worker is)  <- this task\n"
            "ps         ps 0 at a:1\n"
            "workers    worker 0 at b:1  <- this task\n"
            "           worker 1 at c:1\n"
            "evaluator  none listed; one may join from outside\n"
            "warning    TF_CONFIG line 1 column 53: a comma before '}'; accepted here, but TensorFlow's own parser "
            "rejects it: remove it\n"
            "wrong      nothing\n");
}

TEST(DescribeTest, AnInvalidTaskIsToldWhatIsWrong) {
  const auto config = ParseTfConfig(R"({"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 4}})");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(Describe(*config, Resolve(*config)),
            "role       ps\n"
            "index      4\n"
            "ps         0 at a:1\n"
            "wrong      TF_CONFIG task ps 4: expected job \"ps\" to list index 4, found indices 0 at a:1; set "
            "task.index to this task's own, or "
            "add its address\n");
}

TEST(DescribeTest, JsonIsStrictAndSaysWhetherItIsValid) {
  for (const char* text : {kWorker, "{}", R"({"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 4}})",
                           R"({"cluster": {"worker": {}, "ps": ["a:1"]}, "task": {"type": "ps", "index": 3}})"}) {
    const auto config = ParseTfConfig(text);
    ASSERT_TRUE(config.ok());
    const auto view = Resolve(*config);
    const auto document = ParseJson(DescribeJson(*config, view), "description");
    ASSERT_TRUE(document.ok()) << document.status();
    EXPECT_TRUE(document->warnings.empty());
    EXPECT_EQ(document->root.Find("valid")->boolean, view.ok());
    EXPECT_EQ(document->root.Find("error") == nullptr, view.ok());
    EXPECT_NE(document->root.Find("role"), nullptr);
  }
}

TEST(DescribeTest, AStandaloneTaskSaysSo) {
  const auto config = ParseTfConfig("{}");
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(absl::StrContains(Describe(*config, Resolve(*config)), "chief      this task, which trains alone\n"));
}

}  // namespace
}  // namespace basin
