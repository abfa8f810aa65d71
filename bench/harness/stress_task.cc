// Some workers of a stress run in one process: a client and a thread each, so that killing the process kills several.
#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <limits>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/harness/connection.h"
#include "bench/harness/exact_sums.h"
#include "bench/harness/stress_spec.h"
#include "bench/harness/tallies.h"
#include "bench/harness/task.h"
#include "common/base/random.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

constexpr size_t kCallsInFlight = 4;
constexpr double kPullShare = 0.25;

// One client and what it does until the time is over: every call pushes to the worker's own variable and to a shared
// one, and some pull that one too.
class StressWorker {
 public:
  StressWorker(const StressPlan& plan, Tallies& tallies, uint32_t index, uint64_t seed, std::vector<Floats>& gradients)
      : plan_(plan), tallies_(tallies), index_(index), random_(seed), gradients_(gradients) {}

  absl::Status Connect(const Json& spec, const std::string& tf_config) {
    Options options = Options::FromEnvironment();
    options.tf_config = tf_config;
    options.transport = spec.value("transport", "tcp");
    options.log = false;
    options.start_timeout = options.unreachable_timeout = options.claim_timeout =
        std::chrono::duration<double>(spec.value("patience_s", 60.0));
    basin::Result<Client> client = Client::Connect(options);
    if (!client.ok()) return FromLibrary(client.status());
    client_.emplace(std::move(*client));
    Model model;
    for (const PlacedVariable& variable : plan_.placement().variables())
      variables_.push_back(model.Dense(variable.name, variable.shape, Zeros()));
    model.SetRule(ToLibrary(ExactRule(RuleKind::kSgd)));
    BASIN_RETURN_IF_ERROR(FromLibrary(client_->Declare(model)));
    BASIN_ASSIGN_OR_RETURN(own_, Floats::Make(kOwnBytes / sizeof(float)));
    FillGradient(index_, {own_.data(), own_.size()});
    for (auto& target : pulled_) target.resize(kSharedBytes[std::size(kSharedBytes) - 1] / sizeof(float));
    return absl::OkStatus();
  }

  void RunUntil(Clock::time_point end) {
    while (Clock::now() < end && status_.ok()) {
      if (flying_.size() == kCallsInFlight) Finish(flying_.front());
      StartOne();
    }
    while (!flying_.empty()) Finish(flying_.front());
  }

