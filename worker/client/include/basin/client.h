// Basin for C++17: a thin wrapper over <basin/basin.h>, which has the rules about threads, fork and ownership.
//
//   auto client = basin::Client::Connect(basin::Options::FromEnvironment());
//   if (!client.ok()) return basin::Exit(client.status());
//   basin::Model model;
//   auto w = model.Dense("w", {784, 10}, basin::Glorot(/*seed=*/1));
//   model.SetRule(basin::Adam{});
//   if (auto s = client->Declare(model); !s.ok()) return basin::Exit(s);
//   client->Pull({{w, W}}).Wait(); ... client->Push({{w, dW}}).Wait(); client->Step({{"loss", loss}});
//
// Nothing here throws. Includes only std and basin.h; needs no library but libbasin.so.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "basin/basin.h"
#include "basin/buffers.h"
#include "basin/model.h"
#include "basin/status.h"

namespace basin {

// ---- Moving parameters ----

// A push or pull under way. Its buffers are lent until it is done; the destructor waits for that.
class [[nodiscard]] Call final {
 public:
  Call(Status status, basin_call* call) : status_(std::move(status)), call_(call, &basin_call_free) {}
  // Until it is done. Repeats its outcome when called again.
  Status Wait() { return WaitSeconds(-1); }
  // BASIN_DEADLINE_EXCEEDED: in doubt; it goes on, wait again.
  Status WaitFor(std::chrono::duration<double> timeout) { return WaitSeconds(timeout.count()); }
  // What is queued on the stream from now on runs when the call is done, or has failed: Wait tells. The CPU goes on.
  // For calls with device memory.
  Status OrderBefore(const Stream& stream) {
    if (call_ == nullptr) return status_;
    basin_status status = {};
    basin_call_order_before(call_.get(), &stream.value, &status);
    return internal::ToStatus(status);
  }
  bool done() const { return call_ == nullptr || basin_call_done(call_.get()) != 0; }
  // After it is done: over the pushed shards, version at apply less version pulled.
  double staleness_mean() const {
    double mean = 0;
    if (call_ != nullptr) basin_call_staleness(call_.get(), &mean, nullptr);
    return mean;
  }

 private:
  Status WaitSeconds(double timeout_s) {
    if (call_ == nullptr) return status_;
    basin_status status = {};
    basin_call_wait(call_.get(), timeout_s, &status);
    return internal::ToStatus(status);
  }
  Status status_;
  std::unique_ptr<basin_call, void (*)(basin_call*)> call_;
};

struct Options {
  std::string tf_config;   // empty: ps_address is used
  std::string ps_address;  // observers without TF_CONFIG: ps 0's host:port
  std::string run_id, token_file;
  bool observer = false;  // only reads, claims no task
  bool log = true;        // lines about waiting and reconnecting on standard error
  std::chrono::duration<double> start_timeout{600}, unreachable_timeout{60}, claim_timeout{30};
  uint64_t max_bytes_in_flight = uint64_t{256} << 20;
  std::string transport;  // "auto" (the same as empty), "tcp" or "shm": see basin_options
  std::chrono::microseconds spin{50};
  std::string metrics_file;  // lines of Step's metrics are appended to it; empty: none. See basin_options
  // What float32 gradients are sent as: "float32" (the same as empty), "float16", "bfloat16". See basin_options.
  std::string gradient_dtype;
  bool keep_memory = true;  // asks the allocator to keep large freed blocks, for the whole process

