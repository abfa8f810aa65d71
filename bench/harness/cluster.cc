#include "bench/harness/cluster.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <set>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "cluster_spec/cluster_view.h"
#include "cluster_spec/tf_config.h"
#include "common/base/files.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

constexpr absl::Duration kEndWait = absl::Seconds(20);
constexpr int kFinishGraceSeconds = 5;

// A port of loopback that is free at this moment, below the ephemeral range: the kernel gives it to no dialling client.
absl::StatusOr<uint16_t> FreePort(std::set<uint16_t>& taken) {
  for (int tries = 0; tries < 200; ++tries) {
    const auto port = static_cast<uint16_t>(20000 + SecretU64() % 10000);
    if (taken.contains(port)) continue;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return ErrnoStatus(errno, "socket");
    absl::Cleanup close_fd = [fd] { close(fd); };
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) continue;
    taken.insert(port);
    return port;
  }
  return absl::UnavailableError("200 random ports of 127.0.0.1 from 20000 to 29999 are all in use");
}

absl::StatusOr<std::string> Config(const std::vector<std::string>& ps, const std::vector<std::string>& workers,
                                   TaskId task) {
  const auto job = [](std::string name, const std::vector<std::string>& addresses) {
    ClusterSpec::Job made{.name = std::move(name), .tasks = {}};
    for (size_t i = 0; i < addresses.size(); ++i) made.tasks[static_cast<int64_t>(i)] = addresses[i];
    return made;
  };
  BASIN_ASSIGN_OR_RETURN(const ClusterSpec cluster, ClusterSpec::Make({job("ps", ps), job("worker", workers)}));
  return FormatTfConfig(cluster, task);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Cluster>> Cluster::Start(const ClusterOptions& options, const std::string& folder) {
  std::unique_ptr<Cluster> cluster(new Cluster(options));
  BASIN_RETURN_IF_ERROR(options.target.empty() ? cluster->StartPs(folder) : cluster->Join());
  return cluster;
}

absl::Status Cluster::StartPs(const std::string& folder) {
  BASIN_ASSIGN_OR_RETURN(const std::string program, BesideThisProgram("basin-ps"));
  std::set<uint16_t> ports;
  std::vector<std::string> workers;
  const auto add = [&](std::vector<std::string>& addresses, absl::string_view host) -> absl::Status {
    BASIN_ASSIGN_OR_RETURN(const uint16_t port, FreePort(ports));
    addresses.push_back(absl::StrCat(host, ":", port));
    return absl::OkStatus();
  };
  const bool apart = options_.hosts != nullptr;
  for (int i = 0; i < options_.ps; ++i)
    BASIN_RETURN_IF_ERROR(add(addresses_, apart ? TwoHosts::kFirstAddress : "127.0.0.1"));
  for (int i = 0; i < options_.workers; ++i)
    BASIN_RETURN_IF_ERROR(add(workers, apart ? TwoHosts::kSecondAddress : "127.0.0.1"));
  if (options_.token) {
    token_file_ = absl::StrCat(folder, "/token");
    BASIN_RETURN_IF_ERROR(WriteFileAtomically(token_file_, SecretHex(16), 0600));
  }
  for (int i = 0; i < options_.workers; ++i) {
    BASIN_ASSIGN_OR_RETURN(worker_configs_.emplace_back(),
                           Config(addresses_, workers, {Role::kWorker, static_cast<uint32_t>(i)}));
  }
  for (int i = 0; i < options_.ps; ++i) {
    ProcessOptions ps;
    ps.argv = {program,
               "--lanes",
               absl::StrCat(options_.lanes),
               "--finish-grace",
               absl::StrCat(kFinishGraceSeconds),
               "--dead-after",
               absl::StrCat(options_.dead_after_s),
               "--device",
               options_.device};
    BASIN_ASSIGN_OR_RETURN(const std::string config,
                           Config(addresses_, workers, {Role::kPs, static_cast<uint32_t>(i)}));
    if (!options_.spin) ps.argv.insert(ps.argv.end(), {"--spin-us", "0"});
    ps.environment = {{"TF_CONFIG", config}};
    if (!token_file_.empty()) ps.environment.emplace_back("BASIN_TOKEN_FILE", token_file_);
    if (apart) ps.network = options_.hosts->first();
    ps.log = absl::StrCat(folder, "/ps-", i, ".log");
    BASIN_ASSIGN_OR_RETURN(Process process, Process::Start(ps));
    ps_.push_back(std::move(process));
    logs_.push_back(ps.log);
  }
  return absl::OkStatus();
}

absl::Status Cluster::Join() {
  token_file_ = options_.token_file;
  BASIN_ASSIGN_OR_RETURN(const TfConfig config, ParseTfConfig(options_.target, "--target"));
  TaskOverrides overrides;
  overrides.task_type = "worker";
  overrides.task_index = 0;
  BASIN_ASSIGN_OR_RETURN(const ClusterView view,
                         config.cluster.has_job("worker") ? Resolve(config, overrides) : Resolve(config));
  if (view.ps.empty()) {
    return absl::InvalidArgumentError(
        "--target: the cluster has no ps; give the TF_CONFIG that its workers have, or \"local\"");
  }
  for (const Peer& ps : view.ps) addresses_.push_back(ps.address);
  const std::vector<TaskId> trainers = view.trainers();
  if (static_cast<size_t>(options_.workers) > trainers.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--workers ", options_.workers,
                                                   ": the cluster of --target has places for ", trainers.size(),
                                                   " (chief and workers); ask for fewer"));
  }
  for (int i = 0; i < options_.workers; ++i)
    worker_configs_.push_back(FormatTfConfig(config.cluster, trainers[static_cast<size_t>(i)]));
  return absl::OkStatus();
}

