#include "worker/train/all_reduce_training.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "common/device/cpu_device.h"
#include "tests/train/thread_ranks.h"
#include "worker/train/dense_update.h"
#include "worker/train/local_training.h"

namespace basin {
namespace {

using Results = std::vector<absl::StatusOr<AllReduceResult>>;

Dataset Points(size_t count, uint64_t seed) {
  std::vector<uint8_t> features, labels;
  for (size_t i = 0; i < count; ++i) {
    const bool right = RandomAt(seed, 4 * i) & 1, top = RandomAt(seed, 4 * i + 1) & 1;
    const auto place = [&](bool high, uint64_t draw) {
      return static_cast<uint8_t>((high ? 145 : 0) + RandomAt(seed, 4 * i + draw) % 110);
    };
    features.push_back(place(right, 2));
    features.push_back(place(top, 3));
    labels.push_back(static_cast<uint8_t>(2 * top + right));
  }
  return Dataset::FromBytes(std::move(features), std::move(labels));
}

std::unique_ptr<Program> MakeMlp(uint64_t seed = 1) {
  ProgramOptions options;
  options.features = 2;
  options.classes = 4;
  options.hidden = {24, 8};
  options.seed = seed;
  return *MakeProgram(options);
}

AllReduceOptions With(RuleKind kind, float learning_rate, uint64_t batch_size, uint32_t epochs) {
  AllReduceOptions options;
  options.rule.kind = kind;
  options.rule.learning_rate = learning_rate;
  options.schedule = Schedule::kLinear;
  options.batch_size = batch_size;
  options.epochs = epochs;
  return options;
}

absl::StatusOr<AllReduceResult> TrainRank(AllReduceGroup& group, Program& program, const Dataset& data,
                                          const AllReduceOptions& options, Timeline* timeline = nullptr) {
  const auto device = MakeCpuDevice(1);
  return TrainByAllReduce(
      program, *device, data, options, group, timeline, [](uint64_t, const BatchResult&, uint64_t) {},
      [](uint32_t, uint64_t, double) {});
}

Results TrainIn(ThreadRanks& ranks, const Dataset& data, const AllReduceOptions& options) {
  return ranks.Run<absl::StatusOr<AllReduceResult>>([&](AllReduceGroup& group) {
    const auto program = MakeMlp();
    return TrainRank(group, *program, data, options);
  });
}

LocalResult TrainAlone(const Dataset& data, const AllReduceOptions& options, uint64_t batch_size) {
  LocalOptions local;
  local.rule = options.rule;
  local.schedule = options.schedule;
  local.batch_size = batch_size;
  local.epochs = options.epochs;
  local.seed = options.seed;
  const auto device = MakeCpuDevice(1);
  return *TrainLocally(*MakeMlp(), *device, data, data, local);
}

void ExpectNear(const std::vector<std::vector<float>>& found, const std::vector<std::vector<float>>& expected,
                double tolerance, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(found[i].size(), expected[i].size());
    for (size_t j = 0; j < found[i].size(); ++j) {
      ASSERT_NEAR(found[i][j], expected[i][j], tolerance) << what << ", variable " << i << ", element " << j;
    }
  }
}

TEST(AllReduceTrainingTest, RanksLearnWhatOneProcessLearnsFromTheirBatchesTogether) {
  // 502 examples: the last step of an epoch has 22 of them for batches of 96, and 6 for 4 ranks of batches of 8.
  // (Points on which no ReLU switches within the rounding: what one process learns then differs by more.)
  const Dataset data = Points(502, 3);
  const std::pair<RuleKind, float> rules[] = {
      {RuleKind::kSgd, 0.3f}, {RuleKind::kMomentum, 0.05f}, {RuleKind::kAdagrad, 0.1f}, {RuleKind::kAdam, 0.01f}};
  for (const auto& [kind, rate] : rules) {
    for (const uint32_t size : {1, 2, 3, 4}) {
      for (const uint64_t fusion : {0, 256, 1 << 20}) {
        AllReduceOptions options = With(kind, rate, 8, 3);
        options.fusion_bytes = fusion;
        const LocalResult alone = TrainAlone(data, options, 8 * size);
        ThreadRanks ranks(size);
        const Results results = TrainIn(ranks, data, options);
        const std::string what = absl::StrCat(Name(kind), ", ", size, " ranks, buffers of ", fusion);
        ASSERT_TRUE(results[0].ok()) << results[0].status();
        EXPECT_EQ(results[0]->steps, alone.steps) << what;
        ExpectNear(results[0]->parameters, alone.parameters, 2e-6, what);
        ASSERT_EQ(results[0]->loss_per_epoch.size(), alone.loss_per_epoch.size());
        EXPECT_NEAR(results[0]->loss_per_epoch.back(), alone.loss_per_epoch.back(), 1e-5) << what;
        for (const auto& other : results) EXPECT_EQ(other->parameters, results[0]->parameters) << what;
      }
    }
  }
}

TEST(AllReduceTrainingTest, ARankWithoutExamplesTakesPart) {
  const Dataset data = Points(18, 2);  // the second step has 2 examples for 4 ranks
  const AllReduceOptions options = With(RuleKind::kSgd, 0.3f, 4, 2);
  ThreadRanks ranks(4);
  const Results results = TrainIn(ranks, data, options);
  ASSERT_TRUE(results[0].ok()) << results[0].status();
  EXPECT_EQ(results[0]->steps, 4u);
  ExpectNear(results[0]->parameters, TrainAlone(data, options, 16).parameters, 1e-5, "2 examples for 4 ranks");
}

TEST(AllReduceTrainingTest, MaxStepsEndsAllRanks) {
  const Dataset data = Points(100, 1);
  AllReduceOptions options = With(RuleKind::kSgd, 0.1f, 8, 5);
  options.max_steps = 9;
  ThreadRanks ranks(2);
  for (const auto& result : TrainIn(ranks, data, options)) {
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->steps, 9u);
  }
}

