// A worker that pushes and pulls dense variables as fast as it can, and checks at the end what has come of it.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/harness/connection.h"
#include "bench/harness/exact_sums.h"
#include "bench/harness/statistics.h"
#include "bench/harness/task.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

// spec: "op": "push", "pull" or "pushpull"; "bytes" of a variable; "variables" in the model; "call_variables" of one
// call (the calls go round through the model); "window": calls in flight, 1: each is waited for; "rule"; "workers" that
// do the same; "transport", as named; "gradient_dtype": what gradients are sent as, which counts as many bytes as
// float32; "alone": nobody else uses the servers. Commands, in this order:
//   round    calls for "seconds", and waits until all are acknowledged: "calls", "updates" (of a variable), "bytes",
//            "seconds", "p50_us", "p99_us"
//   counts   "pushes": of each variable, by this worker
//   verify   with "pushes" of all workers together: pulls and compares everything, and the servers' counts
//   finish   leaves the run; the chief ends it
class DenseTask final : public Task {
 public:
  ~DenseTask() override {
    for (basin_call* call : flying_) basin_call_free(call);
  }
  absl::StatusOr<Json> Start(const Json& spec) override;
  absl::StatusOr<Json> Do(const Json& command) override {
    const std::string what = command.value("do", "");
    if (what == "round") return Round(command.value("seconds", 0.5));
    if (what == "counts") return Json{{"pushes", pushes_}};
    if (what == "verify") return Verify(command);
    if (what == "plant") return PlantPush();
    if (what != "finish") return absl::InvalidArgumentError(absl::StrCat("a dense task cannot ", what));
    BASIN_RETURN_IF_ERROR(FromLibrary(client_->Finish()));
    client_.reset();
    return Json::object();
  }

 private:
  absl::Status Declare();
  absl::Status MakeCalls();
  absl::Status PushOnce();
  absl::StatusOr<Json> PlantPush();
  absl::StatusOr<Json> Round(double seconds);
  absl::StatusOr<Json> Verify(const Json& command);
  absl::Status StartCall();
  absl::Status WaitOldest();
  absl::Status CheckPulled(uint64_t first);
  const std::vector<float>& Expected(uint64_t pushes);

  bool pushing() const { return op_ != "pull"; }
  bool pulling() const { return op_ != "push"; }
  size_t groups() const { return variables_ / call_variables_; }
  size_t slots() const { return (window_ + groups() - 1) / groups() * groups(); }
  float* Part(Floats& floats, size_t slot, size_t i) {
    return floats.data() + (slot * call_variables_ + i) * elements_;
  }

  std::string op_, transport_;
  bool alone_ = true;
  size_t elements_ = 0, variables_ = 0, call_variables_ = 1, window_ = 1;
  uint64_t workers_ = 1, most_pushes_ = kMostPushes;
  RuleSpec rule_;
  std::optional<Client> client_;
  ServerCounts before_;
  std::vector<uint64_t> pushes_;  // by variable
  std::map<uint64_t, std::vector<float>> expected_;

  // Call number n is of slot n % slots(), and of group n % groups(). A slot has buffers of its own, and is used again
  // only when its call before is done: there are at least as many slots as calls in flight.
  Floats gradients_, pulled_;
  int64_t shape_ = 0;
  std::vector<basin_tensor> tensors_;
  std::vector<basin_item> items_;
  std::vector<basin_call*> flying_;         // ring of the last window_ calls
  std::vector<Clock::time_point> started_;  // of those whose latency is taken
  uint64_t next_ = 0, oldest_ = 0;
  uint64_t latency_every_ = 1;
  LatencySample latencies_;
};

