#include "worker/train/program.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/match.h"
#include "common/base/random.h"
#include "common/device/cpu_device.h"
#include "tests/train/counting_device.h"
#include "tests/train/devices_here.h"

namespace basin {
namespace {

using Values = std::vector<std::vector<float>>;

// A small batch, on numbers that are exact in few bits.
struct Examples {
  Examples(size_t count, size_t width, uint32_t classes) : width(width), features(count * width), labels(count) {
    for (size_t i = 0; i < features.size(); ++i) features[i] = static_cast<float>(std::round(16 * UnitAt(1, i))) / 16;
    for (size_t i = 0; i < count; ++i) labels[i] = static_cast<uint8_t>(i % classes);
  }
  Batch batch() const {
    return {static_cast<int64_t>(labels.size()), static_cast<int64_t>(width), features.data(), labels.data()};
  }

  size_t width;
  std::vector<float> features;
  std::vector<uint8_t> labels;
};

ProgramOptions Options(const std::string& name, std::vector<int64_t> hidden = {}) {
  ProgramOptions options;
  options.name = name;
  options.features = 6;
  options.classes = 3;
  options.hidden = std::move(hidden);
  options.seed = 5;
  return options;
}

Values RandomParameters(const Program& program) {
  Values values;
  for (size_t v = 0; v < program.variables().size(); ++v) {
    values.emplace_back(program.variables()[v].elements());
    for (size_t i = 0; i < values[v].size(); ++i) values[v][i] = static_cast<float>(UnitAt(100 + v, i) - 0.5);
  }
  return values;
}

std::vector<absl::Span<const float>> Read(const Values& values) { return {values.begin(), values.end()}; }
std::vector<absl::Span<float>> Write(Values& values) {
  std::vector<absl::Span<float>> spans;
  for (std::vector<float>& one : values) spans.push_back(absl::MakeSpan(one));
  return spans;
}

// The loss of a dense network in double precision, written out plainly: what the numerical gradient is taken of.
double PlainLoss(const Program& program, const Batch& batch, const std::vector<std::vector<double>>& parameters,
                 size_t* switched_off) {
  const size_t layers = program.variables().size() / 2;
  double loss = 0;
  for (int64_t e = 0; e < batch.rows; ++e) {
    std::vector<double> x(batch.features + e * batch.width, batch.features + (e + 1) * batch.width);
    for (size_t layer = 0; layer < layers; ++layer) {
      const std::vector<double>& kernel = parameters[2 * layer];
      std::vector<double> y = parameters[2 * layer + 1];
      for (size_t o = 0; o < y.size(); ++o) {
        for (size_t i = 0; i < x.size(); ++i) y[o] += x[i] * kernel[i * y.size() + o];
        if (layer + 1 < layers && y[o] <= 0) {
          y[o] = 0;
          ++*switched_off;
        }
      }
      x = y;
    }
    double total = 0;
    for (const double logit : x) total += std::exp(logit);
    loss += std::log(total) - x[batch.labels[e]];
  }
  return loss / static_cast<double>(batch.rows);
}

struct Case {
  std::string name;
  ProgramOptions options;
  std::string device;
};
void PrintTo(const Case& item, std::ostream* out) { *out << item.name; }

std::vector<Case> CasesHere() {
  const std::vector<Case> programs = {{"softmax", Options("softmax"), ""},
                                      {"mlp_one_layer", Options("mlp", {8}), ""},
                                      {"mlp_two_layers", Options("mlp", {8, 5}), ""},
                                      {"mlp_three_layers", Options("mlp", {8, 5, 9}), ""},
                                      {"mlp_without_hidden_layers", Options("mlp"), ""}};
  std::vector<Case> cases;
  for (const std::string& device : DevicesHere()) {
    for (Case one : programs) {
      one.name += "_on_" + InTestName(device);
      one.device = device;
      cases.push_back(one);
    }
  }
  return cases;
}

class GradientTest : public testing::TestWithParam<Case> {};

// Central differences of the plain loss in double precision, h = 1e-5: their own error is some 1e-10; the program
// computes in float, so gradients of up to 1 made of sums of some hundred products agree to 1e-6. Where a step of h
// crosses a ReLU's bend, both slopes are right, and the element is left out; few may be.
TEST_P(GradientTest, IsTheSlopeOfTheLoss) {
  auto made = MakeProgram(GetParam().options);
  ASSERT_TRUE(made.ok()) << made.status();
  Program& program = **made;
  const auto device = OpenHere(GetParam().device);
  const Examples examples(11, 6, 3);
  const Values parameters = RandomParameters(program);
  Values gradients = parameters;
  BatchResult result, evaluated;
  ASSERT_TRUE(program.Gradients(*device, examples.batch(), Read(parameters), Write(gradients), &result).ok());
  ASSERT_TRUE(program.Evaluate(*device, examples.batch(), Read(parameters), &evaluated).ok());
  EXPECT_EQ(result.loss, evaluated.loss);
  EXPECT_EQ(result.correct, evaluated.correct);

  std::vector<std::vector<double>> exact;
  for (const auto& values : parameters) exact.emplace_back(values.begin(), values.end());
  size_t off = 0, checked = 0, left_out = 0;
  EXPECT_NEAR(result.loss, PlainLoss(program, examples.batch(), exact, &off), 1e-6);
  for (size_t v = 0; v < exact.size(); ++v) {
    for (size_t i = 0; i < exact[v].size(); ++i) {
      const double h = 1e-5, value = exact[v][i];
      size_t off_up = 0, off_down = 0;
      exact[v][i] = value + h;
      const double up = PlainLoss(program, examples.batch(), exact, &off_up);
      exact[v][i] = value - h;
      const double down = PlainLoss(program, examples.batch(), exact, &off_down);
      exact[v][i] = value;
      if (off_up != off || off_down != off) {
        ++left_out;
        continue;
      }
      ++checked;
      EXPECT_NEAR(gradients[v][i], (up - down) / (2 * h), 1e-6) << program.variables()[v].name << "[" << i << "]";
    }
  }
  EXPECT_LT(left_out * 20, checked);
}

// What the last gradient is made of is made first: a gradient is told when it stands in the host's memory.
TEST_P(GradientTest, IsToldOnceItIsThereFromTheLastVariableToTheFirst) {
  auto program = MakeProgram(GetParam().options);
  ASSERT_TRUE(program.ok()) << program.status();
  const auto device = OpenHere(GetParam().device);
  const Examples examples(11, 6, 3);
  const Values parameters = RandomParameters(**program);
  Values gradients = parameters, expected = parameters, when_told = parameters;
  BatchResult result, loss_when_told;
  ASSERT_TRUE((*program)->Gradients(*device, examples.batch(), Read(parameters), Write(expected), &result).ok());
  const double loss = result.loss;
  result = {};
  std::vector<size_t> told;
  const absl::Status status = (*program)->Gradients(*device, examples.batch(), Read(parameters), Write(gradients),
                                                    &result, [&](size_t variable) {
                                                      told.push_back(variable);
                                                      when_told[variable] = gradients[variable];
                                                      loss_when_told = result;
                                                    });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(when_told, expected);
  EXPECT_EQ(loss_when_told.loss, loss);
  EXPECT_TRUE(std::is_sorted(told.rbegin(), told.rend()));
  EXPECT_EQ(told.size(), parameters.size());
}

// What crosses to a device and back in a step, and how often the CPU waits: with the values in host memory the
// parameters go in and each gradient comes out and is waited for; with the values in the device's, nothing but the
// batch goes in, and the loss alone is waited for, whoever moves the values.
TEST_P(GradientTest, OfValuesInTheDevicesMemoryIsTheSameAndTheBatchAloneCrosses) {
  auto program = MakeProgram(GetParam().options);
  ASSERT_TRUE(program.ok()) << program.status();
  CountingDevice device(OpenHere(GetParam().device));
  const Examples examples(11, 6, 3);
  const size_t batch_bytes = 11 * 6 * sizeof(float) + 11;
  const Values parameters = RandomParameters(**program);
  Values expected = parameters, found = parameters;
  BatchResult result, expected_result;
  ASSERT_TRUE(
      (*program)->Gradients(device, examples.batch(), Read(parameters), Write(expected), &expected_result).ok());
  size_t values_bytes = 0;
  for (const std::vector<float>& values : parameters) values_bytes += values.size() * sizeof(float);
  const CountingDevice::Counts through_host = device.Take();
  if (!device.is_host()) {
    EXPECT_EQ(through_host.bytes_in, batch_bytes + values_bytes);
    EXPECT_EQ(through_host.bytes_out, values_bytes);
    EXPECT_EQ(through_host.waits, static_cast<int>(parameters.size()) + 1);
  }

  std::vector<DeviceMemory> memory;
  std::vector<absl::Span<const float>> read;
  std::vector<absl::Span<float>> write;
  for (const std::vector<float>& values : parameters) {
    const auto place = [&] {
      auto made = device.Allocate(values.size() * sizeof(float));
      BASIN_CHECK(made.ok());
      memory.push_back(*std::move(made));
      return static_cast<float*>(memory.back().data());
    };
    float* const there = place();
    device.CopyIn(there, values.data(), values.size() * sizeof(float));
    read.emplace_back(there, values.size());
    write.emplace_back(place(), values.size());
  }
  ASSERT_TRUE(device.Finish().ok());
  device.Take();
  std::vector<size_t> told;
  const absl::Status status =
      (*program)->Gradients(device, examples.batch(), MemoryOf::kDevice, read, write, &result, [&](size_t variable) {
        told.push_back(variable);
        // Only behind the kernel that was just asked for.
        device.CopyOut(found[variable].data(), write[variable].data(), found[variable].size() * sizeof(float));
      });
  ASSERT_TRUE(status.ok()) << status;
  const CountingDevice::Counts there = device.Take();
  EXPECT_EQ(there.bytes_in, device.is_host() ? 0 : batch_bytes);
  EXPECT_EQ(there.bytes_out, values_bytes);  // by this test
  EXPECT_EQ(there.waits, 1);
  EXPECT_EQ(result.loss, expected_result.loss);
  EXPECT_EQ(result.correct, expected_result.correct);
  EXPECT_TRUE(std::is_sorted(told.rbegin(), told.rend()));
  EXPECT_EQ(told.size(), parameters.size());
  ASSERT_TRUE(device.Finish().ok());
  EXPECT_EQ(found, expected);
}

INSTANTIATE_TEST_SUITE_P(Programs, GradientTest, testing::ValuesIn(CasesHere()),
                         [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

std::vector<std::string> Names(const Program& program) {
  std::vector<std::string> names;
  for (const VariableDecl& variable : program.variables()) names.push_back(variable.name);
  return names;
}

TEST(ProgramTest, SoftmaxHasOneKernelAndOneBias) {
  const auto program = MakeProgram(Options("softmax", {8}));
  ASSERT_TRUE(program.ok());
  EXPECT_EQ(Names(**program), (std::vector<std::string>{"kernel", "bias"}));
  EXPECT_EQ((*program)->variables()[0].shape, (std::vector<int64_t>{6, 3}));
  EXPECT_EQ((*program)->variables()[1].init.kind, InitKind::kZeros);
}

TEST(ProgramTest, MlpNamesItsLayersAndGivesEachKernelASeed) {
  const auto program = MakeProgram(Options("mlp", {8, 5}));
  ASSERT_TRUE(program.ok());
  const auto& variables = (*program)->variables();
  EXPECT_EQ(Names(**program), (std::vector<std::string>{"hidden0/kernel", "hidden0/bias", "hidden1/kernel",
                                                        "hidden1/bias", "logits/kernel", "logits/bias"}));
  EXPECT_EQ(variables[2].shape, (std::vector<int64_t>{8, 5}));
  EXPECT_EQ(variables[5].shape, (std::vector<int64_t>{3}));
  EXPECT_EQ(variables[2].elements(), 40u);
  EXPECT_EQ(variables[0].init.kind, InitKind::kGlorotUniform);
  EXPECT_EQ(variables[1].init.kind, InitKind::kZeros);
  EXPECT_NE(variables[0].init.seed, variables[2].init.seed);
  ProgramOptions other = Options("mlp", {8, 5});
  other.seed = 6;
  EXPECT_NE(variables[0].init.seed, (*MakeProgram(other))->variables()[0].init.seed);
}

TEST(ProgramTest, NoKernelOfOneSeedIsAnothers) {
  std::set<uint64_t> seeds;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    ProgramOptions options = Options("mlp", {8, 5});
    options.seed = seed;
    const auto program = *MakeProgram(options);
    for (size_t v = 0; v < program->variables().size(); v += 2) seeds.insert(program->variables()[v].init.seed);
  }
  EXPECT_EQ(seeds.size(), 60u);
}

TEST(ProgramTest, WrongOptionsAreNamed) {
  const auto message = [](const ProgramOptions& options) {
    const absl::Status status = MakeProgram(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_TRUE(absl::StrContains(message(Options("sofmax")), "did you mean softmax?"));
  ProgramOptions options = Options("mlp");
  options.features = 0;
  EXPECT_TRUE(absl::StrContains(message(options), "0 features"));
  options = Options("softmax");
  options.classes = 0;
  EXPECT_TRUE(absl::StrContains(message(options), "0 classes"));
  EXPECT_TRUE(absl::StrContains(message(Options("mlp", {8, 0})), "width 0"));
}

TEST(ProgramTest, InputThatDoesNotFitIsRefused) {
  const auto program = *MakeProgram(Options("mlp", {8}));
  const auto device = MakeCpuDevice(1);
  const Values parameters = RandomParameters(*program);
  Values gradients = parameters;
  const auto message = [&](const Examples& examples) {
    BatchResult result;
    const absl::Status status =
        program->Gradients(*device, examples.batch(), Read(parameters), Write(gradients), &result);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_TRUE(absl::StrContains(message(Examples(0, 6, 3)), "empty"));
  EXPECT_TRUE(absl::StrContains(message(Examples(4, 7, 3)), "examples of 7 numbers, the model takes 6"));
  EXPECT_TRUE(absl::StrContains(message(Examples(4, 6, 4)), "label 3 of row 3: expected 0 to 2"));

  const Examples good(4, 6, 3);
  BatchResult result;
  EXPECT_TRUE(
      program->Gradients(*device, good.batch(), Read(parameters), Write(gradients), &result).ok());  // and still works
}

TEST(ProgramTest, BatchesMayGrowAndShrink) {
  const auto program = *MakeProgram(Options("mlp", {8}));
  const auto device = MakeCpuDevice(1);
  const Values parameters = RandomParameters(*program);
  std::vector<double> losses;
  for (const size_t count : {3, 30, 3}) {
    BatchResult result;
    const Examples examples(count, 6, 3);
    ASSERT_TRUE(program->Evaluate(*device, examples.batch(), Read(parameters), &result).ok());
    losses.push_back(result.loss);
  }
  EXPECT_EQ(losses[0], losses[2]);
}

TEST(ProgramTest, EachGradientIsWholeWhenItIsSaidToBe) {
  const auto device = MakeCpuDevice(1);
  const Examples examples(7, 6, 3);
  const auto program = *MakeProgram(Options("mlp", {5, 4}));
  const Values parameters = RandomParameters(*program);
  Values gradients = parameters, whole = parameters;
  BatchResult result;
  ASSERT_TRUE(program->Gradients(*device, examples.batch(), Read(parameters), Write(whole), &result).ok());
  std::vector<size_t> order;
  ASSERT_TRUE(program
                  ->Gradients(*device, examples.batch(), Read(parameters), Write(gradients), &result,
                              [&](size_t variable) {
                                EXPECT_EQ(gradients[variable], whole[variable]) << variable;
                                EXPECT_GT(result.loss, 0);
                                order.push_back(variable);
                              })
                  .ok());
  EXPECT_EQ(order, (std::vector<size_t>{5, 4, 3, 2, 1, 0}));
}

}  // namespace
}  // namespace basin