TEST(AllReduceTrainingTest, FusionDecidesHowManySumsAStepTakes) {
  const Dataset data = Points(64, 1);
  AllReduceOptions options = With(RuleKind::kSgd, 0.1f, 32, 1);  // one step of two ranks
  ThreadRanks apart(2), together(2);
  options.fusion_bytes = 0;
  ASSERT_TRUE(TrainIn(apart, data, options)[0].ok());
  EXPECT_EQ(apart.sums(), 6u);  // kernel and bias of three layers
  options.fusion_bytes = 1 << 20;
  ASSERT_TRUE(TrainIn(together, data, options)[0].ok());
  EXPECT_EQ(together.sums(), 1u);
}

TEST(AllReduceTrainingTest, AllStartFromRankZerosModel) {
  const Dataset data = Points(64, 1);
  const std::vector<std::vector<float>> start = InitialParameters(MakeMlp(77)->variables());
  ThreadRanks ranks(3);
  const Results results = ranks.Run<absl::StatusOr<AllReduceResult>>([&](AllReduceGroup& group) {
    AllReduceOptions options = With(RuleKind::kSgd, 0, 16, 1);  // a rate of 0: they stay what they were
    options.has_initial = true;
    if (group.rank() == 0) options.initial = start;
    return TrainRank(group, *MakeMlp(), data, options);
  });
  for (const auto& result : results) {
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->parameters, start);
  }
}

