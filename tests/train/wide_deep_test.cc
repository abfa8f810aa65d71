#include "worker/train/wide_deep.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "absl/strings/match.h"
#include "common/base/random.h"
#include "tests/train/counting_device.h"
#include "tests/train/devices_here.h"
#include "tests/train/wide_deep_examples.h"

namespace basin {
namespace {

WideDeepOptions WideDeepWith(std::vector<int64_t> hidden, uint64_t seed = 5) {
  WideDeepOptions options;
  options.hidden = std::move(hidden);
  options.embedding_dim = 3;
  options.seed = seed;
  return options;
}

// Parameters of a batch, as double: dense variables, then rows.
struct Exact {
  std::vector<std::vector<double>> dense, rows;
};

// The loss in double precision, written out plainly: what the numerical gradient is taken of.
double PlainLoss(const WideDeep& model, const FeatureBatch& batch, const Exact& exact, size_t* switched_off) {
  const size_t numbers = batch.numeric.size() / static_cast<size_t>(batch.rows), features = 4;
  double loss = 0;
  for (size_t row = 0; row < static_cast<size_t>(batch.rows); ++row) {
    const std::vector<double> numeric(batch.numeric.begin() + row * numbers,
                                      batch.numeric.begin() + (row + 1) * numbers);
    double logit = exact.dense[0][0];
    for (size_t i = 0; i < numbers; ++i) logit += numeric[i] * exact.dense[1][i];
    for (size_t i = 0; i < features; ++i) logit += exact.rows[0][batch.tables[0].at[row * features + i]];
    std::vector<double> x = {numeric[0]};  // the other one is the wide part's alone
    for (size_t table = 1; table < model.tables().size(); ++table) {
      const size_t dim = model.tables()[table].dim;
      for (size_t i = 0; i < dim; ++i) x.push_back(exact.rows[table][batch.tables[table].at[row] * dim + i]);
    }
    for (size_t kernel = 2; kernel < exact.dense.size(); kernel += 2) {
      std::vector<double> y = exact.dense[kernel + 1];
      for (size_t o = 0; o < y.size(); ++o) {
        for (size_t i = 0; i < x.size(); ++i) y[o] += x[i] * exact.dense[kernel][i * y.size() + o];
        if (kernel + 2 < exact.dense.size() && y[o] <= 0) {
          y[o] = 0;
          ++*switched_off;
        }
      }
      x = y;
    }
    logit += x[0];
    loss += std::log1p(std::exp(logit)) - (batch.labels[row] != 0 ? logit : 0);
  }
  return loss / static_cast<double>(batch.rows);
}

struct WideDeepCase {
  std::string device;
  std::vector<int64_t> hidden;
};
void PrintTo(const WideDeepCase& item, std::ostream* out) {
  *out << item.hidden.size() << " layers on " << item.device;
}

std::vector<WideDeepCase> WideDeepCases() {
  std::vector<WideDeepCase> cases;
  for (const std::string& device : DevicesHere())
    cases.insert(cases.end(), {{device, {}}, {device, {8}}, {device, {8, 5}}});
  return cases;
}

class WideDeepGradientTest : public testing::TestWithParam<WideDeepCase> {};

// As GradientTest of program_test.cc, which says where the tolerance comes from.
TEST_P(WideDeepGradientTest, IsTheSlopeOfTheLoss) {
  auto model = WideDeep::Make(*ParseFeatureSchema(kShopSchema, "s"), WideDeepWith(GetParam().hidden));
  ASSERT_TRUE(model.ok()) << model.status();
  const auto device = OpenHere(GetParam().device);
  const FeatureData data = ShopData(200, 3);
  FeatureBatcher batcher(data, data.TrainScale());
  FeatureBatch batch;
  batcher.Gather(data.train(), {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, &batch);
  WideDeepValues parameters, gradients;
  model->Resize(batch.tables, &parameters);
  Exact exact;
  uint64_t stream = 100;
  for (auto* buffers : {&parameters.dense, &parameters.rows}) {
    for (std::vector<float>& buffer : *buffers) {
      ++stream;
      for (size_t i = 0; i < buffer.size(); ++i) buffer[i] = static_cast<float>(UnitAt(stream, i) - 0.5);
      (buffers == &parameters.dense ? exact.dense : exact.rows).emplace_back(buffer.begin(), buffer.end());
    }
  }
  const auto computed = model->Gradients(*device, batch, parameters, &gradients);
  ASSERT_TRUE(computed.ok()) << computed.status();
  const WideDeep::Result result = *computed;
  std::vector<float> logits;
  EXPECT_EQ(model->Score(*device, batch, parameters, &logits)->loss, result.loss);
  EXPECT_EQ(logits.size(), 13u);
  size_t off = 0, checked = 0, left_out = 0;
  EXPECT_NEAR(result.loss, PlainLoss(*model, batch, exact, &off), 1e-6);
  for (const bool dense : {true, false}) {
    auto& values = dense ? exact.dense : exact.rows;
    const auto& got = dense ? gradients.dense : gradients.rows;
    for (size_t v = 0; v < values.size(); ++v) {
      ASSERT_EQ(got[v].size(), values[v].size());
      for (size_t i = 0; i < values[v].size(); ++i) {
        const double h = 1e-5, value = values[v][i];
        size_t off_up = 0, off_down = 0;
        values[v][i] = value + h;
        const double up = PlainLoss(*model, batch, exact, &off_up);
        values[v][i] = value - h;
        const double down = PlainLoss(*model, batch, exact, &off_down);
        values[v][i] = value;
        if (off_up != off || off_down != off) {
          ++left_out;  // at a ReLU's bend
          continue;
        }
        ++checked;
        EXPECT_NEAR(got[v][i], (up - down) / (2 * h), 1e-6)
            << (dense ? model->variables()[v].name : model->tables()[v].name) << "[" << i << "]";
      }
    }
  }
  EXPECT_GT(checked, 100u);
  EXPECT_LT(left_out * 20, checked);
}

// Values in the device's memory, which live as long as this.
class There final {
 public:
  explicit There(Device& device) : device_(device) {}
  float* Of(const std::vector<float>& values) {
    auto memory = device_.Allocate(values.size() * sizeof(float));
    BASIN_CHECK(memory.ok());
    memory_.push_back(*std::move(memory));
    device_.CopyIn(memory_.back().data(), values.data(), values.size() * sizeof(float));
    return static_cast<float*>(memory_.back().data());
  }

 private:
  Device& device_;
  std::vector<DeviceMemory> memory_;
};

// The rows of FeatureBatch's keys, and what the pooled ones are, for each example: what a client writes.
struct RowsByExample {
  RowsByExample(const WideDeep& model, const FeatureBatch& batch, const WideDeepValues& values)
      : weights(static_cast<size_t>(batch.rows)) {
    const size_t features = batch.tables[0].at.size() / weights.size();
    for (size_t i = 0; i < batch.tables[0].at.size(); ++i) {
      weights[i / features] += values.rows[0][batch.tables[0].at[i]];
    }
    for (size_t table = 1; table < batch.tables.size(); ++table) {
      const size_t dim = model.tables()[table].dim;
      for (const uint32_t at : batch.tables[table].at) {
        for (size_t i = 0; i < dim; ++i) embeddings.push_back(values.rows[table][at * dim + i]);
      }
    }
  }
  std::vector<float> weights, embeddings;
};

// What a client makes of them: sums by key, in the order of the batch.
std::vector<std::vector<float>> SumsByKey(const WideDeep& model, const FeatureBatch& batch,
                                          const std::vector<float>& weights, const std::vector<float>& embeddings) {
  std::vector<std::vector<float>> sums;
  const size_t rows = weights.size(), features = batch.tables[0].at.size() / rows;
  for (size_t table = 0, from = 0; table < batch.tables.size(); ++table) {
    const size_t dim = model.tables()[table].dim;
    sums.emplace_back(batch.tables[table].keys.size() * dim);
    for (size_t i = 0; i < batch.tables[table].at.size(); ++i) {
      const size_t to = batch.tables[table].at[i] * dim;
      for (size_t column = 0; column < dim; ++column) {
        sums.back()[to + column] += table == 0 ? weights[i / features] : embeddings[from++];
      }
    }
  }
  return sums;
}

// With all in the device's memory nothing crosses, and the loss alone is waited for. The batch has each shop many
// times.
TEST_P(WideDeepGradientTest, OfAStepInTheDevicesMemoryIsTheSameToTheBitAndNothingCrosses) {
  for (const char* const schema : {kShopSchema, kShopSchemaWithoutNumbers}) {
    auto model = WideDeep::Make(*ParseFeatureSchema(schema, "s"), WideDeepWith(GetParam().hidden));
    ASSERT_TRUE(model.ok()) << model.status();
    CountingDevice device(OpenHere(GetParam().device));
    const FeatureData data = ShopData(200, 3, schema);
    FeatureBatcher batcher(data, data.TrainScale());
    FeatureBatch batch;
    for (const size_t rows : {40, 7, 60}) {
      std::vector<uint32_t> examples(rows);
      std::iota(examples.begin(), examples.end(), 3);
      batcher.Gather(data.train(), examples, &batch);
      WideDeepValues parameters, expected;
      model->Resize(batch.tables, &parameters);
      uint64_t stream = 100;
      for (auto* buffers : {&parameters.dense, &parameters.rows}) {
        for (std::vector<float>& buffer : *buffers) {
          ++stream;
          for (size_t i = 0; i < buffer.size(); ++i) buffer[i] = static_cast<float>(UnitAt(stream, i) - 0.5);
        }
      }
      const auto expected_result = model->Gradients(device, batch, parameters, &expected);
      ASSERT_TRUE(expected_result.ok()) << expected_result.status();

      There there(device);
      const RowsByExample by_example(*model, batch, parameters);
      std::vector<float> weights_gradient(rows), embeddings_gradient(by_example.embeddings.size());
      std::vector<absl::Span<const float>> read;
      std::vector<absl::Span<float>> write;
      for (const std::vector<float>& values : parameters.dense) {
        read.emplace_back(there.Of(values), values.size());
        write.emplace_back(there.Of(values), values.size());
      }
      std::vector<float> labels((rows + 3) / 4);
      std::copy_n(batch.labels.data(), rows, reinterpret_cast<uint8_t*>(labels.data()));
      const WideDeepStep step = {.rows = batch.rows,
                                 .numeric = there.Of(batch.numeric),
                                 .labels = reinterpret_cast<const uint8_t*>(there.Of(labels)),
                                 .weights = there.Of(by_example.weights),
                                 .embeddings = there.Of(by_example.embeddings),
                                 .parameters = read,
                                 .gradients = write,
                                 .weights_gradient = there.Of(weights_gradient),
                                 .embeddings_gradient = there.Of(embeddings_gradient)};
      ASSERT_TRUE(device.Finish().ok());
      device.Take();
      std::vector<size_t> told;
      std::vector<std::vector<float>> found = parameters.dense;
      const auto made = model->Gradients(device, step, [&](size_t variable) {
        told.push_back(variable);
        // Only behind the kernel that was just asked for.
        device.CopyOut(found[variable].data(), write[variable].data(), write[variable].size() * sizeof(float));
      });
      ASSERT_TRUE(made.ok()) << made.status();
      size_t dense_bytes = 0;
      for (const std::vector<float>& values : parameters.dense) dense_bytes += values.size() * sizeof(float);
      const CountingDevice::Counts counts = device.Take();
      EXPECT_EQ(counts.bytes_in, 0u);
      EXPECT_EQ(counts.bytes_out, dense_bytes);  // by this test
      EXPECT_EQ(counts.waits, 1);
      EXPECT_EQ(made->result.loss, expected_result->loss);
      EXPECT_EQ(made->result.correct, expected_result->correct);
      EXPECT_TRUE(std::is_sorted(told.rbegin(), told.rend()));
      EXPECT_EQ(told.size(), parameters.dense.size());
      device.CopyOut(weights_gradient.data(), step.weights_gradient, rows * sizeof(float));
      ASSERT_TRUE(device.WaitFor(made->embeddings_made).ok());
      device.CopyOut(embeddings_gradient.data(), step.embeddings_gradient, embeddings_gradient.size() * sizeof(float));
      ASSERT_TRUE(device.Finish().ok());
      EXPECT_EQ(found, expected.dense);
      EXPECT_EQ(SumsByKey(*model, batch, weights_gradient, embeddings_gradient), expected.rows);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Hidden, WideDeepGradientTest, testing::ValuesIn(WideDeepCases()), [](const auto& info) {
  return std::to_string(info.param.hidden.size()) + "_layers_on_" + InTestName(info.param.device);
});

TEST(WideDeepTest, NamesItsVariablesAndTables) {
  const auto model = WideDeep::Make(*ParseFeatureSchema(kShopSchema, "s"), WideDeepWith({8}));
  ASSERT_TRUE(model.ok());
  std::vector<std::string> names;
  for (const VariableDecl& variable : model->variables()) names.push_back(variable.name);
  EXPECT_EQ(names, (std::vector<std::string>{"wide/bias", "wide/numeric", "deep/hidden0/kernel", "deep/hidden0/bias",
                                             "deep/logit/kernel", "deep/logit/bias"}));
  EXPECT_EQ(model->variables()[2].shape, (std::vector<int64_t>{1 + 3 * 3, 8}));
  names.clear();
  for (const TableDecl& table : model->tables()) names.push_back(table.name);
  EXPECT_EQ(names, (std::vector<std::string>{"wide", "embedding/shop", "embedding/user", "embedding/hour"}));
  EXPECT_EQ(model->tables()[0].dim, 1u);
  EXPECT_EQ(model->tables()[1].dim, 3u);
}

TEST(WideDeepTest, NoTwoInitialValuesShareASeed) {
  std::set<uint64_t> seeds;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const auto model = WideDeep::Make(*ParseFeatureSchema(kShopSchema, "s"), WideDeepWith({8, 4}, seed));
    for (const VariableDecl& variable : model->variables()) {
      if (variable.init.kind != InitKind::kZeros) seeds.insert(variable.init.seed);
    }
    for (const TableDecl& table : model->tables()) {
      if (table.init.kind != InitKind::kZeros) seeds.insert(table.init.seed);
    }
  }
  EXPECT_EQ(seeds.size(), 10u * (3 + 3));
}

TEST(WideDeepTest, WorksWithoutNumbers) {
  const auto schema =
      ParseFeatureSchema("label: {column: y}\nsplit: {column: d, test_from: a}\ncategorical: [c]\n", "s");
  const auto model = WideDeep::Make(*schema, WideDeepWith({4}));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->variables()[1].name, "deep/hidden0/kernel");
  EXPECT_EQ(model->variables()[1].shape, (std::vector<int64_t>{3, 4}));
}

TEST(WideDeepTest, WrongOptionsAreNamed) {
  const FeatureSchema schema = *ParseFeatureSchema(kShopSchema, "s");
  const auto message = [&](const WideDeepOptions& options) {
    return std::string(WideDeep::Make(schema, options).status().message());
  };
  EXPECT_TRUE(absl::StrContains(message(WideDeepWith({0})), "width 0"));
  WideDeepOptions options = WideDeepWith({4});
  options.embedding_dim = 0;
  EXPECT_TRUE(absl::StrContains(message(options), "embeddings of 0 numbers"));
  options = WideDeepWith({4});
  options.wide_rule.learning_rate = -1;
  EXPECT_TRUE(absl::StrContains(message(options), "learning_rate"));
}

}  // namespace
}  // namespace basin
