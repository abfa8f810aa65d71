// What will be started where: a job and the facts about this machine become, for each task, a command, an environment
// and a TF_CONFIG. Pure. The run's token is in none of it; its file is named instead.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "estimator/job.h"
#include "estimator/layout.h"

namespace basin {

struct NodeFacts {
  std::vector<NodePorts> nodes;
  std::string ps_program;      // path of basin-ps
  std::string worker_program;  // path of basin-worker
  std::string run_folder;
  std::string run_id;
};

struct PlannedTask {
  PlacedTask place;
  std::vector<std::string> argv;
  // Added to the launcher's own environment, the later of two equal names wins.
  std::vector<std::pair<std::string, std::string>> environment;
  std::string tf_config;  // strict JSON; also in `environment`
};

struct Plan {
  std::string run_id;
  std::string experiment;
  std::string run_folder;
  std::vector<PlannedTask> tasks;  // ps, chief, workers, evaluator
};

absl::StatusOr<Plan> MakePlan(const Job& job, const NodeFacts& facts);

// host:port of ps 0.
std::string FirstPsAddress(const Plan& plan);

std::string PlanToJson(const Plan& plan);
// Each task's address, command (quoted for a shell) and TF_CONFIG.
std::string PlanToText(const Plan& plan);

}  // namespace basin