  Client& client() { return *client_; }
  uint32_t index() const { return index_; }
  const absl::Status& status() const { return status_; }
  uint64_t calls() const { return calls_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t errors() const { return errors_; }

 private:
  struct Flying {
    Call call;
    uint32_t shared = 0;
    uint64_t bytes = 0;
  };

  uint64_t SentByAll(uint32_t i) {
    uint64_t sum = 0;
    for (uint32_t worker = 0; worker < plan_.options().workers; ++worker) sum += tallies_.sent(worker, i).load();
    return sum;
  }

  void StartOne() {
    const auto shared = static_cast<uint32_t>(random_.Below(plan_.shared()));
    const uint32_t variable = plan_.options().workers + shared;
    const bool pull = random_.Chance(kPullShare);
    // Float32 adds whole numbers exactly up to a bound; near it a variable is left alone. (Looked at now and then: the
    // others cannot send so many meanwhile.)
    if (calls_ % 256 == 0) {
      exhausted_.assign(plan_.shared() + 1, false);
      for (uint32_t i = 1; i <= plan_.shared(); ++i) exhausted_[i] = SentByAll(i) > kMostPushes / 2;
      exhausted_[0] = tallies_.sent(index_, 0).load() > kMostPushes / 2;
    }
    Floats& gradient = gradients_[shared];
    std::vector<Source> push;
    std::vector<Target> into;
    uint64_t bytes = 0;
    if (!exhausted_[0]) push.emplace_back(variables_[index_], own_.data(), own_.size());
    if (!exhausted_[1 + shared]) push.emplace_back(variables_[variable], gradient.data(), gradient.size());
    if (pull || push.empty())
      into.emplace_back(variables_[variable], pulled_[calls_ % kCallsInFlight].data(), gradient.size());
    for (const Source& source : push) bytes += source.elements * sizeof(float);
    for (const Target& target : into) bytes += target.elements * sizeof(float);
    // Before it leaves: what was sent is never more than what is counted, whenever this process is killed.
    if (!exhausted_[0]) ++tallies_.sent(index_, 0);
    if (!exhausted_[1 + shared]) ++tallies_.sent(index_, 1 + shared);
    ++calls_;
    flying_.push_back(
        {into.empty() ? client_->Push(push) : client_->PushPull(push, into),
         static_cast<uint32_t>((exhausted_[0] ? 0 : kOwn) | (exhausted_[1 + shared] ? 0 : kShared)) | shared, bytes});
  }

  void Finish(Flying& oldest) {
    if (const absl::Status status = FromLibrary(oldest.call.Wait()); !status.ok()) {
      ++errors_;
      if (status_.ok()) status_ = status;
    } else {
      if (oldest.shared & kOwn) ++tallies_.acknowledged(index_, 0);
      if (oldest.shared & kShared) ++tallies_.acknowledged(index_, 1 + (oldest.shared & ~(kOwn | kShared)));
      bytes_ += oldest.bytes;
    }
    flying_.pop_front();
  }

  static constexpr uint32_t kOwn = 1u << 31, kShared = 1u << 30;  // which of the two a call pushed to

  const StressPlan& plan_;
  Tallies& tallies_;
  const uint32_t index_;
  Random random_;
  std::vector<Floats>& gradients_;  // of the shared variables; only read, by all workers of the process
  std::optional<Client> client_;
  std::vector<Variable> variables_;
  Floats own_;
  std::array<std::vector<float>, kCallsInFlight> pulled_;
  std::vector<bool> exhausted_;
  std::deque<Flying> flying_;
  absl::Status status_;
  uint64_t calls_ = 0, bytes_ = 0, errors_ = 0;
};

// spec: stress_spec.h, "process", "tallies" (descriptor), "life" (0, or more for replacements), "tf_configs" of its
// workers, "patience_s". Commands:
//   run      until "end_s" of the steady clock: what each worker has done
//   verify   (the process of the chief) pulls everything and compares it with the tallies
//   finish   all workers leave; the chief ends the run
class StressTask final : public Task {
 public:
  absl::StatusOr<Json> Start(const Json& spec) override {
    BASIN_ASSIGN_OR_RETURN(StressPlan plan, StressPlan::Make(StressOptionsFrom(spec)));
    plan_.emplace(std::move(plan));
    BASIN_ASSIGN_OR_RETURN(Tallies tallies, Tallies::Inherit(*plan_, spec.value("tallies", -1)));
    tallies_.emplace(std::move(tallies));
    for (uint32_t i = 0; i < plan_->shared(); ++i) {
      const uint32_t variable = plan_->options().workers + i;
      BASIN_ASSIGN_OR_RETURN(Floats floats, Floats::Make(plan_->placement().variables()[variable].elements()));
      FillGradient(variable, {floats.data(), floats.size()});
      gradients_.push_back(std::move(floats));
    }
    const auto configs = spec.value("tf_configs", std::vector<std::string>());
    const auto [begin, end] = plan_->workers_of(spec.value("process", 0u));
    if (configs.size() != end - begin)
      return absl::InvalidArgumentError("a stress task needs a TF_CONFIG for each worker");
    std::vector<absl::Status> statuses(configs.size());
    std::vector<std::thread> threads;
    for (uint32_t index = begin; index < end; ++index) {
      const uint64_t seed = RandomAt(plan_->options().seed, (spec.value("life", uint64_t{0}) << 32) + index);
      StressWorker& worker =
          *workers_.emplace_back(std::make_unique<StressWorker>(*plan_, *tallies_, index, seed, gradients_));
      threads.emplace_back([&, at = index - begin] { statuses[at] = worker.Connect(spec, configs[at]); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& status : statuses) BASIN_RETURN_IF_ERROR(status);
    if (begin == 0) {
      BASIN_ASSIGN_OR_RETURN(before_, CountsOf(workers_[0]->client()));
    }
    return Json::object();
  }

  absl::StatusOr<Json> Do(const Json& command) override {
    const std::string what = command.value("do", "");
    if (what == "run") return RunUntil(command.value("end_s", 0.0));
    if (what == "verify") return Verify();
    if (what != "finish") return absl::InvalidArgumentError(absl::StrCat("a stress task cannot ", what));
    for (size_t i = workers_.size(); i-- > 0;) BASIN_RETURN_IF_ERROR(FromLibrary(workers_[i]->client().Finish()));
    workers_.clear();
    return Json::object();
  }

 private:
  absl::StatusOr<Json> RunUntil(double end_s) {
    const Clock::time_point end(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(end_s)));
    std::vector<std::thread> threads;
    for (const auto& worker : workers_) threads.emplace_back([&] { worker->RunUntil(end); });
    for (std::thread& thread : threads) thread.join();
    Json answer = {{"workers", Json::array()}};
    for (const auto& worker : workers_) {
      answer["workers"].push_back({{"index", worker->index()},
                                   {"calls", worker->calls()},
                                   {"bytes", worker->bytes()},
                                   {"errors", worker->errors()},
                                   {"first_error", std::string(worker->status().message())}});
    }
    return answer;
  }

  absl::StatusOr<Json> Verify() {
    Client& client = workers_[0]->client();
    const std::vector<Bounds> bounds = BoundsOf(*plan_, tallies_->Read(plan_->options().workers));
    const auto& variables = plan_->placement().variables();
    std::vector<float> values;
    uint64_t exact = 0;
    for (uint32_t v = 0; v < variables.size(); ++v) {
      values.assign(variables[v].elements(), std::numeric_limits<float>::quiet_NaN());
      const Variable variable{v, variables[v].shape};
      BASIN_RETURN_IF_ERROR(FromLibrary(client.Pull({{variable, values}}).Wait()));
      BASIN_RETURN_IF_ERROR(CheckWithin(*plan_, v, bounds[v], values));
      if (bounds[v].least == bounds[v].most) ++exact;
    }
    BASIN_ASSIGN_OR_RETURN(const ServerCounts counts, CountsOf(client));
    BASIN_RETURN_IF_ERROR(CheckAppliedWithin(*plan_, bounds, counts.applied - before_.applied));
    return Json{{"variables", variables.size()}, {"exact", exact}, {"applied", counts.applied - before_.applied}};
  }

  std::optional<StressPlan> plan_;
  std::optional<Tallies> tallies_;
  std::vector<Floats> gradients_;
  std::vector<std::unique_ptr<StressWorker>> workers_;
  ServerCounts before_;
};

}  // namespace

std::unique_ptr<Task> MakeStressTask() { return std::make_unique<StressTask>(); }

}  // namespace basin::bench
