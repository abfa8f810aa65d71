#include "bench/harness/stress.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <csignal>
#include <cstdio>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bench/harness/machine.h"
#include "bench/harness/statistics.h"
#include "bench/harness/stress_spec.h"
#include "bench/harness/tallies.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

constexpr double kDeadAfterSeconds = 5;  // a replacement waits until its predecessor counts as dead
constexpr double kPatienceSeconds = 60;
constexpr double kFairEnough = 0.5;

class Stress {
 public:
  Stress(const Flags& flags, const TwoHosts* hosts, StressPlan plan, Tallies tallies, TemporaryFolder folder,
         const std::function<void(const std::string&)>& progress)
      : flags_(flags),
        hosts_(hosts),
        plan_(std::move(plan)),
        tallies_(std::move(tallies)),
        folder_(std::move(folder)),
        progress_(progress),
        lives_(plan_.processes()) {}

  absl::Status Run() {
    ClusterOptions options = ClusterFrom(flags_, hosts_);
    options.dead_after_s = kDeadAfterSeconds;
    BASIN_ASSIGN_OR_RETURN(cluster_, Cluster::Start(options, folder_.path()));
    BASIN_RETURN_IF_ERROR(StartProxies());
    for (uint32_t process = 0; process < plan_.processes(); ++process) BASIN_RETURN_IF_ERROR(StartProcess(process, 0));
    for (auto& process : processes_) BASIN_RETURN_IF_ERROR(Answer(*process).status());
    BASIN_RETURN_IF_ERROR(Storm());
    BASIN_RETURN_IF_ERROR(Gather());
    return Verify();
  }

  absl::Status Print() {
    const double seconds = plan_.options().seconds;
    const std::string suffix = absl::StrCat("/workers:", plan_.options().workers);
    std::vector<Result> results;
    const auto add = [&](const std::string& name, double value, const std::string& unit) -> Result& {
      Result& result = results.emplace_back();
      result.name = absl::StrCat("stress_", name, suffix);
      result.value = value;
      result.unit = unit;
      return result;
    };
    Result& throughput = add("throughput", static_cast<double>(bytes_) / seconds / 1e9, "GB/s");
    throughput.cpu_s_per_gb =
        bytes_ > 0 ? std::optional(cpu_seconds_ / (static_cast<double>(bytes_) / 1e9)) : std::nullopt;
    throughput.peak_rss_bytes = peak_rss_bytes_;
    add("calls", static_cast<double>(calls_) / seconds / 1e6, "M/s");
    add("errors", static_cast<double>(errors_), "count");
    Result& fairness = add("fairness", fairness_, "slowest/mean");
    fairness.limit_name = "equal shares";
    fairness.limit = 1;
    fairness.goal = Goal{.ratio = kFairEnough};
    std::printf("%s%s", verdict_.c_str(), Table(results).c_str());
    std::fflush(stdout);
    if (flags_.json.empty()) return absl::OkStatus();
    return WriteFileAtomically(flags_.json, ToJson(MachineFacts(), results).dump(2) + "\n");
  }

 private:
  absl::Status StartProxies() {
    addresses_ = cluster_->addresses();
    if (!flags_.cut) return absl::OkStatus();
    for (size_t ps = 0; ps < addresses_.size(); ++ps) {
      TaskOptions options;
      options.name = absl::StrCat("cutting proxy of ps ", ps);
      options.network = cluster_->worker_network();
      const Json spec = {{"kind", "proxy"}, {"target", addresses_[ps]}, {"seed", plan_.options().seed + ps}};
      BASIN_ASSIGN_OR_RETURN(std::unique_ptr<TaskProcess> proxy, TaskProcess::Start(options, spec));
      BASIN_ASSIGN_OR_RETURN(const Json answer, proxy->Answer());
      addresses_[ps] = absl::StrCat("127.0.0.1:", answer.value("port", 0));
      proxies_.push_back(std::move(proxy));
    }
    return absl::OkStatus();
  }

