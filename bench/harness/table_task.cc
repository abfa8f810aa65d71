// A worker that pushes and pulls rows of an embedding table, and checks every row at the end.
#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/harness/connection.h"
#include "bench/harness/exact_sums.h"
#include "bench/harness/row_work.h"
#include "bench/harness/statistics.h"
#include "bench/harness/task.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

constexpr size_t kRowsOfACheck = 4096;  // pulled at a time at the end

// spec: "op": "push" or "pull"; what row_work.cc reads; "window": calls in flight; "workers" that do the same;
// "alone": nobody else uses the servers. Commands: as in dense_task.cc; the unit is a row. Each worker makes all rows
// before the first round.
class TableTask final : public Task {
 public:
  ~TableTask() override {
    for (basin_call* call : flying_) basin_call_free(call);
  }

  absl::StatusOr<Json> Start(const Json& spec) override {
    spec_ = spec;
    pulls_ = spec.value("op", "push") == "pull";
    window_ = std::max<size_t>(1, spec.value("window", size_t{16}));
    workers_ = spec.value("workers", uint64_t{1});
    BASIN_ASSIGN_OR_RETURN(work_, RowWorkFrom(spec));
    most_pushes_ = work_->MostPushes(workers_) / workers_;
    pushes_.assign(RowWork::kBatches, 0);
    flying_.assign(window_, nullptr);
    started_.resize(window_);
    BASIN_ASSIGN_OR_RETURN(gradients_, Floats::Make(work_->batch() * work_->dim()));
    std::ranges::copy(work_->Gradients(), gradients_.data());
    if (pulls_) {
      BASIN_ASSIGN_OR_RETURN(pulled_, Floats::Make(window_ * work_->batch() * work_->dim()));
    }
    BASIN_ASSIGN_OR_RETURN(client_, ConnectAsTold(spec));
    BASIN_ASSIGN_OR_RETURN(before_, CountsOf(*client_));
    BASIN_RETURN_IF_ERROR(Declare());
    for (size_t i = 0; i < work_->fills(); ++i) BASIN_RETURN_IF_ERROR(Finished(Call(work_->fill(i), nullptr)));
    for (size_t b = 0; b < RowWork::kBatches; ++b) {
      BASIN_RETURN_IF_ERROR(Finished(Call(work_->keys(b), nullptr)));
      ++pushes_[b];
    }
    return Json{{"chief", client_->is_chief()}};
  }

  absl::StatusOr<Json> Do(const Json& command) override {
    const std::string what = command.value("do", "");
    if (what == "round") return Round(command.value("seconds", 0.5));
    if (what == "counts") return Json{{"pushes", pushes_}};
    if (what == "verify") return Verify(command);
    if (what == "plant") {  // a push that is counted nowhere
      BASIN_RETURN_IF_ERROR(Finished(Call(work_->keys(0), nullptr)));
      return Json::object();
    }
    if (what != "finish") return absl::InvalidArgumentError(absl::StrCat("a table task cannot ", what));
    BASIN_RETURN_IF_ERROR(FromLibrary(client_->Finish()));
    client_.reset();
    return Json::object();
  }

 private:
  absl::Status Declare() {
    const std::unique_ptr<basin_model, void (*)(basin_model*)> model(basin_model_new(), basin_model_free);
    basin_status status = {};
    basin_rule rule;
    basin_rule_init(&rule, sizeof(rule), BASIN_RULE_SGD, ExactRule(RuleKind::kSgd).learning_rate);
    basin_table table = {};
    table.size = sizeof(table);
    table.name = "rows";
    table.dim = work_->dim();
    table.storage = {2, 32, 1};
    table.initializer.kind = BASIN_ZEROS;
    table.rule = &rule;
    int32_t code = basin_model_add_table(model.get(), &table, &table_, &status);
    if (code == BASIN_OK) code = basin_declare(client_->get(), model.get(), &status);
    return FromLibrary(code, status);
  }

  // Pushes, or pulls into `into`.
  absl::StatusOr<basin_call*> Call(absl::Span<const uint64_t> keys, float* into) {
    basin_rows rows = {};
    rows.size = sizeof(rows);
    rows.table = table_;
    rows.keys = keys.data();
    rows.count = keys.size();
    rows.push = into == nullptr ? gradients_.data() : nullptr;
    rows.pull = into;
    basin_status status = {};
    basin_call* call = nullptr;
    BASIN_RETURN_IF_ERROR(FromLibrary(basin_start_rows(client_->get(), &rows, 1, &call, &status), status));
    return call;
  }

  static absl::Status Finished(absl::StatusOr<basin_call*> call) {
    BASIN_RETURN_IF_ERROR(call.status());
    basin_status status = {};
    const int32_t code = basin_call_wait(*call, -1, &status);
    basin_call_free(*call);
    return FromLibrary(code, status);
  }

  float* Pulled(uint64_t call) { return pulled_.data() + call % window_ * work_->batch() * work_->dim(); }

