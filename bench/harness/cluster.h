// A cluster to measure: basin-ps processes that are started here, or one that runs already and that the harness joins
// as its workers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/harness/namespaces.h"
#include "bench/harness/process.h"

namespace basin::bench {

struct ClusterOptions {
  int ps = 1;
  int workers = 1;
  int lanes = 1;                    // of each ps
  bool spin = true;                 // over shared memory, as by default; else nobody ever spins
  std::string device = "cpu";       // of each ps
  bool token = false;               // a token made for this cluster, which every client shows
  std::string target;               // TF_CONFIG of a running cluster; empty: local
  std::string token_file;           // of the running cluster
  const TwoHosts* hosts = nullptr;  // ps on the first, workers on the second; else all here
  double dead_after_s = 10;         // silence after which a worker counts as dead
};

class Cluster final {
 public:
  // Starts the ps (local), without waiting for them: clients do. `folder` is for logs and the token; outlives it.
  static absl::StatusOr<std::unique_ptr<Cluster>> Start(const ClusterOptions& options, const std::string& folder);
  // Ends what was started.
  ~Cluster() = default;

  // Workers, the chief first.
  int workers() const { return static_cast<int>(worker_configs_.size()); }
  // What worker `index` needs in its environment.
  std::vector<std::pair<std::string, std::string>> Environment(int index) const;
  // With every ps behind another address (a proxy), in their order.
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> EnvironmentThrough(
      int index, const std::vector<std::string>& addresses) const;
  int worker_network() const { return options_.hosts == nullptr ? -1 : options_.hosts->second(); }
  const std::vector<std::string>& addresses() const { return addresses_; }

  // UNAVAILABLE, with the end of its log, when a ps has ended.
  absl::Status Healthy();
  // Once the run is over: waits until every ps has ended by itself.
  absl::Status AwaitEnd();
  // Of all local ps together; 0 where they are not local.
  double CpuSeconds() const;
  uint64_t PeakRssBytes() const;
  bool local() const { return options_.target.empty(); }

 private:
  explicit Cluster(const ClusterOptions& options) : options_(options) {}
  absl::Status StartPs(const std::string& folder);
  absl::Status Join();

  const ClusterOptions options_;
  std::string token_file_;
  std::vector<std::string> addresses_;       // of the ps
  std::vector<std::string> worker_configs_;  // TF_CONFIG of each worker
  std::vector<Process> ps_;
  std::vector<std::string> logs_;
};

}  // namespace basin::bench
