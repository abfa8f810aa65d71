#include "tests/sim/sim_setup.h"

#include "absl/strings/str_cat.h"
#include "tests/sim/sim_worker.h"

namespace basin::sim {

std::string Address(uint32_t ps, uint32_t lane) { return absl::StrCat("ps", ps, ":", 2222 + lane); }

LaneCoreOptions LaneOptionsOf(const SimOptions& options, uint32_t ps, uint32_t lane, uint64_t ps_incarnation,
                              const std::vector<std::string>& addresses) {
  LaneCoreOptions core;
  core.ordinal = PsOrdinal(ps);
  core.lane = LaneIndex(lane);
  core.lanes = options.lanes;
  core.ps_count = options.ps_count;
  core.ps_incarnation = ps_incarnation;
  core.run_id = ps == 0 ? "sim" : "";
  core.host = "sim";
  core.lane_addresses = addresses;
  core.address = Address(ps, 0);
  for (uint32_t worker = 0; worker < options.workers; ++worker) core.trainers.push_back({Role::kWorker, worker});
  core.chief = TaskId{Role::kWorker, 0};
  core.heartbeat = kHeartbeat;
  core.dead_after = kDeadAfter;
  core.inline_below = [](wire::PeerId) { return 1; };  // every answer refers to the shard
  return core;
}

wire::v1::Model ModelOf(const SimOptions& options) {
  wire::v1::Model model;
  auto* variable = model.add_variables();
  variable->set_name("marks");
  variable->set_dtype(2);
  variable->add_shape(kVariableElements);
  variable->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
  auto* table = model.add_tables();
  table->set_name("rows");
  table->set_dim(kRowDim);
  table->set_storage(2);
  table->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
  table->set_admit_after(1);
  table->set_admit_probability(1);
  model.mutable_rule()->set_kind(wire::v1::RULE_KIND_SGD);
  model.mutable_rule()->set_learning_rate(1);
  model.set_consistency(wire::v1::CONSISTENCY_ASYNC);
  auto* input = model.add_inputs();
  input->set_name("train");
  input->set_items(options.pieces);
  input->set_piece_items(1);
  input->set_epochs(1);
  input->set_shuffle_seed(options.seed | 1);
  return model;
}

}  // namespace basin::sim