TEST(AllReduceTrainingTest, RanksThatDoNotFitTogetherAreToldWhere) {
  const Dataset data = Points(64, 1), other = Points(64, 9);
  const auto first = [&](const std::function<void(uint32_t rank, AllReduceOptions&, const Dataset**)>& change) {
    ThreadRanks ranks(3);
    const Results results = ranks.Run<absl::StatusOr<AllReduceResult>>([&](AllReduceGroup& group) {
      AllReduceOptions options = With(RuleKind::kSgd, 0.1f, 16, 1);
      const Dataset* learns = &data;
      change(group.rank(), options, &learns);
      return TrainRank(group, *MakeMlp(), *learns, options);
    });
    for (const auto& result : results) {
      EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(result.status().message(), results[0].status().message());
    }
    return std::string(results[0].status().message());
  };
  EXPECT_EQ(first([](uint32_t rank, AllReduceOptions& options, const Dataset**) {
              if (rank == 2) options.batch_size = 8;
            }),
            "the settings of rank 2: batches of 8 examples; rank 0 has batches of 16 examples");
  const std::string of_data = first([&](uint32_t rank, AllReduceOptions&, const Dataset** learns) {
    if (rank == 1) *learns = &other;
  });
  EXPECT_TRUE(absl::StrContains(of_data, "of rank 1: 64 training examples, checksum")) << of_data;
}

// Computes as the program, but one rank's gradient of one variable at one step.
class Spoiled final : public Program {
 public:
  Spoiled(std::unique_ptr<Program> program, int step, float loss, float gradient)
      : program_(std::move(program)), step_(step), loss_(loss), gradient_(gradient) {}
  const std::vector<VariableDecl>& variables() const override { return program_->variables(); }
  absl::Status Evaluate(Device& device, const Batch& batch, ParameterSpans parameters, BatchResult* result) override {
    return program_->Evaluate(device, batch, parameters, result);
  }
  absl::Status Gradients(Device& device, const Batch& batch, MemoryOf values, ParameterSpans parameters,
                         GradientSpans gradients, BatchResult* result, GradientReady ready) override {
    const bool now = ++steps_ == step_;
    const auto spoil = [&](size_t variable) {
      if (now && variable == 2) gradients[variable][3] += gradient_;
      ready(variable);
    };
    const absl::Status status = program_->Gradients(device, batch, values, parameters, gradients, result, spoil);
    if (now) result->loss += loss_;
    return status;
  }

 private:
  const std::unique_ptr<Program> program_;
  const int step_;
  const float loss_, gradient_;
  int steps_ = 0;
};

Results TrainSpoiled(float loss, float gradient) {
  const Dataset data = Points(300, 1);
  AllReduceOptions options = With(RuleKind::kSgd, 0.1f, 16, 1);
  ThreadRanks ranks(3);
  return ranks.Run<absl::StatusOr<AllReduceResult>>([&](AllReduceGroup& group) {
    std::unique_ptr<Program> program = MakeMlp();
    if (group.rank() == 1) program = std::make_unique<Spoiled>(std::move(program), 4, loss, gradient);
    return TrainRank(group, *program, data, options);
  });
}

TEST(AllReduceTrainingTest, AGradientThatIsNoNumberEndsAllRanksAndNamesTheOne) {
  const Results results = TrainSpoiled(0, std::numeric_limits<float>::quiet_NaN());
  for (const auto& result : results) EXPECT_EQ(result.status().code(), absl::StatusCode::kAborted) << result.status();
  EXPECT_TRUE(absl::StrContains(results[1].status().message(),
                                "the gradient of hidden1/kernel is no number in rank 1 of 3 at step 4"))
      << results[1].status();
  EXPECT_TRUE(absl::StrContains(results[0].status().message(),
                                "rank 1 computed a loss or a gradient that is no number at step 4"))
      << results[0].status();
}

TEST(AllReduceTrainingTest, ALossThatIsNoNumberEndsAllRanksAndNamesTheOne) {
  const Results results = TrainSpoiled(std::numeric_limits<float>::infinity(), 0);
  for (const auto& result : results) EXPECT_EQ(result.status().code(), absl::StatusCode::kAborted) << result.status();
  EXPECT_TRUE(absl::StrContains(results[1].status().message(), "the loss is inf at step 4")) << results[1].status();
  EXPECT_TRUE(absl::StrContains(results[2].status().message(), "rank 1 computed")) << results[2].status();
}

