#include "bench/harness/workloads.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bench/harness/limits.h"

namespace basin::bench {
namespace {

constexpr uint64_t kKiB = 1 << 10, kMiB = 1 << 20;
constexpr uint64_t kWorkingSet = 64 * kMiB;  // of all variables: more than caches hold
constexpr uint64_t kMostVariables = 16384;
constexpr uint64_t kMostCalls = 4096;  // in flight, however small
constexpr uint64_t kSmallFloats = 16, kSmallVariables = 64;
constexpr double kSmallGoal = 10, kSmallSingleGoal = 2;  // million a second
constexpr uint64_t kFewRows = 10'000, kManyRows = 1'000'000;
constexpr double kSpinGoal = 3;  // us

struct Dense {
  std::string op;
  uint64_t bytes = kMiB;
  uint64_t variables = 0;  // 0: as many as make the working set
  uint64_t call_variables = 1;
  std::string rule = "sgd";
  std::string gradient_dtype = "float32";
};

std::string Prefix(const Flags& flags, const TwoHosts* hosts) {
  return absl::StrCat(hosts == nullptr ? "" : "netns_", flags.transport, "_");
}

// What differs from one ps, one worker, no token: names of different work are different.
std::string Suffix(const Flags& flags) {
  std::string text;
  if (!flags.target.empty()) return absl::StrCat("/workers:", flags.workers, "/target");
  if (flags.ps != 1) absl::StrAppend(&text, "/ps:", flags.ps);
  if (flags.workers != 1) absl::StrAppend(&text, "/workers:", flags.workers);
  if (flags.lanes != 0) absl::StrAppend(&text, "/lanes:", flags.lanes);
  if (flags.security != "none") absl::StrAppend(&text, "/security:", flags.security);
  return text;
}

uint64_t DefaultVariables(const Dense& dense) {
  const uint64_t wanted = std::clamp<uint64_t>(kWorkingSet / dense.bytes, 1, kMostVariables);
  return std::max(uint64_t{1}, wanted / dense.call_variables) * dense.call_variables;
}

WorkOptions Work(const Dense& dense, const Flags& flags, const TwoHosts* hosts) {
  const uint64_t variables = dense.variables > 0 ? dense.variables : DefaultVariables(dense);
  const uint64_t call_bytes = dense.bytes * dense.call_variables;
  WorkOptions work;
  work.name = absl::StrCat(Prefix(flags, hosts), dense.op, "/bytes:", dense.bytes);
  if (dense.call_variables != 1) absl::StrAppend(&work.name, "/call:", dense.call_variables);
  if (dense.variables != 0) absl::StrAppend(&work.name, "/variables:", dense.variables);
  if (dense.rule != "sgd") absl::StrAppend(&work.name, "/rule:", dense.rule);
  if (dense.gradient_dtype != "float32") absl::StrAppend(&work.name, "/gradient:", dense.gradient_dtype);
  work.name += Suffix(flags);
  work.unit = "GB/s";
  work.count = "bytes";
  work.cluster = ClusterFrom(flags, hosts);
  work.task = {{"kind", "dense"},
               {"op", dense.op},
               {"bytes", dense.bytes},
               {"variables", variables},
               {"call_variables", dense.call_variables},
               {"window", std::clamp<uint64_t>(flags.in_flight / call_bytes, 1, kMostCalls)},
               {"rule", dense.rule},
               {"gradient_dtype", dense.gradient_dtype},
               {"transport", flags.transport},
               {"alone", flags.target.empty()}};
  return work;
}

std::unique_ptr<Measurement> LimitOf(const Dense& dense, const Flags& flags, const TwoHosts* hosts) {
  if (flags.transport == "shm")
    return dense.op == "push" ? AddLimit(kWorkingSet, ClusterFrom(flags, hosts).lanes * flags.ps)
                              : MemcpyLimit(kWorkingSet, flags.workers);
  const uint64_t call = dense.bytes * dense.call_variables;
  return TcpStreamLimit({.bytes = call < 256 * kKiB ? 64 * kKiB : kMiB}, hosts);
}

// Adds the measurement unless one of its name is there; its index.
int Add(Experiment& experiment, std::unique_ptr<Measurement> measurement) {
  auto& all = experiment.measurements;
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const auto& one) { return one->name() == measurement->name(); });
  if (found != all.end()) return static_cast<int>(found - all.begin());
  all.push_back(std::move(measurement));
  return static_cast<int>(all.size()) - 1;
}

