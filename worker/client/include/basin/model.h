// The declaration of a model: variables, tables, initial values, rules, inputs. Part of <basin/client.h>.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "basin/basin.h"
#include "basin/status.h"

namespace basin {

using Initializer = basin_initializer;
inline Initializer Zeros() { return {BASIN_ZEROS, 0, 0, 0}; }
inline Initializer Constant(float value) { return {BASIN_CONSTANT, value, 0, 0}; }
inline Initializer Uniform(float low, float high, uint64_t seed) { return {BASIN_UNIFORM, low, high, seed}; }
inline Initializer Normal(float mean, float stddev, uint64_t seed) { return {BASIN_NORMAL, mean, stddev, seed}; }
inline Initializer Glorot(uint64_t seed) { return {BASIN_GLOROT_UNIFORM, 0, 0, seed}; }
inline Initializer He(uint64_t seed) { return {BASIN_HE_NORMAL, 0, 0, seed}; }
// No values until Client::Assign; pulls wait for it.
inline Initializer Assigned() { return {BASIN_ASSIGNED, 0, 0, 0}; }

struct Sgd {
  float learning_rate = 0.01f;
};
struct Momentum {
  float learning_rate = 0.01f;
  float momentum = 0.9f;
  bool nesterov = false;
};
struct Adagrad {
  float learning_rate = 0.01f;
  float initial_accumulator = 0.1f;
  float epsilon = 1e-7f;
};
struct Adam {
  float learning_rate = 0.001f;
  float beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-7f;
};

// McMahan et al., "Ad click prediction: a view from the trenches", KDD 2013.
struct Ftrl {
  float learning_rate = 0.01f;
  float l1 = 0, l2 = 0, beta = 0;
  float initial_accumulator = 0.1f;
};
// Adagrad with one accumulator a row, of the mean of the squares of its gradient: for tables alone.
struct RowwiseAdagrad {
  float learning_rate = 0.01f;
  float initial_accumulator = 0.1f;
  float epsilon = 1e-7f;
};

// Any of the rules above.
class Rule final {
 public:
  Rule(const Sgd& r) { basin_rule_init(&rule_, sizeof(rule_), BASIN_RULE_SGD, r.learning_rate); }  // NOLINT
  Rule(const Momentum& r) {                                                                        // NOLINT
    basin_rule_init(&rule_, sizeof(rule_), BASIN_RULE_MOMENTUM, r.learning_rate);
    rule_.momentum = r.momentum;
    rule_.nesterov = r.nesterov ? 1 : 0;
  }
  Rule(const Adagrad& r) {  // NOLINT
    basin_rule_init(&rule_, sizeof(rule_), BASIN_RULE_ADAGRAD, r.learning_rate);
    rule_.initial_accumulator = r.initial_accumulator;
    rule_.epsilon = r.epsilon;
  }
  Rule(const Adam& r) {  // NOLINT
    basin_rule_init(&rule_, sizeof(rule_), BASIN_RULE_ADAM, r.learning_rate);
    rule_.beta1 = r.beta1;
    rule_.beta2 = r.beta2;
    rule_.epsilon = r.epsilon;
  }
  Rule(const Ftrl& r) {  // NOLINT
    basin_rule_init(&rule_, sizeof(rule_), BASIN_RULE_FTRL, r.learning_rate);
    rule_.l1 = r.l1;
    rule_.l2 = r.l2;
    rule_.beta = r.beta;
    rule_.initial_accumulator = r.initial_accumulator;
  }
  Rule(const RowwiseAdagrad& r) {  // NOLINT
    basin_rule_init(&rule_, sizeof(rule_), BASIN_RULE_ROWWISE_ADAGRAD, r.learning_rate);
    rule_.initial_accumulator = r.initial_accumulator;
    rule_.epsilon = r.epsilon;
  }
  const basin_rule* get() const { return &rule_; }