  // TF_CONFIG, BASIN_RUN_ID, BASIN_TOKEN_FILE, BASIN_TRANSPORT, BASIN_METRICS_FILE, BASIN_GRADIENT_DTYPE.
  static Options FromEnvironment() {
    basin_options c = {};
    basin_options_from_environment(&c, sizeof(c));
    Options options;
    if (c.tf_config != nullptr) options.tf_config = c.tf_config;
    if (c.run_id != nullptr) options.run_id = c.run_id;
    if (c.token_file != nullptr) options.token_file = c.token_file;
    if (c.transport != nullptr) options.transport = c.transport;
    if (c.metrics_file != nullptr) options.metrics_file = c.metrics_file;
    if (c.gradient_dtype != nullptr) options.gradient_dtype = c.gradient_dtype;
    return options;
  }
};

// A piece of an input, leased to this task until Done. Must not outlive its client.
class InputPiece final {
 public:
  bool end() const { return piece_.end != 0; }
  uint32_t epoch() const { return piece_.epoch; }
  uint64_t begin() const { return piece_.begin; }  // items [begin, end_item)
  uint64_t end_item() const { return piece_.end_item; }
  // Waits until the pushes started before are acknowledged, then counts the piece.
  Status Done() {
    basin_status status = {};
    basin_input_done(client_, name_.c_str(), piece_.piece, &status);
    return internal::ToStatus(status);
  }

 private:
  friend class Client;
  basin_client* client_ = nullptr;
  std::string name_;
  basin_piece piece_ = {};
};

// A task's (or an observer's) connection to all parameter servers of the run. Movable; may be used from several
// threads.
class Client final {
 public:
  // Waits until every parameter server has answered, at most options.start_timeout.
  static Result<Client> Connect(const Options& options) {
    basin_options c = {};
    basin_options_init(&c, sizeof(c));
    auto text = [](const std::string& s) { return s.empty() ? nullptr : s.c_str(); };
    c.tf_config = text(options.tf_config);
    c.ps_address = text(options.ps_address);
    c.run_id = text(options.run_id);
    c.token_file = text(options.token_file);
    c.observer = options.observer ? 1 : 0;
    c.log = options.log ? 1 : 0;
    c.start_timeout_s = options.start_timeout.count();
    c.unreachable_timeout_s = options.unreachable_timeout.count();
    c.claim_timeout_s = options.claim_timeout.count();
    c.max_bytes_in_flight = options.max_bytes_in_flight;
    c.transport = text(options.transport);
    c.spin_us = static_cast<int32_t>(options.spin.count());
    c.keep_memory = options.keep_memory ? 1 : 0;
    c.metrics_file = text(options.metrics_file);
    c.gradient_dtype = text(options.gradient_dtype);
    basin_client* client = nullptr;
    basin_status status = {};
    basin_connect(&c, &client, &status);
    if (client == nullptr) return internal::ToStatus(status);
    return Client(client);
  }

  std::string role() const { return task().role; }
  uint32_t index() const { return task().index; }
  bool is_chief() const { return task().is_chief != 0; }
  uint32_t worker_count() const { return task().worker_count; }
  std::string run_id() const { return task().run_id; }

  // The chief's makes the run's model, others' wait for it and are compared. May be repeated with more variables.
  Status Declare(const Model& model) {
    if (!model.status().ok()) return model.status();
    return Run([&](basin_status* s) { basin_declare(client_.get(), model.get(), s); });
  }
  // Observers: waits until the chief has declared, and learns the run's model.
  Result<std::vector<std::pair<std::string, Variable>>> Learn() {
    if (Status s = Run([&](basin_status* status) { basin_declare(client_.get(), nullptr, status); }); !s.ok()) return s;
    std::vector<std::pair<std::string, Variable>> variables;
    basin_variable v = {};
    v.size = sizeof(v);
    for (uint32_t id = 0; basin_get_variable(client_.get(), id, &v, nullptr) == BASIN_OK; ++id) {
      variables.emplace_back(v.name, Variable{id, std::vector<int64_t>(v.shape, v.shape + v.ndim)});
    }
    return variables;
  }