void AddRow(Experiment& experiment, int measurement, int limit, double fixed_limit = 0) {
  experiment.rows.push_back({.measurement = measurement,
                             .limit = limit,
                             .goal = GoalOf(experiment.measurements[static_cast<size_t>(measurement)]->name()),
                             .fixed_limit = fixed_limit});
}

void AddDense(Experiment& experiment, const Dense& dense, const Flags& flags, const TwoHosts* hosts) {
  const int limit = Add(experiment, LimitOf(dense, flags, hosts));
  AddRow(experiment, Add(experiment, MakeWork(Work(dense, flags, hosts))), limit);
}

// 64 variables of 16 KiB in one call, beside calls of 1 MiB: what many small ones cost.
void AddManyInOneCall(Experiment& experiment, const Flags& flags, const TwoHosts* hosts) {
  const int whole = Add(experiment, MakeWork(Work({.op = "push", .bytes = kMiB}, flags, hosts)));
  const int parts =
      Add(experiment, MakeWork(Work({.op = "push", .bytes = 16 * kKiB, .call_variables = 64}, flags, hosts)));
  AddRow(experiment, parts, whole);
}

std::string TableName(const std::string& prefix, const std::string& op, uint64_t rows, const Flags& flags) {
  std::string name = absl::StrCat(prefix, "table_", op);
  // Only the sizes of the columns are those of the data set.
  if (rows == 0)
    absl::StrAppend(&name, "/keys:criteo-synthetic");
  else
    absl::StrAppend(&name, "/rows:", rows);
  absl::StrAppend(&name, "/dim:", flags.dim);
  if (flags.batch != Flags().batch) absl::StrAppend(&name, "/batch:", flags.batch);
  return name;
}

Json TableTaskOf(const std::string& kind, const std::string& op, uint64_t rows, const Flags& flags) {
  return {{"kind", kind}, {"op", op}, {"rows", rows}, {"dim", flags.dim}, {"batch", flags.batch}, {"seed", flags.seed}};
}

// What a goal of a table names, in million rows a second; 0 where there is none.
double TableGoal(const std::string& op, uint64_t rows, const Flags& flags, bool in_process) {
  if (op != "push" || flags.dim != 16) return 0;
  if (rows == kFewRows) return in_process ? 50 : 30;
  if (rows == kManyRows) return in_process ? 30 : 15;
  return 0;
}

int AddLocalTable(Experiment& experiment, const std::string& op, uint64_t rows, const Flags& flags) {
  return Add(experiment,
             MakeLocalWork(TableName("", op, rows, flags), "updates", TableTaskOf("local_table", op, rows, flags)));
}

void AddTable(Experiment& experiment, const std::string& op, uint64_t rows, const Flags& flags, const TwoHosts* hosts) {
  if (flags.in_process)
    return AddRow(experiment, AddLocalTable(experiment, op, rows, flags), -1, TableGoal(op, rows, flags, true));
  WorkOptions work;
  work.name = TableName(Prefix(flags, hosts), op, rows, flags) + Suffix(flags);
  work.unit = "M/s";
  work.count = "updates";
  work.cluster = ClusterFrom(flags, hosts);
  work.task = TableTaskOf("table", op, rows, flags);
  const uint64_t call_bytes = flags.batch * (sizeof(uint64_t) + flags.dim * sizeof(float));
  work.task["window"] = std::clamp<uint64_t>(flags.in_flight / call_bytes, 1, kMostCalls);
  work.task["transport"] = flags.transport;
  work.task["alone"] = flags.target.empty();
  const bool shm = flags.transport == "shm";
  const int limit = shm ? AddLocalTable(experiment, op, rows, flags) : -1;
  AddRow(experiment, Add(experiment, MakeWork(std::move(work))), limit,
         shm ? 0 : TableGoal(op, rows, flags, /*in_process=*/false));
}