  absl::Status StartProcess(uint32_t process, uint64_t life) {
    Json spec = ToSpec(plan_.options());
    spec["kind"] = "stress";
    spec["process"] = process;
    spec["life"] = life;
    spec["tallies"] = tallies_.fd();
    spec["transport"] = flags_.transport;
    spec["patience_s"] = kPatienceSeconds;
    std::vector<std::string> configs;
    TaskOptions options;
    const auto [begin, end] = plan_.workers_of(process);
    for (uint32_t worker = begin; worker < end; ++worker) {
      BASIN_ASSIGN_OR_RETURN(options.environment, cluster_->EnvironmentThrough(static_cast<int>(worker), addresses_));
      configs.push_back(options.environment[0].second);
    }
    spec["tf_configs"] = configs;
    options.name = absl::StrCat("workers ", begin, " to ", end - 1);
    options.network = cluster_->worker_network();
    options.log = absl::StrCat(folder_.path(), "/workers-", process, "-", life, ".log");
    options.inherited = {tallies_.fd()};
    if (processes_.size() <= process) processes_.resize(process + 1);
    BASIN_ASSIGN_OR_RETURN(processes_[process], TaskProcess::Start(options, spec));
    lives_[process] = life;
    return absl::OkStatus();
  }

  absl::StatusOr<Json> Answer(TaskProcess& task) {
    return task.Answer(absl::Seconds(plan_.options().seconds + 3 * kPatienceSeconds),
                       [this] { return cluster_->Healthy(); });
  }

  static double Now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

  // The time in which they work, and some die.
  absl::Status Storm() {
    const double start = Now(), end = start + plan_.options().seconds;
    const Json command = {{"do", "run"}, {"end_s", end}};
    for (auto& process : processes_) BASIN_RETURN_IF_ERROR(process->Tell(command));
    for (const Kill& kill : plan_.kills()) {
      BASIN_RETURN_IF_ERROR(WaitUntil(start + kill.at_s, start));
      if (processes_[kill.process] == nullptr) continue;  // it was not replaced
      processes_[kill.process]->process().Signal(SIGKILL);
      processes_[kill.process].reset();
      killed_.insert(kill.process);
      if (!kill.replaced) continue;
      BASIN_RETURN_IF_ERROR(StartProcess(kill.process, lives_[kill.process] + 1));
      BASIN_RETURN_IF_ERROR(processes_[kill.process]->Tell(command));
      unanswered_.insert(kill.process);  // of its specification
      ++replaced_;
    }
    BASIN_RETURN_IF_ERROR(WaitUntil(end, start));
    // What is under way shall come to an end.
    for (const auto& proxy : proxies_) {
      BASIN_ASSIGN_OR_RETURN(const Json answer, proxy->Ask({{"do", "calm"}}));
      cuts_ += answer.value("cuts", uint64_t{0});
    }
    return absl::OkStatus();
  }

  absl::Status WaitUntil(double moment, double start) {
    for (double now; (now = Now()) < moment;) {
      BASIN_RETURN_IF_ERROR(Interrupted());
      BASIN_RETURN_IF_ERROR(cluster_->Healthy());
      progress_(absl::StrFormat("stress: %.0f of %.0f s, %d processes of workers killed, %d replaced", now - start,
                                plan_.options().seconds, killed_.size(), replaced_));
      absl::SleepFor(absl::Seconds(std::min(moment - now, 0.1)));
    }
    return absl::OkStatus();
  }

  absl::Status Gather() {
    std::vector<double> survivors;
    std::string first_error;
    for (uint32_t process = 0; process < processes_.size(); ++process) {
      if (processes_[process] == nullptr) continue;
      const bool replacement = unanswered_.contains(process);
      if (replacement && lives_[process] > 0) BASIN_RETURN_IF_ERROR(Answer(*processes_[process]).status());
      BASIN_ASSIGN_OR_RETURN(const Json answer, Answer(*processes_[process]));
      for (const Json& worker : answer["workers"]) {
        bytes_ += worker.value("bytes", uint64_t{0});
        errors_ += worker.value("errors", uint64_t{0});
        if (first_error.empty() && worker.value("errors", 0) > 0)
          first_error = absl::StrCat("worker ", worker.value("index", 0), ": ", worker.value("first_error", ""));
        if (!killed_.contains(process)) survivors.push_back(worker.value("calls", 0.0));
      }
    }
    const std::vector<Tally> tallies = tallies_.Read(plan_.options().workers);
    for (uint32_t worker = 0; worker < tallies.size(); ++worker) {
      calls_ += tallies[worker].sent[0];  // every call pushes to the worker's own variable, the killed ones' too
      const bool killed = killed_.contains(worker / plan_.options().clients_per_process);
      if (killed || !first_error.empty() || tallies[worker].sent == tallies[worker].acknowledged) continue;
      return absl::DataLossError(
          absl::StrCat("worker ", worker, " was never killed, and not all of its pushes were acknowledged"));
    }
    fairness_ = SlowestOverMean(survivors);
    survivors_ = survivors.size();
    if (!first_error.empty())
      return absl::UnavailableError(absl::StrCat(errors_, " calls of living workers failed; the first: ", first_error));
    return absl::OkStatus();
  }