TEST(AllReduceTrainingTest, GradientsThatAreNumbersButWhoseSumIsNoneAreTold) {
  const Dataset data = Points(64, 1);
  ThreadRanks ranks(2, [](size_t sum, uint32_t, std::vector<float>& values) {
    if (sum == 1) values[0] = std::numeric_limits<float>::infinity();
  });
  for (const auto& result : TrainIn(ranks, data, With(RuleKind::kSgd, 0.1f, 8, 1))) {
    EXPECT_EQ(result.status().code(), absl::StatusCode::kAborted);
    EXPECT_TRUE(absl::StrContains(result.status().message(), "the sum of the ranks' gradients of")) << result.status();
  }
}

TEST(AllReduceTrainingTest, SumsThatDifferBetweenRanksAreFoundAtTheEndOfTheEpoch) {
  const Dataset data = Points(64, 1);
  ThreadRanks ranks(3, [](size_t sum, uint32_t rank, std::vector<float>& values) {
    if (sum == 5 && rank == 2) values[0] += 1e-3f;
  });
  for (const auto& result : TrainIn(ranks, data, With(RuleKind::kSgd, 0.1f, 8, 1))) {
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInternal);
    EXPECT_TRUE(absl::StrContains(result.status().message(), "of rank 2")) << result.status();
  }
}

TEST(AllReduceTrainingTest, ARankThatLeavesEndsTheOthers) {
  const Dataset data = Points(300, 1);
  ThreadRanks ranks(3);
  const Results results = ranks.Run<absl::StatusOr<AllReduceResult>>([&](AllReduceGroup& group) {
    AllReduceOptions options = With(RuleKind::kSgd, 0.1f, 8, 1);
    if (group.rank() != 1) return TrainRank(group, *MakeMlp(), data, options);
    // It fails in the middle of a step, with sums under way.
    class Fails final : public Program {
     public:
      const std::vector<VariableDecl>& variables() const override { return program_->variables(); }
      absl::Status Evaluate(Device&, const Batch&, ParameterSpans, BatchResult*) override { return absl::OkStatus(); }
      absl::Status Gradients(Device&, const Batch&, MemoryOf, ParameterSpans, GradientSpans, BatchResult*,
                             GradientReady ready) override {
        ready(5);
        return absl::DataLossError("it broke");
      }

     private:
      const std::unique_ptr<Program> program_ = MakeMlp();
    };
    Fails program;
    return TrainRank(group, program, data, options);
  });
  EXPECT_EQ(results[0].status().code(), absl::StatusCode::kUnavailable) << results[0].status();
  EXPECT_EQ(results[1].status().code(), absl::StatusCode::kDataLoss) << results[1].status();
  EXPECT_EQ(results[2].status().code(), absl::StatusCode::kUnavailable) << results[2].status();
}

TEST(AllReduceTrainingTest, TheTimelineShowsEachBufferOfEachStep) {
  const Dataset data = Points(64, 1);
  std::vector<std::string> lines(2);
  ThreadRanks ranks(2);
  const Results results = ranks.Run<absl::StatusOr<AllReduceResult>>([&](AllReduceGroup& group) {
    Timeline timeline(group.rank());
    AllReduceOptions options = With(RuleKind::kSgd, 0.1f, 8, 1);  // 4 steps
    const auto result = TrainRank(group, *MakeMlp(), data, options, &timeline);
    lines[group.rank()] = timeline.EventLines("rank");
    return result;
  });
  ASSERT_TRUE(results[0].ok()) << results[0].status();
  const auto times = [&](absl::string_view word) {
    size_t count = 0;
    for (size_t at = lines[1].find(std::string(word)); at != std::string::npos;
         at = lines[1].find(std::string(word), at + 1)) {
      ++count;
    }
    return count;
  };
  EXPECT_EQ(times(R"("name": "all-reduce")"), 4u * 6);
  EXPECT_EQ(times(R"("name": "compute")"), 4u);
  EXPECT_EQ(times(R"("name": "buffer 5: hidden0/kernel")"), 1u);
}

}  // namespace
}  // namespace basin