absl::StatusOr<Json> DenseTask::Start(const Json& spec) {
  op_ = spec.value("op", "push");
  transport_ = spec.value("transport", "tcp");
  alone_ = spec.value("alone", true);
  elements_ = spec.value("bytes", size_t{1} << 20) / sizeof(float);
  variables_ = spec.value("variables", size_t{64});
  call_variables_ = spec.value("call_variables", size_t{1});
  window_ = std::max<size_t>(1, spec.value("window", size_t{16}));
  workers_ = spec.value("workers", uint64_t{1});
  if (elements_ == 0 || variables_ == 0 || call_variables_ == 0 || variables_ % call_variables_ != 0) {
    return absl::InvalidArgumentError(absl::StrCat(variables_, " variables of ", elements_ * sizeof(float),
                                                   " bytes cannot be moved ", call_variables_, " a call"));
  }
  const std::optional<RuleKind> kind = RuleKindFromName(spec.value("rule", "sgd"));
  if (!kind) return absl::InvalidArgumentError(absl::StrCat("there is no rule ", spec.value("rule", "")));
  rule_ = ExactRule(*kind);
  // Reading the clock for each of millions of calls would show.
  latency_every_ = window_ > 1 && elements_ * call_variables_ < 8192 ? 64 : 1;
  most_pushes_ = kMostPushes / workers_ - 1;
  pushes_.assign(variables_, 0);
  BASIN_ASSIGN_OR_RETURN(client_, ConnectAsTold(spec));
  BASIN_ASSIGN_OR_RETURN(before_, CountsOf(*client_));
  BASIN_RETURN_IF_ERROR(Declare());
  BASIN_RETURN_IF_ERROR(MakeCalls());
  BASIN_RETURN_IF_ERROR(PushOnce());
  return Json{{"chief", client_->is_chief()}};
}

absl::Status DenseTask::Declare() {
  Model model;
  for (size_t v = 0; v < variables_; ++v)
    (void)model.Dense(absl::StrCat("v", v), {static_cast<int64_t>(elements_)}, Zeros());
  model.SetRule(ToLibrary(rule_));
  return FromLibrary(client_->Declare(model));
}

absl::Status DenseTask::MakeCalls() {
  shape_ = static_cast<int64_t>(elements_);
  const size_t parts = slots() * call_variables_;
  const auto tensor = [&](float* data) {
    return basin_tensor{.data = data,
                        .device = {1, 0},
                        .ndim = 1,
                        .dtype = {2, 32, 1},
                        .shape = &shape_,
                        .strides = nullptr,
                        .byte_offset = 0};
  };
  BASIN_ASSIGN_OR_RETURN(gradients_, Floats::Make(parts * elements_));
  if (pulling()) {
    BASIN_ASSIGN_OR_RETURN(pulled_, Floats::Make(parts * elements_));
  }
  tensors_.reserve(2 * parts);
  for (size_t slot = 0; slot < slots(); ++slot) {
    for (size_t i = 0; i < call_variables_; ++i) {
      const auto variable = static_cast<uint32_t>(slot % groups() * call_variables_ + i);
      basin_item item = {.variable = variable, .push = nullptr, .assign = nullptr, .pull = nullptr};
      FillGradient(variable, {Part(gradients_, slot, i), elements_});
      if (pushing()) item.push = &tensors_.emplace_back(tensor(Part(gradients_, slot, i)));
      if (pulling()) item.pull = &tensors_.emplace_back(tensor(Part(pulled_, slot, i)));
      items_.push_back(item);
    }
  }
  flying_.assign(window_, nullptr);
  started_.assign(window_, {});
  return absl::OkStatus();
}

// So that what is pulled is not zeros; and all that is done once is done before the first round.
absl::Status DenseTask::PushOnce() {
  for (size_t v = 0; v < variables_; ++v) {
    const size_t slot = v / call_variables_, i = v % call_variables_;
    const Variable variable{static_cast<uint32_t>(v), {shape_}};
    BASIN_RETURN_IF_ERROR(FromLibrary(client_->Push({Source(variable, Part(gradients_, slot, i), elements_)}).Wait()));
    ++pushes_[v];
  }
  return absl::OkStatus();
}

// A push that is counted nowhere: what the checks at the end must find.
absl::StatusOr<Json> DenseTask::PlantPush() {
  const Variable variable{0, {shape_}};
  BASIN_RETURN_IF_ERROR(FromLibrary(client_->Push({Source(variable, Part(gradients_, 0, 0), elements_)}).Wait()));
  return Json::object();
}

absl::Status DenseTask::StartCall() {
  const size_t ring = next_ % window_, slot = next_ % slots(), group = next_ % groups();
  if (next_ % latency_every_ == 0) started_[ring] = Clock::now();
  basin_status status;
  const int32_t code =
      basin_start(client_->get(), &items_[slot * call_variables_], call_variables_, &flying_[ring], &status);
  if (code != BASIN_OK) return FromLibrary(code, status);
  if (pushing()) {
    for (size_t i = 0; i < call_variables_; ++i) ++pushes_[group * call_variables_ + i];
  }
  ++next_;
  return absl::OkStatus();
}