  // With buffers in device memory, `stream` is what they are read and written behind (basin_start_on_stream). Targets
  // are pulled in the order in which they are listed: those first that are used first.
  Call Pull(const std::vector<Target>& targets, const Stream& stream = {}) { return Start({}, {}, targets, stream); }
  // The gradients must not change until the call is done.
  Call Push(const std::vector<Source>& gradients, const Stream& stream = {}) {
    return Start(gradients, {}, {}, stream);
  }
  // Pushes, then pulls the parameters that the push has led to, in one round trip.
  Call PushPull(const std::vector<Source>& gradients, const std::vector<Target>& targets, const Stream& stream = {}) {
    return Start(gradients, {}, targets, stream);
  }
  Call Assign(const std::vector<Source>& values, const Stream& stream = {}) { return Start({}, values, {}, stream); }

  // ---- Rows of tables ----

  // Any of the calls below, over several tables in one; each may stand once. `stream` is for device memory: what it is
  // read and written behind (basin_start_rows_on_stream).
  Call Start(const std::vector<Rows>& tables, const Stream& stream = {}) {
    std::vector<basin_rows> rows;
    for (const Rows& of : tables) {
      basin_rows c = {};
      c.size = sizeof(c);
      c.table = of.table->id;
      c.keys = of.keys;
      c.count = of.count;
      c.push = of.push;
      c.pull = of.pull;
      c.bags = of.bags;
      c.bag_count = of.bag_count;
      c.pooling = of.bags == nullptr ? 0 : static_cast<int32_t>(of.pooling);
      c.device = of.location.value;
      c.keys_device = of.keys_location.value;
      rows.push_back(c);
    }
    basin_call* call = nullptr;
    Status status = Run([&](basin_status* s) {
      basin_start_rows_on_stream(client_.get(), rows.data(), rows.size(), &stream.value, &call, s);
    });
    return Call(std::move(status), call);
  }
  // rows: [count, dim]. A key without a row: its initial value; no row is made.
  Call Pull(const Table& table, const uint64_t* keys, size_t count, float* rows) {
    return Start(std::vector<Rows>{{&table, keys, count, nullptr, rows}});
  }
  Call Pull(const Table& table, const std::vector<uint64_t>& keys, std::vector<float>& rows) {
    if (Status s = Fits(table, "rows", keys.size(), rows.size()); !s.ok()) return Call(std::move(s), nullptr);
    return Pull(table, keys.data(), keys.size(), rows.data());
  }
  Call Push(const Table& table, const uint64_t* keys, size_t count, const float* gradients) {
    return Start(std::vector<Rows>{{&table, keys, count, gradients, nullptr}});
  }
  Call Push(const Table& table, const std::vector<uint64_t>& keys, const std::vector<float>& gradients) {
    if (Status s = Fits(table, "gradients", keys.size(), gradients.size()); !s.ok()) return Call(std::move(s), nullptr);
    return Push(table, keys.data(), keys.size(), gradients.data());
  }
  // Pushes, then pulls the rows that the push has led to, in one round trip.
  Call PushPull(const Table& table, const uint64_t* keys, size_t count, const float* gradients, float* rows) {
    return Start(std::vector<Rows>{{&table, keys, count, gradients, rows}});
  }
  Call PushPull(const Table& table, const std::vector<uint64_t>& keys, const std::vector<float>& gradients,
                std::vector<float>& rows) {
    if (Status s = Fits(table, "gradients", keys.size(), gradients.size()); !s.ok()) return Call(std::move(s), nullptr);
    if (Status s = Fits(table, "rows", keys.size(), rows.size()); !s.ok()) return Call(std::move(s), nullptr);
    return PushPull(table, keys.data(), keys.size(), gradients.data(), rows.data());
  }
  // pooled: [offsets.size() - 1, dim], the sum or mean of each bag's rows; zeros for an empty bag.
  Call PullBags(const Table& table, const std::vector<uint64_t>& keys, const std::vector<uint64_t>& offsets,
                Pooling pooling, std::vector<float>& pooled) {
    if (Status s = FitsBags(table, "pooled", offsets, pooled.size()); !s.ok()) return Call(std::move(s), nullptr);
    return Start(std::vector<Rows>{
        {&table, keys.data(), keys.size(), nullptr, pooled.data(), offsets.data(), offsets.size() - 1, pooling}});
  }
  // gradients: [offsets.size() - 1, dim], one a bag, given to each row of it (divided by their number for the mean).
  Call PushBags(const Table& table, const std::vector<uint64_t>& keys, const std::vector<uint64_t>& offsets,
                Pooling pooling, const std::vector<float>& gradients) {
    if (Status s = FitsBags(table, "gradients", offsets, gradients.size()); !s.ok()) return Call(std::move(s), nullptr);
    return Start(std::vector<Rows>{
        {&table, keys.data(), keys.size(), gradients.data(), nullptr, offsets.data(), offsets.size() - 1, pooling}});
  }
  // Keys of evicted rows that this client was not told yet, for whoever keeps copies of rows. `missed`: the servers
  // have forgotten some, so that no copy can be trusted. Begins with the first call for the table.
  struct Evicted {
    std::vector<uint64_t> keys;
    bool missed = false;
  };
  Result<Evicted> EvictedKeys(const Table& table) {
    Evicted evicted;
    constexpr size_t kAtOnce = 65536;
    for (size_t count = kAtOnce; count == kAtOnce;) {
      const size_t before = evicted.keys.size();
      evicted.keys.resize(before + kAtOnce);
      int32_t missed = 0;
      Status status = Run([&](basin_status* s) {
        basin_evicted_keys(client_.get(), table.id, evicted.keys.data() + before, kAtOnce, &count, &missed, s);
      });
      if (!status.ok()) return status;
      evicted.keys.resize(before + count);
      evicted.missed = evicted.missed || missed != 0;
    }
    return evicted;
  }

