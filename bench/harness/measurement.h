// Something that is measured in rounds: a limit of the machine, or the cluster at work. And an experiment: some of
// them, in turn, so that the machine's moods reach all alike; each figure is the median of its rounds.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/harness/cluster.h"
#include "bench/harness/report.h"
#include "bench/harness/task_process.h"

namespace basin::bench {

class Measurement {
 public:
  virtual ~Measurement() = default;
  virtual const std::string& name() const = 0;
  virtual const std::string& unit() const = 0;
  // Starts what it needs. An error names it.
  virtual absl::Status Start() = 0;
  // The figure of one round of about so many seconds.
  virtual absl::StatusOr<double> Round(double seconds) = 0;
  // Ends it, and checks what it has done: an error means that its figures count for nothing.
  virtual absl::Status Finish() = 0;
  // What is known besides the value, once it is finished.
  virtual void Describe(Result&) const {}
};

// A figure of one limit; names and parameters are in limits.cc.
struct LimitOptions {
  std::string name;  // "tcp_stream/bytes:1048576"
  std::string unit;
  std::string kind;                 // of its tasks: "memory", "tcp", "zmq", "shared_memory"
  Json parameters;                  // for its tasks
  bool echo = false;                // round trips: the median time of one
  const TwoHosts* hosts = nullptr;  // the two sides on two hosts
};
std::unique_ptr<Measurement> MakeLimit(LimitOptions options);

// Workers with a task of one kind, and the cluster that they use.
struct WorkOptions {
  std::string name, unit;
  ClusterOptions cluster;
  Json task;          // specification of the workers' tasks (dense_task.cc)
  std::string count;  // what a round counts: "bytes" (GB/s), "updates" or "calls" (M/s), or "latency" (us, p50)
};
std::unique_ptr<Measurement> MakeWork(WorkOptions options);

// One task in a process of its own that needs no cluster ("apply", "local_table"). `count`: what a round counts,
// "bytes" (GB/s) or "updates" (M/s). It is asked to "verify" at the end.
std::unique_ptr<Measurement> MakeLocalWork(std::string name, std::string count, Json task);

// A candidate, or with `limit` -1 and no goal a limit that is shown as a result.
struct Row {
  int measurement = 0;  // index in Experiment::measurements
  int limit = -1;       // index of what it is compared with
  std::optional<Goal> goal;
  double fixed_limit = 0;  // instead of a measured limit: a number that the goal names
};

struct Experiment {
  std::vector<std::unique_ptr<Measurement>> measurements;
  std::vector<Row> rows;
};

struct RunOptions {
  int rounds = 5;
  double seconds = 0.7;  // of one round
  // Is told of what goes on, for a terminal.
  std::function<void(const std::string&)> progress;
};

// One result a row, in their order. Any failure of any measurement fails all of it.
absl::StatusOr<std::vector<Result>> Run(Experiment& experiment, const RunOptions& options);

}  // namespace basin::bench