void AddLatency(Experiment& experiment, bool spin, const Flags& flags, const TwoHosts* hosts) {
  const bool shm = flags.transport == "shm";
  WorkOptions work = Work({.op = "push", .bytes = 64, .variables = 1}, flags, hosts);
  work.name = absl::StrCat(Prefix(flags, hosts), "push_latency/bytes:64", shm && spin ? "/spin" : "", Suffix(flags));
  work.unit = "us";
  work.count = "latency";
  work.task["window"] = 1;
  if (shm && !spin) {
    work.task["spin_us"] = 0;
    work.cluster.spin = false;
  }
  const bool fixed = shm && spin;
  const int limit =
      fixed ? -1 : Add(experiment, shm ? SharedMemoryRoundTripLimit(/*spin=*/false) : ZmqRoundTripLimit(hosts));
  AddRow(experiment, Add(experiment, MakeWork(std::move(work))), limit, fixed ? kSpinGoal : 0);
}

}  // namespace

std::optional<Goal> GoalOf(const std::string& name) {
  // TCP between two namespaces has the goals of TCP on loopback.
  const std::string plain = absl::StartsWith(name, "netns_") ? name.substr(6) : name;
  static const auto& goals = *new std::map<std::string, Goal>{
      {"tcp_push/bytes:262144", {1.0}},
      {"tcp_pull/bytes:262144", {1.0}},
      {"tcp_push/bytes:1048576", {1.1}},
      {"tcp_pull/bytes:1048576", {1.1}},
      {"tcp_push/bytes:4194304", {1.0}},
      {"tcp_pull/bytes:4194304", {1.0}},
      {"tcp_pushpull/bytes:1048576", {0.95}},
      {"tcp_push/bytes:16384/call:64", {0.9}},
      {"tcp_push/bytes:65536", {0.8}},
      {"tcp_push_small/floats:16", {1.0}},
      {"tcp_push_small_single/floats:16", {1.0}},
      {"tcp_push_latency/bytes:64", {1.3, /*at_most=*/true}},
      {"shm_push/bytes:4194304", {0.8}},
      {"shm_pull/bytes:4194304", {0.8}},
      {"shm_push_latency/bytes:64", {1.3, /*at_most=*/true}},
      {"shm_push_latency/bytes:64/spin", {1.0, /*at_most=*/true}},
      {"table_push/rows:10000/dim:16", {1.0}},
      {"table_push/rows:1000000/dim:16", {1.0}},
      {"tcp_table_push/rows:10000/dim:16", {1.0}},
      {"tcp_table_push/rows:1000000/dim:16", {1.0}},
      {"shm_table_push/rows:10000/dim:16", {0.7}},
      {"shm_table_push/rows:1000000/dim:16", {0.7}},
      {"apply/rule:sgd/bytes:67108864", {0.85}},
      {"apply/rule:momentum/bytes:67108864", {0.85}},
      {"apply/rule:adagrad/bytes:67108864", {0.85}},
      {"apply/rule:adam/bytes:67108864", {0.85}},
  };
  const auto found = goals.find(plain);
  return found == goals.end() ? std::nullopt : std::optional<Goal>(found->second);
}

Experiment DenseExperiment(const std::string& op, const Flags& flags, const TwoHosts* hosts) {
  Experiment experiment;
  for (const uint64_t bytes : flags.bytes.empty() ? std::vector<uint64_t>{kMiB} : flags.bytes) {
    for (const std::string& rule : flags.rules.empty() ? std::vector<std::string>{"sgd"} : flags.rules) {
      AddDense(experiment, {op, bytes, flags.variables, flags.call_variables, rule, flags.gradient_dtype}, flags,
               hosts);
    }
  }
  return experiment;
}

Experiment SmallExperiment(const Flags& flags, const TwoHosts* hosts) {
  Experiment experiment;
  for (const bool single : {false, true}) {
    Dense dense{.op = "push", .bytes = kSmallFloats * sizeof(float), .variables = kSmallVariables};
    dense.call_variables = single ? 1 : kSmallVariables;
    WorkOptions work = Work(dense, flags, hosts);
    work.name = absl::StrCat(Prefix(flags, hosts), single ? "push_small_single" : "push_small",
                             "/floats:", kSmallFloats, Suffix(flags));
    work.unit = "M/s";
    work.count = single ? "calls" : "updates";
    AddRow(experiment, Add(experiment, MakeWork(work)), -1, single ? kSmallSingleGoal : kSmallGoal);
  }
  return experiment;
}

