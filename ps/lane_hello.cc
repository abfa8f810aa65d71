// Whom a lane lets in: the checks of docs/wire.md "Hello", in its order.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/limits.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "ps/coordinator.h"
#include "ps/lane_core.h"
#include "ps/lane_rows.h"
#include "ps/mutants.h"
#include "ps/presence.h"
#include "ps/run_spec.h"
#include "ps/shard.h"
#include "ps/shard_device.h"

namespace basin {
namespace {

constexpr size_t kMaxIdBytes = 256;
// What a Welcome says of shards stays well within a frame; the list only serves a check.
constexpr int kMaxApplied = 100'000;

bool Trains(wire::v1::Role role) { return role == wire::v1::ROLE_CHIEF || role == wire::v1::ROLE_WORKER; }

}  // namespace

absl::Status LaneCore::CheckRun(const wire::v1::Hello& hello) const {
  const auto claimed = [&] {
    return claimant_ ? absl::StrCat(" (claimed by pid ", claimant_->pid, " on ", claimant_->host, " at ",
                                    absl::FormatTime("%H:%M:%S", claimant_->at, absl::UTCTimeZone()), " UTC)")
                     : "";
  };
  if (hello.run_id().empty() && options_.ordinal.value() != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(Me(), ": a Hello without a run id; say Hello to ps 0 first, it tells the run's"));
  }
  if (hello.run_id().size() > kMaxIdBytes)
    return absl::InvalidArgumentError(absl::StrCat("a run id has at most ", kMaxIdBytes, " bytes"));
  if (!run_id_.empty() && !hello.run_id().empty() && hello.run_id() != run_id_) {
    return absl::FailedPreconditionError(
        absl::StrCat(Me(), " belongs to run \"", run_id_, "\"", claimed(), ", this client to run \"", hello.run_id(),
                     "\"; give each run its own ps, or wait until that one has ended"));
  }
  if (hello.role() == wire::v1::ROLE_OBSERVER) return absl::OkStatus();
  if (hello.ps_count() < 1 || hello.ps_count() > kMaxTasks || hello.ps_ordinal() >= hello.ps_count()) {
    return absl::FailedPreconditionError(
        absl::StrCat("a Hello for ps ", hello.ps_ordinal(), " of ", hello.ps_count(), " makes no sense"));
  }
  if (hello.ps_ordinal() != options_.ordinal.value()) {
    return absl::FailedPreconditionError(absl::StrCat("this is ps ", options_.ordinal.value(), claimed(),
                                                      ", the client takes it for ps ", hello.ps_ordinal(),
                                                      "; give all tasks the same list of ps"));
  }
  if (ps_count_ != 0 && hello.ps_count() != ps_count_) {
    return absl::FailedPreconditionError(absl::StrCat(Me(), " is one of ", ps_count_, " ps", claimed(),
                                                      ", the client knows ", hello.ps_count(),
                                                      "; give all tasks the same list of ps"));
  }
  return absl::OkStatus();
}

absl::Status LaneCore::CheckLife(const wire::v1::Hello& hello) const {
  if (hello.lane() != options_.lane.value()) {
    return absl::InvalidArgumentError(absl::StrCat("this is lane ", options_.lane.value(), " of ps ",
                                                   options_.ordinal.value(), ", the client takes it for lane ",
                                                   hello.lane()));
  }
  if (hello.ps_incarnation() != 0 && hello.ps_incarnation() != options_.ps_incarnation) {
    return absl::DataLossError(
        absl::StrCat("ps ", options_.ordinal.value(), " was restarted and has lost its shards; start the job again"));
  }
  return absl::OkStatus();
}

