// A worker that pushes and pulls rows of an embedding table, and checks every row that it has touched.
#include <algorithm>
#include <limits>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/harness/connection.h"
#include "bench/harness/exact_sums.h"
#include "bench/harness/key_stream.h"
#include "bench/harness/statistics.h"
#include "bench/harness/task.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

constexpr size_t kBatches = 64;       // made before the first round, and used in turn
constexpr size_t kRowsACheck = 4096;  // pulled at a time at the end

// spec: "op": "push" or "pull"; "rows", "dim", "keys": "uniform" or "criteo"; "batch" keys of a call; "window" calls in
// flight; "seed". Commands: as in dense_task.cc; the unit is a row. For one worker: it alone knows what it pushed.
class TableTask final : public Task {
 public:
  ~TableTask() override {
    for (basin_call* call : flying_) basin_call_free(call);
  }

  absl::StatusOr<Json> Start(const Json& spec) override {
    pulls_ = spec.value("op", "push") == "pull";
    dim_ = spec.value("dim", uint32_t{16});
    batch_ = spec.value("batch", size_t{16384});
    window_ = std::clamp<size_t>(spec.value("window", size_t{16}), 1, kBatches);
    if (spec.value("workers", 1) != 1) return absl::InvalidArgumentError("tables are measured with one worker");
    const uint64_t rows = spec.value("rows", uint64_t{1000000});
    if (rows == 0 || dim_ == 0 || batch_ == 0) return absl::InvalidArgumentError("a table task without rows");
    BASIN_ASSIGN_OR_RETURN(client_, ConnectAsTold(spec));
    BASIN_RETURN_IF_ERROR(Declare());
    Random random(spec.value("seed", uint64_t{1}));
    const bool criteo = spec.value("keys", "uniform") == "criteo";
    for (size_t b = 0; b < kBatches; ++b) {
      keys_.push_back(criteo ? CriteoKeys(random, batch_) : UniformKeys(random, rows, batch_));
      BASIN_ASSIGN_OR_RETURN(Floats floats, Floats::Make(batch_ * dim_));
      for (size_t i = 0; i < batch_; ++i) {
        for (uint32_t d = 0; d < dim_; ++d) floats.data()[i * dim_ + d] = Gradient(keys_[b][i], d);
      }
      gradients_.push_back(std::move(floats));
      if (pulls_) {
        BASIN_ASSIGN_OR_RETURN(Floats into, Floats::Make(batch_ * dim_));
        pulled_.push_back(std::move(into));
      }
    }
    times_.assign(kBatches, 0);
    flying_.assign(window_, nullptr);
    started_.resize(window_);
    // Every row of a batch exists before the first round.
    for (size_t b = 0; b < kBatches; ++b) {
      BASIN_RETURN_IF_ERROR(StartCall(b, /*pull=*/false, &flying_[0]));
      BASIN_RETURN_IF_ERROR(End(&flying_[0]));
    }
    return Json::object();
  }

  absl::StatusOr<Json> Do(const Json& command) override {
    const std::string what = command.value("do", "");
    if (what == "round") return Round(command.value("seconds", 0.5));
    if (what == "counts") return Json{{"pushes", times_}};
    if (what == "verify") return Verify();
    if (what == "plant") {
      --times_[0];
      return Json::object();
    }
    if (what != "finish") return absl::InvalidArgumentError(absl::StrCat("a table task cannot ", what));
    BASIN_RETURN_IF_ERROR(FromLibrary(client_->Finish()));
    client_.reset();
    return Json::object();
  }

 private:
  static float Gradient(uint64_t key, uint32_t d) { return GradientAt(d, key); }

  absl::Status Declare() {
    const std::unique_ptr<basin_model, void (*)(basin_model*)> model(basin_model_new(), basin_model_free);
    basin_status status = {};
    const Rule rule = ToLibrary(ExactRule(RuleKind::kSgd));
    const basin_table table = {.size = sizeof(basin_table),
                               .name = "rows",
                               .dim = dim_,
                               .storage = {2, 32, 1},
                               .initializer = {BASIN_ZEROS, 0, 0, 0},
                               .rule = rule.get()};
    int32_t code = basin_model_add_table(model.get(), &table, &table_, &status);
    if (code == BASIN_OK) code = basin_declare(client_->get(), model.get(), &status);
    return FromLibrary(code, status);
  }

  absl::Status StartCall(size_t batch, bool pull, basin_call** call) {
    basin_rows rows = {.size = sizeof(basin_rows), .table = table_, .keys = keys_[batch].data(), .count = batch_};
    if (pull)
      rows.pull = pulled_[batch].data();
    else
      rows.push = gradients_[batch].data();
    basin_status status = {};
    const int32_t code = basin_start_rows(client_->get(), &rows, 1, call, &status);
    if (code == BASIN_OK && !pull) ++times_[batch];
    return FromLibrary(code, status);
  }