  absl::StatusOr<Json> Round(double seconds) {
    LatencySample latencies;
    const uint64_t first = next_;
    uint64_t done = next_;
    const auto end_oldest = [&]() -> absl::Status {
      BASIN_RETURN_IF_ERROR(Finished(std::exchange(flying_[done % window_], nullptr)));
      latencies.Add(SecondsSince(started_[done++ % window_]) * 1e6);
      return absl::OkStatus();
    };
    if (pulls_) std::fill_n(pulled_.data(), pulled_.size(), std::numeric_limits<float>::quiet_NaN());
    const Clock::time_point start = Clock::now();
    do {
      const size_t batch = next_ % RowWork::kBatches;
      // Past the numbers that float32 adds exactly the sums would prove nothing: the round ends early.
      if (!pulls_ && pushes_[batch] >= most_pushes_) break;
      if (next_ - done == window_) BASIN_RETURN_IF_ERROR(end_oldest());
      started_[next_ % window_] = Clock::now();
      BASIN_ASSIGN_OR_RETURN(flying_[next_ % window_], Call(work_->keys(batch), pulls_ ? Pulled(next_) : nullptr));
      if (!pulls_) ++pushes_[batch];
      ++next_;
    } while (SecondsSince(start) < seconds);
    while (done < next_) BASIN_RETURN_IF_ERROR(end_oldest());
    const double took = SecondsSince(start);
    const uint64_t calls = next_ - first;
    if (calls == 0) return absl::ResourceExhaustedError("no push is left that float32 adds exactly; use less time");
    pulled_calls_ = calls;
    return Json{{"calls", calls},
                {"updates", calls * work_->batch()},
                {"bytes", calls * work_->batch() * work_->dim() * sizeof(float)},
                {"seconds", took},
                {"p50_us", Percentile(latencies.values(), 0.5)},
                {"p99_us", Percentile(latencies.values(), 0.99)}};
  }

  // Every row, against how often it was pushed; what the last round pulled; and the servers' counts.
  absl::StatusOr<Json> Verify(const Json& command) {
    const auto pushes = command.value("pushes", std::vector<uint64_t>());
    if (pushes.size() != RowWork::kBatches)
      return absl::InvalidArgumentError("verify: one count of pushes for each batch is needed");
    const std::vector<float> expected = work_->Expected(pushes, workers_);
    const uint64_t still_there = pulls_ ? std::min<uint64_t>(pulled_calls_, window_) : 0;
    for (uint64_t call = next_ - still_there; call < next_; ++call) {
      BASIN_RETURN_IF_ERROR(
          work_->Check(expected, work_->keys(call % RowWork::kBatches), {Pulled(call), work_->batch() * work_->dim()}));
    }
    const absl::Span<const uint64_t> all = work_->all_keys();
    for (size_t at = 0; at < all.size(); at += kRowsOfACheck) {
      const absl::Span<const uint64_t> keys = all.subspan(at, kRowsOfACheck);
      std::vector<float> values(keys.size() * work_->dim(), std::numeric_limits<float>::quiet_NaN());
      BASIN_RETURN_IF_ERROR(Finished(Call(keys, values.data())));
      BASIN_RETURN_IF_ERROR(work_->Check(expected, keys, values));
    }
    BASIN_ASSIGN_OR_RETURN(const ServerCounts counts, CountsOf(*client_));
    BASIN_RETURN_IF_ERROR(CheckTransport(counts, spec_.value("transport", "tcp"), spec_.value("alone", true)));
    if (counts.rows - before_.rows != all.size()) {
      return absl::DataLossError(absl::StrCat("the parameter servers hold ", counts.rows - before_.rows,
                                              " rows, and pushes were sent to ", all.size()));
    }
    basin_task task = {};
    task.size = sizeof(task);
    basin_get_task(client_->get(), &task);
    const uint64_t sent = work_->Updates(pushes, workers_, static_cast<int>(task.ps_count));
    BASIN_RETURN_IF_ERROR(CheckApplied(counts.applied - before_.applied, sent));
    return Json{{"applied", sent}, {"rows", all.size()}};
  }

  Json spec_;
  bool pulls_ = false;
  uint32_t table_ = 0;
  size_t window_ = 1;
  uint64_t workers_ = 1, most_pushes_ = 0;
  std::optional<RowWork> work_;
  std::optional<Client> client_;
  ServerCounts before_;
  Floats gradients_, pulled_;     // [batch, dim]; [window, batch, dim]
  std::vector<uint64_t> pushes_;  // of each batch, by this worker
  // Call number n is of batch n % kBatches, and of slot n % window_.
  uint64_t next_ = 0, pulled_calls_ = 0;
  std::vector<basin_call*> flying_;
  std::vector<Clock::time_point> started_;
};

}  // namespace

std::unique_ptr<Task> MakeTableTask() { return std::make_unique<TableTask>(); }

}  // namespace basin::bench
