// A limit in rounds: one task, or two that send to each other.
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "bench/harness/measurement.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

constexpr off_t kSharedBytes = 4096;

absl::StatusOr<double> GigabytesPerSecond(const Json& answer) {
  const double seconds = answer.value("seconds", 0.0);
  if (!(seconds > 0)) return absl::InternalError("a round took no time");
  return static_cast<double>(answer.value("bytes", uint64_t{0})) / seconds / 1e9;
}

class Limit final : public Measurement {
 public:
  explicit Limit(LimitOptions options) : options_(std::move(options)) {}
  ~Limit() override { CloseShared(); }
  const std::string& name() const override { return options_.name; }
  const std::string& unit() const override { return options_.unit; }

  absl::Status Start() override {
    if (options_.kind == "memory") return StartTask(first_, "memory", options_.parameters, -1);
    if (options_.kind == "shared_memory") return StartSharedMemory();
    const bool tcp = options_.kind == "tcp", apart = options_.hosts != nullptr;
    // The receiver is where the parameter servers would be.
    Json receiver = options_.parameters, sender = options_.parameters;
    receiver["host"] = sender["host"] = apart ? TwoHosts::kFirstAddress : "127.0.0.1";
    BASIN_RETURN_IF_ERROR(
        StartTask(first_, tcp ? "tcp_receiver" : "zmq_router", receiver, apart ? options_.hosts->first() : -1));
    sender.update(started_);
    return StartTask(second_, tcp ? "tcp_sender" : "zmq_dealer", sender, apart ? options_.hosts->second() : -1);
  }

  absl::StatusOr<double> Round(double seconds) override {
    const Json command = {{"do", options_.echo ? "echo" : "round"}, {"seconds", seconds}};
    BASIN_RETURN_IF_ERROR(first_->Tell(command));
    if (second_ == nullptr) {
      BASIN_ASSIGN_OR_RETURN(const Json answer, first_->Answer());
      return GigabytesPerSecond(answer);
    }
    BASIN_RETURN_IF_ERROR(second_->Tell(command));
    BASIN_ASSIGN_OR_RETURN(const Json sent, second_->Answer());
    BASIN_ASSIGN_OR_RETURN(const Json received, first_->Answer());
    if (!options_.echo) return GigabytesPerSecond(received);
    p99_us_ = sent.value("p99_us", 0.0);
    p50_us_ = sent.value("p50_us", 0.0);
    return p50_us_;
  }

  absl::Status Finish() override {
    first_.reset();
    second_.reset();
    return absl::OkStatus();
  }

  void Describe(Result& result) const override {
    if (!options_.echo) return;
    result.p50_us = p50_us_;
    result.p99_us = p99_us_;
  }

 private:
  absl::Status StartTask(std::unique_ptr<TaskProcess>& task, const std::string& kind, Json spec, int network) {
    TaskOptions options;
    options.name = kind;
    options.network = network;
    options.inherited = shared_;
    spec["kind"] = kind;
    BASIN_ASSIGN_OR_RETURN(task, TaskProcess::Start(options, spec));
    BASIN_ASSIGN_OR_RETURN(started_, task->Answer());
    return absl::OkStatus();
  }

  absl::Status StartSharedMemory() {
    Json spec = options_.parameters;
    const int memory = memfd_create("basin-bench", MFD_CLOEXEC), ping = eventfd(0, EFD_CLOEXEC),
              pong = eventfd(0, EFD_CLOEXEC);
    shared_ = {memory, ping, pong};
    if (memory < 0 || ping < 0 || pong < 0 || ftruncate(memory, kSharedBytes) != 0)
      return ErrnoStatus(errno, "make the shared memory of a round trip");
    spec["memory"] = memory;
    spec["ping_fd"] = ping;
    spec["pong_fd"] = pong;
    spec["side"] = "pong";
    BASIN_RETURN_IF_ERROR(StartTask(first_, "shared_memory", spec, -1));
    spec["side"] = "ping";
    BASIN_RETURN_IF_ERROR(StartTask(second_, "shared_memory", spec, -1));
    CloseShared();
    return absl::OkStatus();
  }

  void CloseShared() {
    for (const int fd : shared_) {
      if (fd >= 0) close(fd);
    }
    shared_.clear();
  }

  const LimitOptions options_;
  std::vector<int> shared_;  // until the tasks have inherited them
  std::unique_ptr<TaskProcess> first_, second_;
  Json started_;  // what the task that was started last answered
  double p50_us_ = 0, p99_us_ = 0;
};

class LocalWork final : public Measurement {
 public:
  LocalWork(std::string name, std::string count, Json task)
      : name_(std::move(name)),
        count_(std::move(count)),
        unit_(count_ == "bytes" ? "GB/s" : "M/s"),
        spec_(std::move(task)) {}
  const std::string& name() const override { return name_; }
  const std::string& unit() const override { return unit_; }

  absl::Status Start() override {
    TaskOptions options;
    options.name = spec_.value("kind", "");
    BASIN_ASSIGN_OR_RETURN(task_, TaskProcess::Start(options, spec_));
    return task_->Answer().status();
  }
  absl::StatusOr<double> Round(double seconds) override {
    const double cpu = task_->process().CpuSeconds();
    BASIN_ASSIGN_OR_RETURN(const Json answer, task_->Ask({{"do", "round"}, {"seconds", seconds}}));
    cpu_seconds_ += task_->process().CpuSeconds() - cpu;
    gigabytes_ += static_cast<double>(answer.value("bytes", uint64_t{0})) / 1e9;
    if (count_ == "bytes") return GigabytesPerSecond(answer);
    return answer.value(count_, 0.0) / answer.value("seconds", 1.0) / 1e6;
  }
  absl::Status Finish() override {
    peak_rss_bytes_ = task_->process().PeakRssBytes();  // of the work, without that of the check
    BASIN_RETURN_IF_ERROR(task_->Ask({{"do", "verify"}}).status());
    task_.reset();
    return absl::OkStatus();
  }
  void Describe(Result& result) const override {
    if (gigabytes_ > 0) result.cpu_s_per_gb = cpu_seconds_ / gigabytes_;
    result.peak_rss_bytes = peak_rss_bytes_;
  }

 private:
  const std::string name_, count_, unit_;
  const Json spec_;
  std::unique_ptr<TaskProcess> task_;
  double cpu_seconds_ = 0, gigabytes_ = 0;
  uint64_t peak_rss_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Measurement> MakeLimit(LimitOptions options) { return std::make_unique<Limit>(std::move(options)); }

std::unique_ptr<Measurement> MakeLocalWork(std::string name, std::string count, Json task) {
  return std::make_unique<LocalWork>(std::move(name), std::move(count), std::move(task));
}

}  // namespace basin::bench