  // Pushes from now on are applied with this rate instead of their rule's; NaN: the rule's again.
  Status SetLearningRate(float learning_rate) {
    return Run([&](basin_status* s) { basin_set_learning_rate(client_.get(), learning_rate, s); });
  }

  // This task finished a step. Does not wait.
  Status Step(std::initializer_list<std::pair<const char*, double>> metrics = {}) {
    std::vector<const char*> names;
    std::vector<double> values;
    for (const auto& [name, value] : metrics) {
      names.push_back(name);
      values.push_back(value);
    }
    return Run([&](basin_status* s) { basin_step(client_.get(), names.data(), values.data(), names.size(), s); });
  }
  Result<InputPiece> NextInput(const std::string& name) {
    InputPiece piece;
    piece.client_ = client_.get();
    piece.name_ = name;
    piece.piece_.size = sizeof(piece.piece_);
    Status status = Run([&](basin_status* s) { basin_next_input(client_.get(), name.c_str(), &piece.piece_, s); });
    if (!status.ok()) return status;
    return piece;
  }
  Status Barrier(const std::string& name, std::chrono::duration<double> timeout = std::chrono::duration<double>(-1)) {
    return Run([&](basin_status* s) { basin_barrier(client_.get(), name.c_str(), timeout.count(), s); });
  }
  // What was heard last of the run.
  basin_run_state run_state() const {
    basin_run_state state = {};
    state.size = sizeof(state);
    basin_get_run_state(client_.get(), &state);
    return state;
  }
  // Waits until the chief has ended the run. BASIN_DEADLINE_EXCEEDED: it goes on.
  Status WaitFinished(std::chrono::duration<double> timeout) {
    return Run([&](basin_status* s) { basin_wait_finished(client_.get(), timeout.count(), s); });
  }
  // This task's work is done (its pushes are acknowledged); the chief's ends the run.
  Status Finish(const std::string& failure = "") {
    return Run([&](basin_status* s) { basin_finish(client_.get(), failure.empty() ? nullptr : failure.c_str(), s); });
  }
  // JSON: what `basin top` shows.
  Result<std::string> Stats() {
    char* json = nullptr;
    Status status = Run([&](basin_status* s) { basin_stats(client_.get(), &json, s); });
    if (!status.ok()) return status;
    std::string text = json;
    basin_free_text(json);
    return text;
  }
  basin_client* get() const { return client_.get(); }