  absl::Status Verify() {
    BASIN_RETURN_IF_ERROR(processes_[0]->Tell({{"do", "verify"}}));
    BASIN_ASSIGN_OR_RETURN(const Json answer, Answer(*processes_[0]));
    cpu_seconds_ = cluster_->CpuSeconds();
    peak_rss_bytes_ = cluster_->PeakRssBytes();
    for (const auto& process : processes_) {
      if (process != nullptr) cpu_seconds_ += process->process().CpuSeconds();
    }
    for (uint32_t process = static_cast<uint32_t>(processes_.size()); process-- > 0;) {
      if (processes_[process] == nullptr) continue;
      BASIN_RETURN_IF_ERROR(processes_[process]->Tell({{"do", "finish"}}));
      BASIN_RETURN_IF_ERROR(Answer(*processes_[process]).status());
      processes_[process].reset();
    }
    if (cluster_->local()) BASIN_RETURN_IF_ERROR(cluster_->AwaitEnd());
    verdict_ = absl::StrFormat(
        "seed %d, %d s: %d workers in %d processes, %d cuts, %d processes killed, %d replaced, %d calls\n"
        "verdict: all sums as they must be: %d of %d variables exact, the others within acknowledged and sent; "
        "%d updates of shards applied; %d workers never killed\n",
        plan_.options().seed, static_cast<int>(plan_.options().seconds), plan_.options().workers, plan_.processes(),
        cuts_, killed_.size(), replaced_, calls_, answer.value("exact", 0), answer.value("variables", 0),
        answer.value("applied", uint64_t{0}), survivors_);
    return absl::OkStatus();
  }

  const Flags& flags_;
  const TwoHosts* const hosts_;
  const StressPlan plan_;
  Tallies tallies_;
  const TemporaryFolder folder_;
  const std::function<void(const std::string&)>& progress_;
  std::unique_ptr<Cluster> cluster_;
  std::vector<std::unique_ptr<TaskProcess>> proxies_;
  std::vector<std::string> addresses_;                   // of the ps, or of their proxies
  std::vector<std::unique_ptr<TaskProcess>> processes_;  // nullptr: killed and not replaced
  std::vector<uint64_t> lives_;                          // number of each process's present life
  std::set<uint32_t> killed_, unanswered_;
  uint64_t replaced_ = 0, cuts_ = 0, bytes_ = 0, errors_ = 0, calls_ = 0, peak_rss_bytes_ = 0;
  double cpu_seconds_ = 0, fairness_ = 0;
  size_t survivors_ = 0;
  std::string verdict_;
};

}  // namespace

void AddStressFlags(CLI::App& app, Flags& flags) {
  app.option_defaults()->always_capture_default();
  app.add_option("--duration", flags.stress_duration_s, "Seconds that the workers work")
      ->check(CLI::Range(0.1, 1e6))
      ->group("Time");
  app.add_option("--clients-per-process", flags.clients_per_process, "Workers in one process: they are killed together")
      ->check(CLI::Range(1, 256))
      ->group("Storm");
  app.add_option("--seed", flags.seed, "Of sizes, cuts and kills")->group("Storm");
  app.add_flag("--cut,!--no-cut", flags.cut, "Cut connections at random (a proxy before every parameter server)")
      ->group("Storm");
  app.add_flag("--kill,!--no-kill", flags.kill, "Kill processes of workers at random, and replace half of them")
      ->group("Storm");
  app.add_option("--json", flags.json, "Write the results to this file, for machines")->group("Results");
}

absl::Status RunStress(const Flags& flags, const TwoHosts* hosts,
                       const std::function<void(const std::string&)>& progress) {
  StressOptions options;
  options.workers = static_cast<uint32_t>(flags.workers);
  options.ps = static_cast<uint32_t>(flags.ps);
  options.clients_per_process = static_cast<uint32_t>(flags.clients_per_process);
  options.seconds = flags.stress_duration_s;
  options.seed = flags.seed;
  options.kill = flags.kill;
  BASIN_ASSIGN_OR_RETURN(StressPlan plan, StressPlan::Make(options));
  BASIN_ASSIGN_OR_RETURN(Tallies tallies, Tallies::Make(plan));
  BASIN_ASSIGN_OR_RETURN(TemporaryFolder folder, TemporaryFolder::Make());
  Stress stress(flags, hosts, std::move(plan), std::move(tallies), std::move(folder), progress);
  BASIN_RETURN_IF_ERROR(stress.Run());
  progress("");
  return stress.Print();
}

}  // namespace basin::bench
