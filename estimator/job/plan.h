// What will be started where: a job and the facts about its nodes become, for each task, a command, an environment and
// a TF_CONFIG. Pure. Paths that only a node knows are placeholders (agent/placeholders.h), which its agent replaces;
// the run's token and the secrets' values are in none of it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/job/job.h"
#include "estimator/job/layout.h"

namespace basin {

struct NodeFacts {
  std::string host;               // name or address, as the other tasks reach it
  std::vector<int> free_ports;    // held for this run, the preferred first
  std::vector<std::string> gpus;  // UUIDs of the job's, in the order of their numbers, or of Slurm's grant
  std::string gpu_problem;        // why there are none, for people
};

struct PlanFacts {
  std::string run_id;
  std::vector<NodeFacts> nodes;  // the job's node_count, in the target's order
  bool node_per_task = false;    // `nodes` are one for each task, in the plan's order: pods
};

struct PlannedTask {
  PlacedTask place;  // role, index, node, host, port
  std::vector<std::string> argv;
  // Added to the node's own environment. Each name once, in the order in which they were set.
  std::vector<std::pair<std::string, std::string>> environment;
  std::string tf_config;             // strict JSON, also in `environment`; empty without a backend
  bool takes_listener = false;       // basin-ps: it is handed the open listener of its port
  bool uses_snapshot = false;        // its tree is made from the source directory, otherwise it is empty
  bool is_rank = false;              // a process of mpirun's: it begins when mpirun reaches it
  std::string image;                 // it runs in a container of it; empty: on the node itself
  std::vector<std::string> devices;  // UUIDs of its GPUs, also in CUDA_VISIBLE_DEVICES
  bool operator==(const PlannedTask&) const = default;
};

struct Plan {
  std::string run_id;
  std::string experiment;
  std::vector<std::string> setup;    // shell lines before each task
  std::vector<std::string> secrets;  // names of variables that the supervisor adds to each task's environment
  std::vector<PlannedTask> tasks;    // ps, chief, workers, evaluator; with mpi: workers, mpirun, its daemons
  bool operator==(const Plan&) const = default;
};

// How many tasks the job has of each role. Without a backend: one worker, outside any cluster. With mpi: workers, which
// are the ranks.
TaskCounts CountsOf(const Job& job);

// How many ports each of `nodes` nodes must hold before the plan is made.
std::vector<int> PortsNeeded(const Job& job, int nodes);

// Places the tasks (layout.h) and writes down how each is started. REQUIRES: CheckJobFiles(job) is OK, for a script
// that ends neither in .py nor .sh is started directly. INVALID_ARGUMENT where the facts are not of
// node_count nodes (or of as many as there are tasks); RESOURCE_EXHAUSTED where a node has too few ports;
// FAILED_PRECONDITION naming the node that has too few GPUs.
absl::StatusOr<Plan> MakePlan(const Job& job, const PlanFacts& facts);

// host:port of the first basin-ps, which can be asked for the run's progress; empty where there is none.
std::string FirstPsAddress(const Plan& plan);
// The task whose outputs are the run's: the chief, without one worker 0. REQUIRES: a plan of MakePlan.
size_t ChiefTask(const Plan& plan);

// A plan written to JSON parses to the same plan; ParsePlan reads what PlanToJson wrote. INVALID_ARGUMENT for anything
// else, naming what is missing or of a wrong type.
std::string PlanToJson(const Plan& plan);
absl::StatusOr<Plan> ParsePlan(absl::string_view json);
// For people: each task's address, command (quoted for a shell), GPUs and TF_CONFIG.
std::string PlanToText(const Plan& plan);

}  // namespace basin
