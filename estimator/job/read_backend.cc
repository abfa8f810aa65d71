#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "estimator/job/job_readers.h"

namespace basin {
namespace {

const char* BackendName(Backend backend) { return backend == Backend::kMpi ? "mpi" : "ps"; }

struct Count {
  const char* name;
  int* value;
  int least;
};

// distributed_training: KIND, or {KIND: {count: N}}.
absl::Status ReadDistributedTraining(const YamlFields& fields, const std::string& file,
                                     const std::vector<Count>& counts, Backend* backend) {
  const YAML::Node node = fields.Value("distributed_training");
  std::string kind;
  YAML::Node given;
  if (node.IsScalar()) {
    kind = node.Scalar();
  } else if (node.IsMap() && node.size() == 1 && node.begin()->first.IsScalar()) {
    kind = node.begin()->first.Scalar();
    given = node.begin()->second;
  } else {
    return fields.ErrorAt("distributed_training",
                          absl::StrCat("expected one of ParameterServer, TensorflowConfiguration, Mpi, "
                                       "MpiConfiguration with its counts, found ",
                                       Describe(node), "; write {ParameterServer: {worker_count: 2}}"));
  }
  const bool mpi = kind == "Mpi" || kind == "MpiConfiguration";
  if (!mpi && kind != "ParameterServer" && kind != "TensorflowConfiguration") {
    return fields.ErrorAt("distributed_training",
                          absl::StrCat("unknown configuration \"", kind,
                                       "\"; supported: ParameterServer, TensorflowConfiguration, Mpi, "
                                       "MpiConfiguration"));
  }
  const Backend chosen = mpi ? Backend::kMpi : Backend::kPs;
  if (*backend != Backend::kNone && *backend != chosen) {
    return fields.ErrorAt(
        "distributed_training",
        absl::StrCat(kind, " conflicts with distributed_backend: ", BackendName(*backend), "; remove one of the two"));
  }
  *backend = chosen;
  if (given.IsNull()) return absl::OkStatus();
  std::vector<std::string> known;
  for (const Count& count : counts) {
    if ((count.name[0] == 'p' && count.name[1] == 'r') == mpi) known.emplace_back(count.name);
  }
  BASIN_ASSIGN_OR_RETURN(const YamlFields nested,
                         YamlFields::From(given, file, absl::StrCat("distributed_training.", kind), known));
  for (const Count& count : counts) {
    const int above = *count.value;
    BASIN_RETURN_IF_ERROR(nested.Read(count.name, count.value, count.least, kMostTasks));
    if (nested.Has(count.name) && fields.Has(count.name) && *count.value != above) {
      return nested.ErrorAt(count.name, absl::StrCat(*count.value, " conflicts with ", count.name, ": ", above,
                                                     "; remove one of the two"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadBackend(const YamlFields& fields, const std::string& file, Job* job) {
  std::string backend;
  BASIN_RETURN_IF_ERROR(fields.Read("distributed_backend", &backend));
  const std::string lower = absl::AsciiStrToLower(backend);
  if (!lower.empty() && lower != "ps" && lower != "mpi") {
    return fields.ErrorAt("distributed_backend", absl::StrCat("unknown backend \"", backend, "\"; supported: ps, mpi"));
  }
  if (!lower.empty()) job->backend = lower == "mpi" ? Backend::kMpi : Backend::kPs;

  BASIN_RETURN_IF_ERROR(fields.Read("node_count", &job->node_count, 1, kMostTasks));
  BASIN_RETURN_IF_ERROR(fields.Read("chief_count", &job->chief_count, 0, 1));
  BASIN_RETURN_IF_ERROR(fields.Read("evaluator_count", &job->evaluator_count, 0, 1));
  const std::vector<Count> counts = {{"worker_count", &job->worker_count, 0},
                                     {"parameter_server_count", &job->parameter_server_count, 0},
                                     {"process_count_per_node", &job->process_count_per_node, 1}};
  for (const Count& count : counts) {
    BASIN_RETURN_IF_ERROR(fields.Read(count.name, count.value, count.least, kMostTasks));
  }
  if (fields.Has("distributed_training")) {
    BASIN_RETURN_IF_ERROR(ReadDistributedTraining(fields, file, counts, &job->backend));
  }
  if (job->worker_count < 1) {
    return fields.ErrorAt("worker_count", "found 0, at least one worker is needed; set worker_count: 1 or more");
  }
  std::string server = "basin";
  BASIN_RETURN_IF_ERROR(fields.Read("parameter_server", &server));
  if (server != "basin" && server != "script") {
    return fields.ErrorAt("parameter_server", absl::StrCat("found \"", server,
                                                           "\", expected basin (the ps run basin-ps) or script (they "
                                                           "run entry_script)"));
  }
  job->script_parameter_server = server == "script";
  return absl::OkStatus();
}

absl::Status TakeWorkersAsRanks(const YamlFields& fields, Job* job) {
  if (job->backend != Backend::kMpi || !job->script.empty()) return absl::OkStatus();
  if (job->worker_count == 1 || job->process_count_per_node > 1) return absl::OkStatus();
  if (job->worker_count % job->node_count != 0) {
    return fields.ErrorAt("worker_count", absl::StrCat(job->worker_count,
                                                       " ranks do not spread evenly over node_count: ", job->node_count,
                                                       "; with mpi each node has as many: set worker_count: ",
                                                       (job->worker_count / job->node_count + 1) * job->node_count));
  }
  job->process_count_per_node = job->worker_count / job->node_count;
  return absl::OkStatus();
}

}  // namespace basin