std::vector<std::pair<std::string, std::string>> Cluster::Environment(int index) const {
  std::vector<std::pair<std::string, std::string>> variables = {
      {"TF_CONFIG", worker_configs_[static_cast<size_t>(index)]}};
  if (!token_file_.empty()) variables.emplace_back("BASIN_TOKEN_FILE", token_file_);
  return variables;
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Cluster::EnvironmentThrough(
    int index, const std::vector<std::string>& addresses) const {
  BASIN_ASSIGN_OR_RETURN(const TfConfig config, ParseTfConfig(worker_configs_[static_cast<size_t>(index)]));
  BASIN_ASSIGN_OR_RETURN(const ClusterView view, Resolve(config));
  std::vector<std::string> workers;
  for (const Peer& worker : view.workers) workers.push_back(worker.address);
  std::vector<std::pair<std::string, std::string>> variables = Environment(index);
  BASIN_ASSIGN_OR_RETURN(variables[0].second, Config(addresses, workers, view.self));
  return variables;
}

absl::Status Cluster::Healthy() {
  for (size_t i = 0; i < ps_.size(); ++i) {
    if (!ps_[i].Running())
      return absl::UnavailableError(absl::StrCat("ps ", i, " has ended: ", ps_[i].Ending(), "\n", TailOf(logs_[i])));
  }
  return absl::OkStatus();
}

absl::Status Cluster::AwaitEnd() {
  for (size_t i = 0; i < ps_.size(); ++i) {
    if (!ps_[i].WaitEnd(kEndWait) || ps_[i].Ending() != "exit code 0") {
      return absl::InternalError(absl::StrCat(
          "ps ", i, " did not end well after the run: ", ps_[i].Running() ? "it still runs" : ps_[i].Ending(), "\n",
          TailOf(logs_[i])));
    }
  }
  return absl::OkStatus();
}

double Cluster::CpuSeconds() const {
  double seconds = 0;
  for (const Process& ps : ps_) seconds += ps.CpuSeconds();
  return seconds;
}

uint64_t Cluster::PeakRssBytes() const {
  uint64_t bytes = 0;
  for (const Process& ps : ps_) bytes += ps.PeakRssBytes();
  return bytes;
}

}  // namespace basin::bench
