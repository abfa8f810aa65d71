#include "worker/train/local_training.h"

#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/match.h"
#include "common/base/random.h"
#include "common/device/cpu_device.h"
#include "worker/train/dense_update.h"

namespace basin {
namespace {

// Points of a square in bytes; the class is the quadrant, with a margin between classes: separable by lines. Or,
// `crossed`, two classes of opposite quadrants each: no line separates them, a hidden layer does.
Dataset Quadrants(size_t count, uint64_t seed, bool crossed = false) {
  std::vector<uint8_t> features, labels;
  for (size_t i = 0; i < count; ++i) {
    const bool right = RandomAt(seed, 4 * i) & 1, top = RandomAt(seed, 4 * i + 1) & 1;
    const auto place = [&](bool high, uint64_t draw) {
      return static_cast<uint8_t>((high ? 145 : 0) + RandomAt(seed, 4 * i + draw) % 110);
    };
    features.push_back(place(right, 2));
    features.push_back(place(top, 3));
    labels.push_back(static_cast<uint8_t>(crossed ? right != top : 2 * top + right));
  }
  return Dataset::FromBytes(std::move(features), std::move(labels));
}

std::unique_ptr<Program> MakeFor(const std::string& name, int64_t classes, uint64_t seed = 1) {
  ProgramOptions options;
  options.name = name;
  options.features = 2;
  options.classes = classes;
  options.hidden = {32};
  options.seed = seed;
  return *MakeProgram(options);
}

LocalOptions With(RuleKind kind, float learning_rate) {
  LocalOptions options;
  options.rule.kind = kind;
  options.rule.learning_rate = learning_rate;
  options.batch_size = 32;
  options.epochs = 30;
  return options;
}

TEST(LocalTrainingTest, SoftmaxLearnsSeparableClassesWithEveryRule) {
  const Dataset train = Quadrants(2000, 1), test = Quadrants(500, 2);
  const auto device = MakeCpuDevice(1);
  const std::pair<RuleKind, float> rules[] = {
      {RuleKind::kSgd, 0.5f}, {RuleKind::kMomentum, 0.1f}, {RuleKind::kAdagrad, 0.2f}, {RuleKind::kAdam, 0.02f}};
  for (const auto& [kind, learning_rate] : rules) {
    const auto program = MakeFor("softmax", 4);
    const auto result = TrainLocally(*program, *device, train, test, With(kind, learning_rate));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_GT(result->test_accuracy, 0.95) << Name(kind);
    EXPECT_EQ(result->steps, 30u * 63);
    ASSERT_EQ(result->loss_per_epoch.size(), 30u);
    EXPECT_LT(result->loss_per_epoch.back(), 0.6 * result->loss_per_epoch.front()) << Name(kind);
  }
}

TEST(LocalTrainingTest, MlpLearnsWhatNoLineSeparatesFromAnySeed) {
  const Dataset train = Quadrants(2000, 3, true), test = Quadrants(500, 4, true);
  const auto device = MakeCpuDevice(1);
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    LocalOptions options = With(RuleKind::kAdam, 0.02f);
    options.seed = seed;
    const auto mlp = TrainLocally(*MakeFor("mlp", 2, seed), *device, train, test, options);
    ASSERT_TRUE(mlp.ok()) << mlp.status();
    EXPECT_GT(mlp->test_accuracy, 0.95) << seed;
  }
  const auto softmax = TrainLocally(*MakeFor("softmax", 2), *device, train, test, With(RuleKind::kAdam, 0.01f));
  ASSERT_TRUE(softmax.ok()) << softmax.status();
  EXPECT_LT(softmax->test_accuracy, 0.8);
}

TEST(LocalTrainingTest, TheSameSeedGivesTheSameBits) {
  const Dataset train = Quadrants(500, 1), test = Quadrants(100, 2);
  const auto device = MakeCpuDevice(1);
  LocalOptions options = With(RuleKind::kAdam, 0.01f);
  options.epochs = 2;
  const auto one = TrainLocally(*MakeFor("mlp", 4), *device, train, test, options);
  const auto two = TrainLocally(*MakeFor("mlp", 4), *device, train, test, options);
  options.seed = 2;
  const auto other = TrainLocally(*MakeFor("mlp", 4), *device, train, test, options);
  ASSERT_TRUE(one.ok() && two.ok() && other.ok());
  EXPECT_EQ(one->parameters, two->parameters);
  EXPECT_NE(one->parameters, other->parameters);
}

// One step by hand: examples of the same feature 1, so each class has one probability p for all, and the gradient of
// its bias is p - (its share of the labels); that of its one weight is the same.
TEST(LocalTrainingTest, OneStepIsTheRuleOnTheMeanGradient) {
  const Dataset train = Dataset::FromBytes({255, 255, 255, 255}, {0, 1, 1, 1});
  const auto device = MakeCpuDevice(1);
  ProgramOptions options;
  options.name = "softmax";
  options.features = 1;
  options.classes = 2;
  LocalOptions local = With(RuleKind::kSgd, 0.5f);
  local.epochs = 1;
  const auto result = TrainLocally(**MakeProgram(options), *device, train, train, local);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->steps, 1u);
  const std::vector<std::vector<float>> initial = InitialParameters((*MakeProgram(options))->variables());
  const double difference = double{initial[0][1]} - initial[0][0];  // biases are zero at first
  const double p = 1 / (1 + std::exp(difference));
  EXPECT_NEAR(result->loss_per_epoch[0], -0.25 * std::log(p) - 0.75 * std::log(1 - p), 1e-6);
  const double step = 0.5 * (p - 0.25);
  EXPECT_NEAR(result->parameters[1][0], -step, 1e-6);
  EXPECT_NEAR(result->parameters[1][1], step, 1e-6);
  EXPECT_NEAR(result->parameters[0][0], initial[0][0] - step, 1e-6);
  EXPECT_NEAR(result->parameters[0][1], initial[0][1] + step, 1e-6);
}

