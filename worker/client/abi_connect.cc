// basin.h: options, connecting, the task, leaving.
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cluster_spec/cluster_view.h"
#include "cluster_spec/host_port.h"
#include "cluster_spec/tf_config.h"
#include "common/base/dtype.h"
#include "common/base/files.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "common/codec/half.h"
#include "common/wire/host_transport.h"
#include "common/wire/memory_mapping.h"
#include "common/wire/registered_memory.h"
#include "worker/client/abi_types.h"

namespace basin::abi {

int32_t Report(const absl::Status& status, basin_status* out) {
  if (out != nullptr) {
    out->code = static_cast<int32_t>(status.code());
    const absl::string_view message = status.message();
    const size_t size = std::min(message.size(), sizeof(out->message) - 1);
    std::memcpy(out->message, message.data(), size);
    out->message[size] = '\0';
  }
  return static_cast<int32_t>(status.code());
}

absl::Status CheckProcess(const basin_client* client) {
  if (client == nullptr) return absl::InvalidArgumentError("the client is NULL");
  return CheckProcess(client->process);
}

absl::Status CheckName(const char* name, absl::string_view what) {
  if (name == nullptr || *name == '\0') return absl::InvalidArgumentError(absl::StrCat(what, " has no name"));
  if (strnlen(name, kMaxNameBytes + 1) <= kMaxNameBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " has a name of ", std::strlen(name), " bytes, at most ", kMaxNameBytes, " are allowed"));
}

namespace {

std::atomic<uint32_t> forks{0};
[[maybe_unused]] const int counts_forks = pthread_atfork(nullptr, nullptr, [] { ++forks; });

}  // namespace

Process ThisProcess() { return {.forks = forks.load(std::memory_order_relaxed), .pid = getpid()}; }

absl::Status CheckProcess(const Process& owner) {
  if (owner.forks == forks.load(std::memory_order_relaxed)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this client belongs to process ", owner.pid, ", of which this one (", getpid(),
                   ") was forked; connect in the child, or spawn it before connecting"));
}

absl::Time Deadline(double timeout_s) {
  return timeout_s < 0 ? absl::InfiniteFuture() : absl::Now() + absl::Seconds(timeout_s);
}

namespace {

absl::StatusOr<DType> GradientType(const char* name) {
  const absl::string_view given = name == nullptr ? "" : name;
  if (given.empty() || given == "float32") return DType::kF32;
  if (given == "float16") return DType::kF16;
  if (given == "bfloat16") return DType::kBF16;
  return absl::InvalidArgumentError(
      absl::StrCat("gradient_dtype \"", given, "\": expected float32, float16 or bfloat16"));
}

absl::StatusOr<ClientSessionOptions> SessionOptions(const basin_options& options, basin_client& client) {
  ClientSessionOptions session;
  ClientCoreOptions& core = session.core;
  if (options.tf_config != nullptr) {
    BASIN_ASSIGN_OR_RETURN(const TfConfig config, ParseTfConfig(options.tf_config));
    if (options.observer != 0) {
      // An observer needs to know the parameter servers alone; any task of the cluster may look.
      BASIN_ASSIGN_OR_RETURN(const ClusterView view, Resolve(config, {.task_type = "evaluator", .task_index = 0}));
      for (const Peer& ps : view.ps) core.ps_addresses.push_back(ps.address);
    } else {
      BASIN_ASSIGN_OR_RETURN(const ClusterView view, Resolve(config));
      if (options.log != 0) {
        for (const std::string& warning : view.warnings) Warn(warning);
      }
      if (view.self.role == Role::kPs) {
        return absl::InvalidArgumentError(
            absl::StrCat("TF_CONFIG says that this task is ", view.self.Sentence(),
                         ", and a client is a chief, worker or evaluator; run basin-ps for that task"));
      }
      core.role = static_cast<wire::v1::Role>(view.self.role);
      core.index = view.self.index;
      core.is_chief = view.is_chief;
      client.worker_count = static_cast<uint32_t>(view.trainers().size());
      for (const Peer& ps : view.ps) core.ps_addresses.push_back(ps.address);
    }
  } else if (options.ps_address != nullptr) {
    BASIN_RETURN_IF_ERROR(ParseHostPort(options.ps_address).status());
    core.ps_addresses.push_back(options.ps_address);
  }
  if (core.ps_addresses.empty()) {
    return absl::InvalidArgumentError(
        options.tf_config != nullptr
            ? "TF_CONFIG names no parameter server (cluster.ps); add one, or run `basin-worker`, which starts its own"
            : "neither TF_CONFIG nor a parameter server's address is given; set TF_CONFIG, or ps_address (host:port) "
              "for an observer");
  }
  if (options.tf_config == nullptr && options.observer == 0) {
    return absl::InvalidArgumentError(
        "a training task needs TF_CONFIG; with ps_address alone only an observer can connect");
  }
  if (options.run_id != nullptr) core.run_id = options.run_id;
  if (options.token_file != nullptr) {
    BASIN_ASSIGN_OR_RETURN(const std::string token, ReadFile(options.token_file, 4096));
    core.token = std::string(absl::StripAsciiWhitespace(token));
    if (core.token.empty())
      return absl::InvalidArgumentError(absl::StrCat("token file ", options.token_file, " is empty"));
  }
  char host[256] = "";
  if (gethostname(host, sizeof(host) - 1) == 0) core.host = host;
  core.pid = static_cast<uint64_t>(getpid());
  core.client_id = SecretHex(16);
  core.start_timeout = absl::Seconds(options.start_timeout_s);
  core.unreachable_timeout = absl::Seconds(options.unreachable_timeout_s);
  core.claim_timeout = absl::Seconds(options.claim_timeout_s);
  BASIN_ASSIGN_OR_RETURN(core.gradient_dtype, GradientType(options.gradient_dtype));
  session.max_bytes_in_flight = options.max_bytes_in_flight;
  session.log = options.log != 0;
  return session;
}

absl::Status Connect(const basin_options& options, basin_client& client) {
  BASIN_ASSIGN_OR_RETURN(ClientSessionOptions session, SessionOptions(options, client));
  switch (session.core.role) {
    case wire::v1::ROLE_CHIEF:
      client.role = "chief";
      break;
    case wire::v1::ROLE_WORKER:
      client.role = "worker";
      break;
    case wire::v1::ROLE_EVALUATOR:
      client.role = "evaluator";
      break;
    default:
      client.role = "observer";
  }
  client.index = session.core.index;
  client.is_chief = session.core.is_chief;
  client.ps_count = static_cast<uint32_t>(session.core.ps_addresses.size());
  client.process = ThisProcess();
  wire::HostDialerOptions dialer;
  if (options.transport != nullptr && *options.transport != '\0') {
    BASIN_ASSIGN_OR_RETURN(dialer.kind, wire::TransportKindFromName(options.transport));
  }
  // The session bounds what is in flight; the transport must not cut a channel for it.
  dialer.transport.max_bytes_in_flight = SIZE_MAX;
  if (options.keep_memory != 0) wire::KeepMemoryMapped();
  client.gradient_dtype = session.core.gradient_dtype;
  if (IsHalf(client.gradient_dtype)) client.spare_memory = SpareMemory::Make(session.max_bytes_in_flight);
  dialer.transport.spin = absl::Microseconds(options.spin_us);
  if (options.metrics_file != nullptr && *options.metrics_file != '\0') {
    MetricsFile::Tell tell;
    if (session.log) {
      tell = [who = absl::StrCat(client.role, " ", client.index)](const std::string& line) {
        Warn(absl::StrCat(who, ": ", line));
      };
    }
    client.metrics = std::make_unique<MetricsFile>(options.metrics_file, std::move(tell));
  }
  if (session.log) {
    dialer.tell = [who = absl::StrCat(client.role, " ", client.index)](const std::string& line) {
      Info(absl::StrCat(who, ": ", line));
    };
  }
  BASIN_ASSIGN_OR_RETURN(client.session, ClientSession::Connect(std::move(session), wire::MakeHostDialer(dialer)));
  client.run_id = client.session->Run([](ClientCore& core, absl::Time) { return core.run_id(); });
  return absl::OkStatus();
}

}  // namespace
}  // namespace basin::abi