absl::Status LaneCore::CheckRole(const wire::v1::Hello& hello) const {
  const std::string task = Sentence(hello.role(), hello.index());
  if (hello.role() < wire::v1::ROLE_CHIEF || hello.role() > wire::v1::ROLE_OBSERVER ||
      hello.role() == wire::v1::ROLE_PS) {
    return absl::InvalidArgumentError(
        absl::StrCat(task, " is no client; clients are chief, worker, evaluator and observers"));
  }
  if (hello.index() >= kMaxTasks)
    return absl::InvalidArgumentError(absl::StrCat(task, ": an index is below ", kMaxTasks));
  if (hello.client_id().empty() || hello.client_id().size() > kMaxIdBytes || hello.host().size() > kMaxIdBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(task, ": a client id of 1 to ", kMaxIdBytes, " bytes is needed, and a host of at most that"));
  }
  if (Trains(hello.role()) && !options_.trainers.empty()) {
    const TaskId id{hello.role() == wire::v1::ROLE_CHIEF ? Role::kChief : Role::kWorker, hello.index()};
    if (std::find(options_.trainers.begin(), options_.trainers.end(), id) == options_.trainers.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(task, " is not in the cluster, which has ",
                       absl::StrJoin(options_.trainers, ", ",
                                     [](std::string* out, const TaskId& t) { absl::StrAppend(out, t.Sentence()); }),
                       "; give all tasks the same cluster in TF_CONFIG"));
    }
  }
  const uint32_t worker = wire::WorkerKey(hello.role(), hello.index());
  const bool knows_chief = chief_ && Trains(hello.role());
  if (hello.is_chief() && (!Trains(hello.role()) || (knows_chief && *chief_ != worker))) {
    return absl::InvalidArgumentError(absl::StrCat(
        task, " says it is the chief, which is ",
        chief_ ? Sentence(static_cast<wire::v1::Role>(*chief_ >> 24), *chief_ & 0xffffff) : "a chief or a worker",
        "; give all tasks the same cluster in TF_CONFIG"));
  }
  if (!hello.is_chief() && options_.chief && *chief_ == worker) {
    return absl::InvalidArgumentError(absl::StrCat(
        task, " is the chief of this cluster and does not say so; give all tasks the same cluster in TF_CONFIG"));
  }
  return absl::OkStatus();
}

absl::Status LaneCore::CheckFence(const wire::v1::Hello& hello) const {
  if (hello.role() == wire::v1::ROLE_OBSERVER) {
    return hello.incarnation() == 0 ? absl::OkStatus() : absl::InvalidArgumentError("an observer has no incarnation");
  }
  const auto fence = fences_.find(wire::WorkerKey(hello.role(), hello.index()));
  if (hello.incarnation() == 0) {
    // The coordinator gives one (Claim).
    return coordinator_ ? absl::OkStatus()
                        : absl::InvalidArgumentError(
                              absl::StrCat(Me(), ": a Hello without an incarnation; say Hello to ps 0, lane 0 first"));
  }
  if (fence != fences_.end() && hello.incarnation() < fence->second.incarnation.value() && !BASIN_MUTANT(kSkipFence))
    return Replaced(fence->second);
  return absl::OkStatus();
}

absl::Status LaneCore::CheckHello(const wire::v1::Hello& hello) const {
  if (hello.protocol_version() != wire::kProtocolVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the client (Basin ", hello.basin_version(), ") speaks protocol version ", hello.protocol_version(), ", ", Me(),
        " speaks ", wire::kProtocolVersion, "; install the same Basin on both"));
  }
  if (!options_.token.empty() && !SecretEquals(options_.token, hello.token())) {
    return absl::UnauthenticatedError(absl::StrCat(Me(), " wants this run's token, and the client ",
                                                   hello.token().empty() ? "showed none" : "showed another",
                                                   "; point BASIN_TOKEN_FILE at the run's token file"));
  }
  BASIN_RETURN_IF_ERROR(CheckRun(hello));
  BASIN_RETURN_IF_ERROR(CheckLife(hello));
  BASIN_RETURN_IF_ERROR(CheckRole(hello));
  return CheckFence(hello);
}

void LaneCore::Bind(const wire::v1::Hello& hello, absl::Time now) {
  if (run_id_.empty()) {
    run_id_ = hello.run_id();
    run_hash_ = wire::RunHash(run_id_);
  }
  if (hello.role() == wire::v1::ROLE_OBSERVER) return;
  if (ps_count_ == 0) {
    ps_count_ = hello.ps_count();
    if (coordinator_) coordinator_->SetPsCount(ps_count_);
  }
  if (!claimant_) claimant_ = Claimant{hello.host(), hello.pid(), now};
  if (hello.is_chief()) chief_ = wire::WorkerKey(hello.role(), hello.index());
}

