// Any text is either refused with a message, or read into a job that is written and read back as the same job, and
// planned.
#include <cstddef>
#include <cstdint>
#include <string>

#include "common/base/status_macros.h"
#include "estimator/job/job.h"
#include "estimator/job/plan.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  basin::JobOverrides overrides;
  if (size > 0 && data[0] == '#') overrides.base_folder = "/jobs";
  const auto job = basin::ParseJob({reinterpret_cast<const char*>(data), size}, "job.yaml", overrides);
  if (!job.ok()) {
    BASIN_CHECK(!job.status().message().empty());
    return 0;
  }
  auto again = basin::ParseJob(basin::JobToJson(*job), "job.json");
  BASIN_CHECK(again.ok());
  again->warnings = job->warnings;
  BASIN_CHECK(*again == *job);

  basin::PlanFacts facts;
  facts.run_id = "r";
  const std::vector<int> ports = basin::PortsNeeded(*job, job->node_count);
  for (int i = 0; i < job->node_count; ++i) {
    basin::NodeFacts node;
    node.host = "n" + std::to_string(i);
    for (int port = 0; port < ports[i]; ++port) node.free_ports.push_back(2222 + port);
    node.gpus = {"GPU-a", "GPU-b"};
    facts.nodes.push_back(node);
  }
  const auto plan = basin::MakePlan(*job, facts);
  if (!plan.ok()) {
    BASIN_CHECK(job->use_gpu);  // with fewer devices than workers
    return 0;
  }
  const auto same = basin::ParsePlan(basin::PlanToJson(*plan));
  BASIN_CHECK(same.ok() && *same == *plan);
  BASIN_CHECK(!basin::PlanToText(*plan).empty());
  return 0;
}