  static absl::Status End(basin_call** call) {
    basin_status status = {};
    const int32_t code = basin_call_wait(*call, -1, &status);
    basin_call_free(*call);
    *call = nullptr;
    return FromLibrary(code, status);
  }

  absl::StatusOr<Json> Round(double seconds) {
    LatencySample latencies;
    uint64_t calls = 0, done = 0;
    const auto end_oldest = [&]() -> absl::Status {
      BASIN_RETURN_IF_ERROR(End(&flying_[done % window_]));
      latencies.Add(SecondsSince(started_[done++ % window_]) * 1e6);
      return absl::OkStatus();
    };
    const Clock::time_point start = Clock::now();
    do {
      if (calls - done == window_) BASIN_RETURN_IF_ERROR(end_oldest());
      started_[calls % window_] = Clock::now();
      BASIN_RETURN_IF_ERROR(StartCall(next_++ % kBatches, pulls_, &flying_[calls % window_]));
      ++calls;
    } while (SecondsSince(start) < seconds);
    while (done < calls) BASIN_RETURN_IF_ERROR(end_oldest());
    return Json{{"calls", calls},
                {"updates", calls * batch_},
                {"bytes", calls * batch_ * dim_ * sizeof(float)},
                {"seconds", SecondsSince(start)},
                {"p50_us", Percentile(latencies.values(), 0.5)},
                {"p99_us", Percentile(latencies.values(), 0.99)}};
  }

  // Every row that was pushed to, against how often. What the last pulls brought is compared as well.
  absl::Status VerifyRows(const std::map<uint64_t, uint64_t>& pushes, absl::Span<const uint64_t> keys,
                          const float* found) {
    for (size_t i = 0; i < keys.size(); ++i) {
      const uint64_t times = pushes.at(keys[i]);
      if (times > kMostPushes) continue;  // past what float32 adds exactly: proves nothing
      for (uint32_t d = 0; d < dim_; ++d) {
        const float wanted = -static_cast<float>(times) * Gradient(keys[i], d);
        if (found[i * dim_ + d] == wanted) continue;
        return absl::DataLossError(absl::StrCat("row ", keys[i], " has ", found[i * dim_ + d], " at element ", d,
                                                "; its ", times, " pushes make exactly ", wanted));
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Json> Verify() {
    std::map<uint64_t, uint64_t> pushes;
    for (size_t b = 0; b < kBatches; ++b) {
      for (const uint64_t key : keys_[b]) pushes[key] += times_[b];
    }
    if (pulls_) {
      for (size_t b = 0; b < std::min<uint64_t>(next_, kBatches); ++b)
        BASIN_RETURN_IF_ERROR(VerifyRows(pushes, keys_[b], pulled_[b].data()));
    }
    std::vector<uint64_t> keys;
    std::vector<float> values(kRowsACheck * dim_);
    for (auto at = pushes.begin(); at != pushes.end();) {
      keys.clear();
      for (; at != pushes.end() && keys.size() < kRowsACheck; ++at) keys.push_back(at->first);
      std::fill(values.begin(), values.end(), std::numeric_limits<float>::quiet_NaN());
      const basin_rows rows = {.size = sizeof(basin_rows),
                               .table = table_,
                               .keys = keys.data(),
                               .count = keys.size(),
                               .push = nullptr,
                               .pull = values.data()};
      basin_status status = {};
      basin_call* call = nullptr;
      BASIN_RETURN_IF_ERROR(FromLibrary(basin_start_rows(client_->get(), &rows, 1, &call, &status), status));
      BASIN_RETURN_IF_ERROR(End(&call));
      BASIN_RETURN_IF_ERROR(VerifyRows(pushes, keys, values.data()));
    }
    return Json{{"rows", pushes.size()}};
  }

  bool pulls_ = false;
  uint32_t dim_ = 16, table_ = 0;
  size_t batch_ = 0, window_ = 1;
  uint64_t next_ = 0;
  std::optional<Client> client_;
  std::vector<std::vector<uint64_t>> keys_;  // of each batch
  std::vector<Floats> gradients_, pulled_;
  std::vector<uint64_t> times_;  // pushes of each batch
  std::vector<basin_call*> flying_;
  std::vector<Clock::time_point> started_;
};

}  // namespace

std::unique_ptr<Task> MakeTableTask() { return std::make_unique<TableTask>(); }

}  // namespace basin::bench
