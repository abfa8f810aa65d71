// What a living cluster tells about itself, as the client library's observers receive it (JSON), and the seam it comes
// through.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

struct PsStats {
  int index = 0;
  std::string address;
  std::string device;  // where its variables lie: "cpu", "cuda:0"
  int64_t device_bytes = 0;
  int64_t lanes = 0, shards = 0, applied = 0, refused = 0, bytes_in = 0, bytes_out = 0;
  int64_t rows = 0, table_bytes = 0, evicted = 0, dropped_gradients = 0;  // of its tables
};

struct ClientStats {
  std::string role;
  int index = 0;
  std::string host;
  int64_t pid = 0;
  std::string state;  // alive, dead, done
  int64_t clock = 0, lag = 0, staleness_max = 0;
  double staleness_mean = 0, steps_per_s = 0, last_heard_s = 0;
  std::map<std::string, double> metrics;
  std::string waiting_for;  // empty: it waits for nobody
  // Chief and workers; an evaluator or a tool only reads.
  bool trains() const { return role == "chief" || role == "worker"; }
};

struct InputStats {
  std::string name;
  int64_t epoch = 0, epochs = 0, pieces_done = 0, pieces_leased = 0, pieces_total = 0;
};

struct ClusterStats {
  std::string run;
  std::string state;  // waiting, training, finished
  int64_t global_step = 0, min_clock = 0, view = 0;
  double uptime_s = 0;
  int64_t variables = 0, tables = 0, elements = 0, model_bytes = 0;
  std::vector<PsStats> ps;
  std::vector<ClientStats> clients;
  std::vector<InputStats> inputs;
  std::optional<double> progress;  // of the whole run, 0 to 1, where its end is known
};

// INVALID_ARGUMENT for what is no JSON object. A field that is missing, null or of another type keeps its default, so
// that a cluster of another version can still be looked at.
absl::StatusOr<ClusterStats> ParseStats(absl::string_view json);

// Over the trainers that are alive.
struct TrainingSummary {
  std::optional<double> examples_per_s;           // of those that tell it
  double steps_per_s = 0;
  std::optional<double> loss;                     // mean
  std::optional<double> test_accuracy, test_auc;  // the evaluator's
  double staleness_mean = 0;
  int64_t staleness_max = 0;
  std::string waiting;  // "worker 1 waits for ps 0 at ..."; the first of them
};
TrainingSummary Summarize(const ClusterStats& stats);

class StatsSource {
 public:
  virtual ~StatsSource() = default;
  // The stats as JSON, as they were heard last. Does not wait. UNAVAILABLE while the cluster cannot be reached, and
  // trying again later is right; other errors are final.
  virtual absl::StatusOr<std::string> Read() = 0;
  // No more reads will come: takes leave of the cluster. Does not wait; destruction does.
  virtual void Stop() = 0;
};

}  // namespace basin