absl::Status DenseTask::WaitOldest() {
  const size_t ring = oldest_ % window_;
  basin_status status;
  const int32_t code = basin_call_wait(flying_[ring], -1, &status);
  if (oldest_ % latency_every_ == 0) latencies_.Add(SecondsSince(started_[ring]) * 1e6);
  basin_call_free(flying_[ring]);
  flying_[ring] = nullptr;
  ++oldest_;
  return FromLibrary(code, status);
}

absl::StatusOr<Json> DenseTask::Round(double seconds) {
  latencies_.Clear();
  if (pulling()) std::fill_n(pulled_.data(), pulled_.size(), std::numeric_limits<float>::quiet_NaN());
  const uint64_t look_every = elements_ * call_variables_ * sizeof(float) >= 65536 ? 1 : 16;
  const uint64_t first = next_;
  const Clock::time_point start = Clock::now();
  for (uint64_t n = 0;; ++n) {
    if (n % look_every == 0 && n > 0 && SecondsSince(start) >= seconds) break;
    // Past the numbers that float32 adds exactly the sums would prove nothing: the round ends early.
    if (pushing() && pushes_[next_ % groups() * call_variables_] >= most_pushes_) break;
    if (next_ - oldest_ == window_) BASIN_RETURN_IF_ERROR(WaitOldest());
    BASIN_RETURN_IF_ERROR(StartCall());
  }
  while (oldest_ < next_) BASIN_RETURN_IF_ERROR(WaitOldest());
  const double took = SecondsSince(start);
  const uint64_t calls = next_ - first, updates = calls * call_variables_;
  if (calls == 0)
    return absl::ResourceExhaustedError("no push is left that float32 adds exactly; use more variables or less time");
  if (op_ == "pull") BASIN_RETURN_IF_ERROR(CheckPulled(first));
  return Json{{"calls", calls},
              {"updates", updates},
              {"bytes", updates * elements_ * sizeof(float) * (op_ == "pushpull" ? 2 : 1)},
              {"seconds", took},
              {"p50_us", Percentile(latencies_.values(), 0.5)},
              {"p99_us", Percentile(latencies_.values(), 0.99)}};
}

// Every buffer that a round pulled into, whose first call was number `first`.
absl::Status DenseTask::CheckPulled(uint64_t first) {
  for (uint64_t call = std::max(first, next_ - std::min<uint64_t>(next_, slots())); call < next_; ++call) {
    for (size_t i = 0; i < call_variables_; ++i) {
      const auto variable = static_cast<uint32_t>(call % groups() * call_variables_ + i);
      BASIN_RETURN_IF_ERROR(CheckVariable(absl::StrCat("v", variable), variable, Expected(workers_),
                                          {Part(pulled_, call % slots(), i), elements_}));
    }
  }
  return absl::OkStatus();
}

const std::vector<float>& DenseTask::Expected(uint64_t pushes) {
  std::vector<float>& found = expected_[pushes];
  if (found.empty()) found = ExpectedAfter(rule_, pushes);
  return found;
}

absl::StatusOr<Json> DenseTask::Verify(const Json& command) {
  const auto pushes = command.value("pushes", std::vector<uint64_t>());
  if (pushes.size() != variables_)
    return absl::InvalidArgumentError("verify: one count of pushes for each variable is needed");
  uint64_t sent = 0;
  std::vector<float> values(elements_);
  for (size_t v = 0; v < variables_; ++v) {
    const Variable variable{static_cast<uint32_t>(v), {shape_}};
    std::fill(values.begin(), values.end(), std::numeric_limits<float>::quiet_NaN());
    BASIN_RETURN_IF_ERROR(FromLibrary(client_->Pull({{variable, values}}).Wait()));
    BASIN_RETURN_IF_ERROR(CheckVariable(absl::StrCat("v", v), static_cast<uint32_t>(v), Expected(pushes[v]), values));
    sent += pushes[v];
  }
  BASIN_ASSIGN_OR_RETURN(const ServerCounts counts, CountsOf(*client_));
  BASIN_RETURN_IF_ERROR(CheckTransport(counts, transport_, alone_));
  if (counts.shards % variables_ != 0)
    return absl::InternalError(absl::StrCat(counts.shards, " shards for ", variables_, " equal variables"));
  BASIN_RETURN_IF_ERROR(CheckApplied(counts.applied - before_.applied, sent * (counts.shards / variables_)));
  return Json{{"applied", counts.applied - before_.applied}};
}

}  // namespace

std::unique_ptr<Task> MakeDenseTask() { return std::make_unique<DenseTask>(); }

}  // namespace basin::bench