TEST(LocalTrainingTest, ASchedulesRateFallsToZero) {
  for (const Schedule schedule : {Schedule::kLinear, Schedule::kCosine}) {
    EXPECT_FLOAT_EQ(RateAt(schedule, 0.3f, 0), 0.3f);
    EXPECT_FLOAT_EQ(RateAt(schedule, 0.3f, 0.5), 0.15f);
    EXPECT_NEAR(RateAt(schedule, 0.3f, 1), 0, 1e-7);
  }
  EXPECT_EQ(RateAt(Schedule::kConstant, 0.3f, 1), 0.3f);
}

TEST(LocalTrainingTest, DivergenceIsToldWithItsStep) {
  const Dataset data = Quadrants(200, 1);
  const auto device = MakeCpuDevice(1);
  const absl::Status status =
      TrainLocally(*MakeFor("mlp", 4), *device, data, data, With(RuleKind::kSgd, 1e30f)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(absl::StrContains(status.message(), "at step")) << status;
}

TEST(LocalTrainingTest, WrongOptionsAreRefused) {
  const Dataset data = Quadrants(20, 1);
  const auto device = MakeCpuDevice(1);
  LocalOptions options = With(RuleKind::kSgd, -1);
  EXPECT_EQ(TrainLocally(*MakeFor("mlp", 4), *device, data, data, options).status().code(),
            absl::StatusCode::kInvalidArgument);
  options = With(RuleKind::kSgd, 1);
  options.batch_size = 0;
  EXPECT_EQ(TrainLocally(*MakeFor("mlp", 4), *device, data, data, options).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(EvaluateAllTest, IsTheMeanOverAllExamplesWhateverTheBatches) {
  const Dataset data = Quadrants(2500, 7);  // three batches, the last one smaller
  const auto device = MakeCpuDevice(1);
  const auto program = MakeFor("softmax", 4);
  std::vector<std::vector<float>> parameters = {{1, 2, 3, 4, -1, 0, 1, 2}, {0, 1, 0, -1}};
  const auto all = EvaluateAll(*program, *device, data, parameters);
  ASSERT_TRUE(all.ok()) << all.status();
  BatchBuffer buffer;
  double loss = 0;
  uint64_t correct = 0;
  for (uint32_t i = 0; i < data.count(); ++i) {
    BatchResult one;
    const std::vector<absl::Span<const float>> spans(parameters.begin(), parameters.end());
    ASSERT_TRUE(program->Evaluate(*device, buffer.Gather(data, {i}), spans, &one).ok());
    loss += one.loss;
    correct += one.correct;
  }
  EXPECT_NEAR(all->loss, loss / 2500, 1e-6);
  EXPECT_EQ(all->correct, correct);
}

}  // namespace
}  // namespace basin