 private:
  explicit Client(basin_client* client) : client_(client, &basin_close) {}
  basin_task task() const {
    basin_task task = {};
    task.size = sizeof(task);
    basin_get_task(client_.get(), &task);
    return task;
  }
  template <class C>
  static Status Run(C call) {
    basin_status status = {};
    call(&status);
    return internal::ToStatus(status);
  }

  static Status Fits(const Table& table, const char* what, size_t rows, size_t elements) {
    if (elements == rows * table.dim) return {};
    return {BASIN_INVALID_ARGUMENT, std::string(what) + ": " + std::to_string(elements) + " numbers, expected " +
                                        std::to_string(rows) + " rows of " + std::to_string(table.dim)};
  }

  static Status FitsBags(const Table& table, const char* what, const std::vector<uint64_t>& offsets, size_t elements) {
    if (offsets.empty()) return {BASIN_INVALID_ARGUMENT, std::string(what) + ": no offsets; n bags have n + 1"};
    return Fits(table, what, offsets.size() - 1, elements);
  }

  // A buffer of the right number of elements is passed with the variable's shape; another as it is, to be refused by
  // name.
  struct Tensor {
    Tensor(const Source& of) : Tensor(*of.variable, of.data, of.elements, of.type, of.location) {}
    Tensor(const Target& of) : Tensor(*of.variable, of.data, of.elements, kF32, of.location) {}
    Tensor(const Variable& variable, const void* data, size_t elements, Storage type, const Location& location)
        : extent(static_cast<int64_t>(elements)) {
      int64_t expected = 1;
      for (int64_t dim : variable.shape) expected *= dim;
      const bool fits = expected == extent;
      view.data = const_cast<void*>(data);
      view.device = location.value;
      view.ndim = fits ? static_cast<int32_t>(variable.shape.size()) : 1;
      view.dtype = {static_cast<uint8_t>(type == kBF16 ? 4 : 2), static_cast<uint8_t>(type == kF32 ? 32 : 16), 1};
      view.shape = fits ? const_cast<int64_t*>(variable.shape.data()) : &extent;  // only read
    }
    int64_t extent;
    basin_tensor view = {};
  };

  Call Start(const std::vector<Source>& push, const std::vector<Source>& assign, const std::vector<Target>& pull,
             const Stream& stream) {
    std::vector<Tensor> tensors;
    tensors.reserve(push.size() + assign.size() + pull.size());  // items point into it
    std::vector<basin_item> items;
    items.reserve(tensors.capacity());
    // A push and a pull of one variable make one item. The same part twice makes two, which basin_start refuses. Lists
    // mostly have one order, so the partner is looked for behind the last one first.
    auto add = [&](const auto& list, const basin_tensor* basin_item::*part) {
      const size_t before = items.size();
      size_t next = 0;
      for (const auto& one : list) {
        basin_item* item = nullptr;
        for (size_t i = 0; i < before && item == nullptr; ++i) {
          basin_item& known = items[(next + i) % before];
          if (known.variable != one.variable->id || known.*part != nullptr) continue;
          item = &known;
          next += i + 1;
        }
        if (item == nullptr) item = &items.emplace_back(basin_item{one.variable->id, nullptr, nullptr, nullptr});
        tensors.emplace_back(one);
        item->*part = &tensors.back().view;
      }
    };
    add(push, &basin_item::push);
    add(assign, &basin_item::assign);
    add(pull, &basin_item::pull);
    basin_call* call = nullptr;
    Status status = Run([&](basin_status* s) {
      basin_start_on_stream(client_.get(), items.data(), items.size(), &stream.value, &call, s);
    });
    return Call(std::move(status), call);
  }

  std::unique_ptr<basin_client, void (*)(basin_client*)> client_;
};

}  // namespace basin
