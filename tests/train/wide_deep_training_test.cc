#include "worker/train/wide_deep_training.h"

#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/match.h"
#include "common/base/random.h"
#include "common/device/cpu_device.h"
#include "tests/train/wide_deep_examples.h"

namespace basin {
namespace {

RuleSpec RuleOf(RuleKind kind, float learning_rate) {
  RuleSpec rule;
  rule.kind = kind;
  rule.learning_rate = learning_rate;
  return rule;
}

WideDeepOptions Options(uint64_t seed = 1) {
  WideDeepOptions options;
  options.hidden = {16};
  options.embedding_dim = 4;
  options.seed = seed;
  options.wide_rule = RuleOf(RuleKind::kFtrl, 0.3f);
  options.embedding_rule = RuleOf(RuleKind::kAdagrad, 0.1f);
  return options;
}

WideDeepTrainingOptions Steps(uint32_t epochs, uint64_t max_steps = 0) {
  WideDeepTrainingOptions options;
  options.batch_size = 64;
  options.epochs = epochs;
  options.max_steps = max_steps;
  return options;
}

struct Trained {
  std::vector<double> losses;
  WideDeepEvaluation test;
};

Trained Train(const FeatureData& data, const WideDeepOptions& options, const WideDeepTrainingOptions& steps,
              float learning_rate = 0.01f) {
  WideDeep model = *WideDeep::Make(data.schema(), options);
  const auto device = MakeCpuDevice(1);
  LocalWideDeepParameters parameters(model, RuleOf(RuleKind::kAdam, learning_rate));
  const auto losses = TrainWideDeepLocally(model, *device, parameters, data, steps);
  EXPECT_TRUE(losses.ok()) << losses.status();
  const auto test = EvaluateWideDeep(model, *device, parameters, data, data.test(), data.TrainScale());
  EXPECT_TRUE(test.ok()) << test.status();
  return {losses->loss_per_epoch, *test};
}

TEST(WideDeepTrainingTest, LearnsWhatTheExamplesHold) {
  const FeatureData data = ShopData(12000, 1);
  const Trained untrained = Train(data, Options(), Steps(1, 1), 0), trained = Train(data, Options(), Steps(6));
  // Log-odds of -1.5 and 1.5 by shop and hour, and smaller ones by the rest: knowing them all gives an AUC of 0.88.
  EXPECT_GT(trained.test.auc, 0.85);
  EXPECT_LT(trained.test.loss, 0.5);
  EXPECT_GT(trained.test.accuracy, 0.75);
  EXPECT_LT(untrained.test.auc, 0.7);
  ASSERT_EQ(trained.losses.size(), 6u);
  EXPECT_LT(trained.losses.back(), trained.losses.front());
}

TEST(WideDeepTrainingTest, EachPartLearnsAlone) {
  const FeatureData data = ShopData(12000, 1);
  WideDeepOptions wide_only = Options(), deep_only = Options();
  wide_only.hidden = {};
  wide_only.embedding_rule.learning_rate = 0;
  deep_only.wide_rule = RuleOf(RuleKind::kSgd, 0);
  EXPECT_GT(Train(data, wide_only, Steps(6)).test.auc, 0.84);  // the cross tells what no sum of weights does
  EXPECT_GT(Train(data, deep_only, Steps(6)).test.auc, 0.80);
}

TEST(WideDeepTrainingTest, TheSameSeedsGiveTheSameModel) {
  const FeatureData data = ShopData(3000, 1);
  const Trained one = Train(data, Options(), Steps(2)), again = Train(data, Options(), Steps(2));
  EXPECT_EQ(one.losses, again.losses);
  EXPECT_EQ(one.test.auc, again.test.auc);
  EXPECT_NE(one.test.loss, Train(data, Options(2), Steps(2)).test.loss);
}

TEST(WideDeepTrainingTest, MaxStepsEndsIt) {
  const FeatureData data = ShopData(3000, 1);
  const Trained one = Train(data, Options(), Steps(1, 3)), more = Train(data, Options(), Steps(9, 3));
  EXPECT_EQ(one.test.loss, more.test.loss);
}

TEST(WideDeepTrainingTest, ALossThatIsNoNumberEndsTheTraining) {
  const FeatureData data = ShopData(3000, 1);
  WideDeep model = *WideDeep::Make(data.schema(), Options());
  const auto device = MakeCpuDevice(1);
  LocalWideDeepParameters parameters(model, RuleOf(RuleKind::kSgd, 1e30f));
  const absl::Status status = TrainWideDeepLocally(model, *device, parameters, data, Steps(1)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(absl::StrContains(status.message(), "training has diverged")) << status;
}

// Evaluating must not make rows: a table that grew with every evaluation would fill a server.
TEST(WideDeepTrainingTest, EvaluationMakesNoRows) {
  const FeatureData data = ShopData(3000, 1);
  WideDeep model = *WideDeep::Make(data.schema(), Options());
  const auto device = MakeCpuDevice(1);
  LocalWideDeepParameters parameters(model, RuleOf(RuleKind::kAdam, 0.01f));
  ASSERT_TRUE(EvaluateWideDeep(model, *device, parameters, data, data.test(), data.TrainScale()).ok());
  for (size_t table = 0; table < model.tables().size(); ++table) EXPECT_EQ(parameters.table(table).rows(), 0u);
  ASSERT_TRUE(TrainWideDeepLocally(model, *device, parameters, data, Steps(1)).ok());
  EXPECT_EQ(parameters.table(1).rows(), 5u);   // shops
  EXPECT_EQ(parameters.table(2).rows(), 30u);  // users
}

TEST(LocalTableTest, ARowThatIsNotThereIsItsInitialValueAndAPushMakesIt) {
  LocalTable table({"t", 2, {InitKind::kUniform, -1, 1, 9}, RuleOf(RuleKind::kSgd, 0)});
  std::vector<float> before(4), again(4), after(4);
  table.Pull({5, 6}, before.data());
  table.Pull({5, 6}, again.data());
  EXPECT_EQ(before, again);
  EXPECT_NE(before[0], before[2]);
  EXPECT_EQ(table.rows(), 0u);
  table.Push({5}, std::vector<float>{1, -2}.data(), 0.5f);
  EXPECT_EQ(table.rows(), 1u);
  table.Pull({5, 6}, after.data());
  EXPECT_EQ(after, (std::vector<float>{before[0] - 0.5f, before[1] + 1, before[2], before[3]}));
}

TEST(LocalTableTest, AnAssignedRowIsThatRow) {
  LocalTable table({"t", 2, {InitKind::kZeros, 0, 0, 0}, RuleOf(RuleKind::kAdagrad, 0.1f)});
  table.Assign(3, {1.5f, -2});
  std::vector<float> row(2);
  table.Pull({3}, row.data());
  EXPECT_EQ(row, (std::vector<float>{1.5f, -2}));
}

}  // namespace
}  // namespace basin