Experiment LatencyExperiment(const Flags& flags, const TwoHosts* hosts) {
  Experiment experiment;
  AddLatency(experiment, /*spin=*/false, flags, hosts);
  // A running cluster serves one run; its servers spin or not as they were told.
  if (flags.transport == "shm" && flags.target.empty()) AddLatency(experiment, /*spin=*/true, flags, hosts);
  return experiment;
}

std::vector<Experiment> TableExperiments(const Flags& flags, const TwoHosts* hosts) {
  std::vector<uint64_t> sizes = flags.rows.empty() ? std::vector<uint64_t>{kFewRows, kManyRows} : flags.rows;
  if (flags.keys == "criteo") sizes = {0};
  std::vector<Experiment> all;
  for (const uint64_t rows : sizes) {
    Experiment& experiment = all.emplace_back();
    for (const std::string op : {"push", "pull"}) {
      if (flags.op == "both" || flags.op == op) AddTable(experiment, op, rows, flags, hosts);
    }
  }
  return all;
}

std::vector<Experiment> ApplyExperiments(const Flags& flags) {
  std::vector<Experiment> all;
  const std::vector<std::string> rules =
      flags.rules.empty() ? std::vector<std::string>{"sgd", "momentum", "adagrad", "adam"} : flags.rules;
  for (const uint64_t bytes : flags.bytes.empty() ? std::vector<uint64_t>{kWorkingSet} : flags.bytes) {
    for (const std::string& rule : rules) {
      Experiment experiment;
      // Each rule reads the gradient, and reads and writes the parameters and its slots: as many additions to arrays
      // do.
      const int targets = 1 + SlotCount(*RuleKindFromName(rule));
      const int limit = Add(experiment, StreamsLimit(bytes, targets));
      const std::string name = absl::StrCat("apply/rule:", rule, "/bytes:", bytes);
      AddRow(experiment,
             Add(experiment, MakeLocalWork(name, "bytes", {{"kind", "apply"}, {"rule", rule}, {"bytes", bytes}})),
             limit);
      all.push_back(std::move(experiment));
    }
  }
  return all;
}

std::vector<Experiment> CanonicalExperiments(const Flags& flags, const TwoHosts* hosts) {
  std::vector<Experiment> all;
  Flags tcp = flags;
  tcp.transport = "tcp";
  for (const uint64_t bytes : {256 * kKiB, kMiB, 4 * kMiB}) {
    Experiment& experiment = all.emplace_back();
    AddDense(experiment, {.op = "push", .bytes = bytes}, tcp, hosts);
    AddDense(experiment, {.op = "pull", .bytes = bytes}, tcp, hosts);
    if (bytes == kMiB) {
      AddDense(experiment, {.op = "push", .bytes = bytes, .gradient_dtype = "bfloat16"}, tcp, hosts);
      AddDense(experiment, {.op = "pushpull", .bytes = bytes}, tcp, hosts);
      AddManyInOneCall(experiment, tcp, hosts);
    }
  }
  AddDense(all.emplace_back(), {.op = "push", .bytes = 64 * kKiB}, tcp, hosts);
  all.push_back(SmallExperiment(tcp, hosts));
  all.push_back(LatencyExperiment(tcp, hosts));
  Flags shm = flags, local = flags;
  shm.transport = "shm";
  local.in_process = true;
  for (const uint64_t rows : {kFewRows, kManyRows, uint64_t{0}}) {
    Experiment& experiment = all.emplace_back();
    AddTable(experiment, "push", rows, tcp, hosts);
    if (hosts != nullptr) continue;
    AddTable(experiment, "push", rows, local, hosts);
    AddTable(experiment, "push", rows, shm, hosts);
  }
  if (hosts != nullptr) return all;  // the rest uses no network
  Experiment& memory = all.emplace_back();
  AddDense(memory, {.op = "push", .bytes = 4 * kMiB}, shm, hosts);
  AddDense(memory, {.op = "pull", .bytes = 4 * kMiB}, shm, hosts);
  all.push_back(LatencyExperiment(shm, hosts));
  for (Experiment& experiment : ApplyExperiments(flags)) all.push_back(std::move(experiment));
  return all;
}

}  // namespace basin::bench
