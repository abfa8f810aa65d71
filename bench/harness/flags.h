// What the user asks for, the same flags for every command.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/harness/measurement.h"
#include "common/rules/rule_spec.h"

namespace CLI {
class App;
}

namespace basin::bench {

enum class Transport { kTcp, kShm, kAuto };

struct Flags {
  // The cluster
  int ps = 1, lanes = 0;
  int workers = 0;  // 0: as many as the command has by default
  std::string transport = "tcp", security = "none", target = "local", token_file;
  bool netns = false;
  // The work
  std::vector<uint64_t> bytes;
  uint64_t variables = 0;  // 0: as many as make 64 MiB
  uint64_t call_variables = 1;
  uint64_t in_flight = uint64_t{16} << 20;
  std::vector<std::string> rules;
  std::string gradient_dtype = "float32";
  uint64_t seed = 1;
  // table
  std::vector<uint64_t> rows;
  uint32_t dim = 16;
  uint64_t batch = 10'000;  // keys of a call
  std::string keys = "uniform", op = "both";
  bool in_process = false;
  // Time
  double duration_s = 4;  // of all counted rounds of one figure
  int rounds = 5;
  // Results
  std::string json;
  bool check = false;  // limits: compare with iperf3
  // stress
  bool cut = true, kill = true;
  int clients_per_process = 4;
  double stress_duration_s = 30;
};

// Adds the flags of the cluster (where the command has one), of time and of results.
void AddClusterFlags(CLI::App& app, Flags& flags, int workers = 1);
void AddCommonFlags(CLI::App& app, Flags& flags);

// INVALID_ARGUMENT or the like when they do not fit together. Replaces --target FILE by what is in it.
absl::Status Check(Flags& flags);

ClusterOptions ClusterFrom(const Flags& flags, const TwoHosts* hosts);
RunOptions TimesFrom(const Flags& flags);

}  // namespace basin::bench