 private:
  basin_rule rule_ = {};
};

// What a push of a variable does that is not trained: moving means, counters.
enum class Statistic { kMean = BASIN_STATISTIC_MEAN, kSum = BASIN_STATISTIC_SUM, kLast = BASIN_STATISTIC_LAST };

// A variable of a model: its number, and the shape that tensors for it have.
struct Variable {
  uint32_t id = 0;
  std::vector<int64_t> shape;
};

// How the rows of a table are stored; buffers of calls are float32 all the same. Also what a gradient of a variable is
// given in (Source).
enum Storage { kF32, kF16, kBF16 };

// As the fields of basin_table in basin.h, which says what they do.
struct TableOptions {
  uint32_t dim = 0;  // 1 to 4096; must be set
  Storage storage = kF32;
  Initializer initializer = Zeros();  // zeros, constant, uniform or normal
  std::optional<Rule> rule = {};      // the model's, where there is none
  uint32_t admit_after = 1;
  float admit_probability = 1;
  std::chrono::duration<double> evict_unused{0};  // 0: never
  uint64_t max_bytes = 0;                         // 0: what the servers' memory limit leaves
};

// An embedding table of a model: its number, and the length of its rows.
struct Table {
  uint32_t id = 0;
  uint32_t dim = 0;
};

// The declaration. Errors (a name twice, a negative dimension) are kept and returned by Client::Declare.
class Model final {
 public:
  Model() : model_(basin_model_new(), &basin_model_free) {}

  // A float32 variable that the rule trains.
  Variable Dense(const std::string& name, std::vector<int64_t> shape, const Initializer& initializer,
                 std::optional<Rule> rule = std::nullopt) {
    return Add(name, std::move(shape), initializer, BASIN_TRAINED, rule ? rule->get() : nullptr);
  }
  // A float32 variable that pushes update by the statistic.
  Variable Untrained(const std::string& name, std::vector<int64_t> shape, const Initializer& initializer,
                     Statistic statistic) {
    return Add(name, std::move(shape), initializer, static_cast<int32_t>(statistic), nullptr);
  }
  // Rows of `options.dim` numbers by 64-bit key, moved by Client::Pull and Push.
  basin::Table Table(const std::string& name, const TableOptions& options) {
    basin_table table = {};
    table.size = sizeof(table);
    table.name = name.c_str();
    table.dim = options.dim;
    table.storage = {static_cast<uint8_t>(options.storage == kBF16 ? 4 : 2),
                     static_cast<uint8_t>(options.storage == kF32 ? 32 : 16), 1};
    table.initializer = options.initializer;
    table.rule = options.rule ? options.rule->get() : nullptr;
    table.admit_after = options.admit_after;
    table.admit_probability = options.admit_probability;
    table.evict_unused_s = options.evict_unused.count();
    table.max_bytes = options.max_bytes;
    basin::Table added;
    added.dim = options.dim;
    Note([&](basin_status* s) { basin_model_add_table(model_.get(), &table, &added.id, s); });
    return added;
  }
  void SetRule(const Rule& rule) {
    Note([&](basin_status* s) { basin_model_set_rule(model_.get(), rule.get(), s); });
  }
  // `items` examples, handed out in pieces to whoever asks; see Client::NextInput.
  void AddInput(const std::string& name, uint64_t items, uint64_t piece_items, uint32_t epochs,
                uint64_t shuffle_seed = 0) {
    basin_input input = {};
    input.size = sizeof(input);
    input.name = name.c_str();
    input.items = items;
    input.piece_items = piece_items;
    input.epochs = epochs;
    input.shuffle_seed = shuffle_seed;
    Note([&](basin_status* s) { basin_model_add_input(model_.get(), &input, s); });
  }
  // All workers' steps together after which no more input is handed out; 0: no limit.
  void SetMaxSteps(uint64_t steps) { basin_model_set_max_steps(model_.get(), steps); }
  const Status& status() const { return status_; }
  const basin_model* get() const { return model_.get(); }

 private:
  Variable Add(const std::string& name, std::vector<int64_t> shape, const Initializer& initializer, int32_t statistic,
               const basin_rule* rule) {
    basin_variable variable = {};
    variable.size = sizeof(variable);
    variable.name = name.c_str();
    variable.ndim = static_cast<int32_t>(shape.size());
    variable.shape = shape.data();
    variable.dtype = {2, 32, 1};
    variable.initializer = initializer;
    variable.statistic = statistic;
    variable.rule = rule;
    Variable added;
    Note([&](basin_status* s) { basin_model_add_variable(model_.get(), &variable, &added.id, s); });
    added.shape = std::move(shape);
    return added;
  }
  template <class Call>
  void Note(Call call) {
    basin_status status = {};
    call(&status);
    if (status_.ok()) status_ = internal::ToStatus(status);
  }

  std::unique_ptr<basin_model, void (*)(basin_model*)> model_;
  Status status_;
};

}  // namespace basin