using basin::abi::Report;

extern "C" {

int32_t basin_abi_version(void) { return BASIN_ABI_VERSION; }
const char* basin_version(void) { return BASIN_VERSION; }

void basin_options_init(basin_options* options, size_t size) {
  basin_options defaults = {};
  defaults.size = size;
  defaults.start_timeout_s = 600;
  defaults.unreachable_timeout_s = 60;
  defaults.claim_timeout_s = 30;
  defaults.max_bytes_in_flight = uint64_t{256} << 20;
  defaults.spin_us = 50;
  defaults.keep_memory = 1;
  if (options == nullptr) return;
  options->size = size;
  basin::abi::FillKnown(defaults, options);
}

int32_t basin_connect(const basin_options* options, basin_client** client, basin_status* status) {
  if (options == nullptr || client == nullptr) {
    return Report(absl::InvalidArgumentError("basin_connect: options or client is NULL"), status);
  }
  *client = nullptr;
  basin_options defaults;
  basin_options_init(&defaults, sizeof(defaults));
  auto connected = std::make_unique<basin_client>();
  const absl::Status result = basin::abi::Connect(basin::abi::Known(options, defaults), *connected);
  if (result.ok()) *client = connected.release();
  return Report(result, status);
}

void basin_close(basin_client* client) {
  if (client == nullptr) return;
  // In a fork's child nothing may be touched: its threads are gone and the sockets are the parent's.
  if (!basin::abi::CheckProcess(client).ok()) return;
  client->session->Close();
  delete client;
}

void basin_get_task(basin_client* client, basin_task* task) {
  basin_task known = {};
  if (client == nullptr) return basin::abi::FillKnown(known, task);
  known.role = client->role.c_str();
  known.index = client->index;
  known.is_chief = client->is_chief ? 1 : 0;
  known.run_id = client->run_id.c_str();
  known.worker_count = client->worker_count;
  known.ps_count = client->ps_count;
  basin::abi::FillKnown(known, task);
}

void* basin_allocate(size_t bytes) { return basin::wire::AllocateRegistered(bytes); }
void basin_deallocate(void* memory) { basin::wire::DeallocateRegistered(memory); }

void basin_free_text(char* text) { std::free(text); }

}  // extern "C"
