// The cluster at work, in rounds: all workers at once, then all their answers.
#include <algorithm>
#include <cstdlib>
#include <optional>

#include "absl/strings/str_cat.h"
#include "bench/harness/measurement.h"
#include "bench/harness/statistics.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

class Work final : public Measurement {
 public:
  explicit Work(WorkOptions options) : options_(std::move(options)) {}
  const std::string& name() const override { return options_.name; }
  const std::string& unit() const override { return options_.unit; }

  absl::Status Start() override {
    BASIN_ASSIGN_OR_RETURN(TemporaryFolder folder, TemporaryFolder::Make());
    folder_.emplace(std::move(folder));
    BASIN_ASSIGN_OR_RETURN(cluster_, Cluster::Start(options_.cluster, folder_->path()));
    Json spec = options_.task;
    spec["workers"] = cluster_->workers();
    for (int i = 0; i < cluster_->workers(); ++i) {
      TaskOptions worker;
      worker.name = absl::StrCat("worker ", i);
      worker.environment = cluster_->Environment(i);
      worker.network = cluster_->worker_network();
      worker.log = absl::StrCat(folder_->path(), "/worker-", i, ".log");
      BASIN_ASSIGN_OR_RETURN(workers_.emplace_back(), TaskProcess::Start(worker, spec));
    }
    return Gather().status();
  }

  absl::StatusOr<double> Round(double seconds) override {
    const double cpu = CpuSeconds();
    BASIN_ASSIGN_OR_RETURN(const std::vector<Json> answers, AskAll({{"do", "round"}, {"seconds", seconds}}));
    double count = 0, longest = 0;
    std::vector<double> p50, p99;
    for (const Json& answer : answers) {
      if (options_.count != "latency") count += answer.value(options_.count, 0.0);
      longest = std::max(longest, answer.value("seconds", 0.0));
      gigabytes_ += answer.value("bytes", 0.0) / 1e9;
      p50.push_back(answer.value("p50_us", 0.0));
      p99.push_back(answer.value("p99_us", 0.0));
    }
    cpu_seconds_ += CpuSeconds() - cpu;
    p50_us_.push_back(Median(p50));
    p99_us_.push_back(Median(p99));
    if (options_.count == "latency") return p50_us_.back();
    return count / longest / (options_.count == "bytes" ? 1e9 : 1e6);
  }

  absl::Status Finish() override {
    // Of the work, without that of the check.
    peak_rss_bytes_ = cluster_->PeakRssBytes();
    for (const auto& worker : workers_) peak_rss_bytes_ += worker->process().PeakRssBytes();
    BASIN_ASSIGN_OR_RETURN(const std::vector<Json> answers, AskAll({{"do", "counts"}}));
    std::vector<uint64_t> pushes;
    for (const Json& answer : answers) {
      const auto own = answer.value("pushes", std::vector<uint64_t>());
      pushes.resize(std::max(pushes.size(), own.size()));
      for (size_t v = 0; v < own.size(); ++v) pushes[v] += own[v];
    }
    // For the test that a wrong count is found.
    if (std::getenv("BASIN_BENCH_PLANT") != nullptr)
      BASIN_RETURN_IF_ERROR(workers_[0]->Ask({{"do", "plant"}}).status());
    BASIN_RETURN_IF_ERROR(workers_[0]->Ask({{"do", "verify"}, {"pushes", pushes}}).status());
    // The chief's end is the run's: it comes last.
    for (size_t i = workers_.size(); i-- > 0;) BASIN_RETURN_IF_ERROR(workers_[i]->Ask({{"do", "finish"}}).status());
    workers_.clear();
    if (cluster_->local()) BASIN_RETURN_IF_ERROR(cluster_->AwaitEnd());
    cluster_.reset();
    return absl::OkStatus();
  }

  void Describe(Result& result) const override {
    result.p50_us = Median(p50_us_);
    result.p99_us = Median(p99_us_);
    if (gigabytes_ > 0 && options_.cluster.target.empty()) result.cpu_s_per_gb = cpu_seconds_ / gigabytes_;
    result.peak_rss_bytes = peak_rss_bytes_;
  }

 private:
  double CpuSeconds() {
    double seconds = cluster_->CpuSeconds();
    for (const auto& worker : workers_) seconds += worker->process().CpuSeconds();
    return seconds;
  }

  absl::StatusOr<std::vector<Json>> AskAll(const Json& command) {
    for (const auto& worker : workers_) BASIN_RETURN_IF_ERROR(worker->Tell(command));
    return Gather();
  }

  // One answer of each. A ps that has died is the better reason for what workers say.
  absl::StatusOr<std::vector<Json>> Gather() {
    std::vector<Json> answers;
    for (const auto& worker : workers_) {
      absl::StatusOr<Json> answer = worker->Answer(kMostWait, [&] { return cluster_->Healthy(); });
      if (!answer.ok()) {
        if (!absl::IsCancelled(answer.status())) BASIN_RETURN_IF_ERROR(cluster_->Healthy());
        return answer.status();
      }
      answers.push_back(*std::move(answer));
    }
    return answers;
  }

  static constexpr absl::Duration kMostWait = absl::Seconds(180);

  const WorkOptions options_;
  std::optional<TemporaryFolder> folder_;
  std::unique_ptr<Cluster> cluster_;
  std::vector<std::unique_ptr<TaskProcess>> workers_;
  std::vector<double> p50_us_, p99_us_;  // of each round, the first too
  double cpu_seconds_ = 0, gigabytes_ = 0;
  uint64_t peak_rss_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Measurement> MakeWork(WorkOptions options) { return std::make_unique<Work>(std::move(options)); }

}  // namespace basin::bench