void LaneCore::OnHello(wire::PeerId peer, const wire::Parsed& parsed, absl::Time now) {
  wire::v1::Hello hello;
  if (!hello.ParseFromArray(parsed.body.data(), static_cast<int>(parsed.body.size()))) {
    counters_->malformed.Add();
    return Refuse(peer, parsed.header.request,
                  absl::InvalidArgumentError("malformed message: the body of Hello cannot be read"));
  }
  absl::Status status = CheckHello(hello);
  Session session{.peer = peer,
                  .role = hello.role(),
                  .index = hello.index(),
                  .is_chief = hello.is_chief(),
                  .client_id = hello.client_id(),
                  .incarnation = Incarnation(hello.incarnation()),
                  .host = hello.host(),
                  .pid = hello.pid(),
                  .knows_all_ps = ps_count_ == 0 ||
                                  (hello.ps_count() == ps_count_ && hello.ps_ordinal() == options_.ordinal.value()),
                  .last_heard = now};
  const bool task = hello.role() != wire::v1::ROLE_OBSERVER;
  if (status.ok() && !task && presence_ && presence_->clients().size() >= kMaxConnectionsPerLane) {
    status = absl::ResourceExhaustedError(absl::StrCat(Me(), " has ", presence_->clients().size(), " clients already"));
  }
  if (status.ok() && task && coordinator_) {
    absl::StatusOr<Incarnation> incarnation = coordinator_->Claim(hello, now);
    status = incarnation.status();
    if (incarnation.ok()) session.incarnation = *incarnation;
  }
  if (!status.ok()) {
    if (status.code() == absl::StatusCode::kUnauthenticated) {
      Note(absl::StrCat("refused ", Sentence(hello.role(), hello.index()), " (pid ", hello.pid(), " on ",
                        hello.host().substr(0, kMaxIdBytes), "): its token is not this run's"));
    }
    return Refuse(peer, parsed.header.request, status);
  }
  Bind(hello, now);
  if (task) {
    Fence& fence = fences_[session.worker()];
    if (session.incarnation > fence.incarnation) fence = {session.incarnation, session.host, session.pid};
    seen_.insert(session.worker());
    if (BASIN_MUTANT(kForgetSequenceOnReconnect)) {
      for (const auto& shard : shards_) {
        if (shard) shard->ForgetSequence(session.worker());
      }
    }
    if (BASIN_MUTANT(kForgetBucketsOnReconnect)) rows_->ForgetSequences(session.worker());
  }
  const Session& opened = sessions_.Open(session, kMaxConnectionsPerLane);
  if (presence_ && presence_->Arrive(opened, now) && coordinator_) {
    if (task)
      Note(
          absl::StrCat(Sentence(session.role, session.index), " joined (pid ", session.pid, " on ", session.host, ")"));
    coordinator_->OnArrived(*presence_->Find(opened.key()), now);
  }
  SendWelcome(session);
  Forward();
}

void LaneCore::SendWelcome(const Session& session) {
  wire::v1::Welcome welcome;
  welcome.set_protocol_version(wire::kProtocolVersion);
  welcome.set_run_id(run_id_);
  welcome.set_incarnation(session.incarnation.value());
  welcome.set_ps_incarnation(options_.ps_incarnation);
  if (coordinator_) welcome.set_view(coordinator_->view().value());
  if (model_) welcome.set_spec_hash(model_->hash());
  if (options_.device) welcome.set_device_id(options_.device->id());
  for (const uint32_t table : rows_->tables_on_device()) welcome.add_tables_on_device(table);
  if (options_.lane.value() == 0) {
    for (const std::string& address : options_.lane_addresses) welcome.add_lane_addresses(address);
    if (welcome.lane_addresses_size() == 0) welcome.add_lane_addresses("");
  }
  welcome.set_heartbeat_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.heartbeat)));
  welcome.set_dead_after_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.dead_after)));
  if (session.trains()) {
    for (const auto& shard : shards_) {
      if (!shard) continue;
      const Sequence last = shard->last_sequence(session.worker(), session.incarnation);
      if (last.value() == 0) continue;
      if (welcome.applied_size() >= kMaxApplied) {
        welcome.set_applied_is_cut(true);
        break;
      }
      auto* applied = welcome.add_applied();
      applied->set_shard(shard->id().value());
      applied->set_sequence(last.value());
    }
    rows_->ListApplied(session.worker(), session.incarnation, kMaxApplied, &welcome);
  }
  *welcome.mutable_state() = State();
  welcome.set_host(options_.host);
  welcome.set_pid(options_.pid);
  Send(session.peer, 0, wire::Kind::kWelcome, welcome.SerializeAsString());
}

}  // namespace basin
