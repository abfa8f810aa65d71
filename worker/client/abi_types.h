// What stands behind the opaque handles of basin.h, and how a Status becomes a basin_status.
#pragma once

#include <sys/types.h>

#include <deque>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "basin/basin.h"
#include "common/wire/control.pb.h"
#include "worker/client/client_session.h"
#include "worker/client/metrics_file.h"
#include "worker/client/narrowed_push.h"

namespace basin::abi {

// Whose process: compared on every call, so without asking the system.
struct Process {
  uint32_t forks = 0;  // this process is how many forks away from the one that loaded the library
  pid_t pid = 0;
};
Process ThisProcess();

}  // namespace basin::abi

struct basin_model {
  basin::wire::v1::Model proto;
  std::set<std::string, std::less<>> names;  // of its variables and tables
};

struct basin_client {
  std::shared_ptr<basin::ClientSession> session;  // shared with the calls' handles, which may outlive basin_close
  std::unique_ptr<basin::MetricsFile> metrics;    // nullptr: none are kept
  basin::abi::Process process;                    // that connected: a fork's child must not touch the session
  std::string role, run_id;
  uint32_t index = 0;
  bool is_chief = false;
  uint32_t worker_count = 0;
  uint32_t ps_count = 0;
  basin::DType gradient_dtype = basin::DType::kF32;  // what gradients of variables are sent as
  std::shared_ptr<basin::SpareMemory> spare_memory;  // for those that are sent in 16 bits
  basin::Mutex declare_mutex;                        // one Declare at a time: a ps keeps one of each task waiting
  // Barriers whose wait timed out, by name: the next basin_barrier of that name goes on waiting for them.
  basin::Mutex barriers_mutex;
  std::map<std::string, std::deque<basin::CallId>> barriers_in_doubt ABSL_GUARDED_BY(barriers_mutex);
  // The run's model as basin_get_variable and basin_get_table hand it out: replaced by basin_declare.
  basin::Mutex described_mutex;
  struct Described {
    std::string name;
    std::vector<int64_t> shape;
    basin_rule rule = {};
    basin_variable variable = {};
  };
  std::vector<std::unique_ptr<Described>> described ABSL_GUARDED_BY(described_mutex);
  struct DescribedTable {
    std::string name;
    basin_rule rule = {};
    basin_table table = {};
  };
  std::vector<std::unique_ptr<DescribedTable>> described_tables ABSL_GUARDED_BY(described_mutex);
};

struct basin_call {
  std::shared_ptr<basin::ClientSession> session;
  basin::abi::Process process;
  basin::CallId id = 0;
  basin::ClientSession::Lent lent;  // the call's buffers
  bool on_device = false;           // some of them are a device's memory
  basin::Mutex mutex;
  bool taken ABSL_GUARDED_BY(mutex) = false;
  basin::ClientCore::Result result ABSL_GUARDED_BY(mutex);
};

namespace basin::abi {

// Fills `out` where it is not NULL; returns the code.
int32_t Report(const absl::Status& status, basin_status* out);

// FAILED_PRECONDITION in a child made by fork.
absl::Status CheckProcess(const Process& owner);
absl::Status CheckProcess(const basin_client* client);
// INVALID_ARGUMENT for a name that is NULL, empty or too long.
absl::Status CheckName(const char* name, absl::string_view what);

// The deadline of a timeout in seconds; negative: none.
absl::Time Deadline(double timeout_s);

// DLPack's device types.
constexpr int32_t kCpu = 1, kCuda = 2;
// INVALID_ARGUMENT: of an unknown kind. NULL is none.
absl::StatusOr<DeviceStream> StreamOf(const basin_stream* stream);

// Copies the caller's struct, whose `size` says how much of it the caller knows; the rest is `defaults`.
template <class Struct>
Struct Known(const Struct* given, Struct defaults) {
  if (given != nullptr) {
    const size_t known = given->size < sizeof(Struct) ? given->size : sizeof(Struct);
    __builtin_memcpy(static_cast<void*>(&defaults), static_cast<const void*>(given), known);
  }
  defaults.size = sizeof(Struct);
  return defaults;
}

// As Known, for structs that the library fills.
template <class Struct>
void FillKnown(Struct value, Struct* out) {
  if (out == nullptr) return;
  const size_t known = out->size < sizeof(Struct) ? out->size : sizeof(Struct);
  value.size = out->size;
  __builtin_memcpy(static_cast<void*>(out), static_cast<const void*>(&value), known);
}

// Starts an update. Where memory ends before anything of it was numbered, nothing has happened; later, part of it may
// be queued with the caller's buffers in it, and the client is given up.
template <class Start>
absl::StatusOr<CallId> StartUpdate(basin_client* client, Start start, DeviceUpdate* on_device = nullptr) {
  const auto all_or_broken = [&](ClientCore& core, absl::Time now) -> absl::StatusOr<CallId> {
    const size_t calls = core.calls();
    try {
      return start(core, now);
    } catch (const std::bad_alloc&) {
      if (core.calls() == calls) throw;  // for the caller to report: nothing has happened
      const absl::Status broken = absl::ResourceExhaustedError(
          "memory ended within a call, which may be sent in part; this client is given up, connect anew");
      core.Abandon(broken);
      return broken;
    }
  };
  return client->session->RunUpdate(all_or_broken, on_device);
}

// Runs a call on the session from start to end.
template <class Start>
absl::Status RunToEnd(basin_client* client, absl::Time deadline, ClientCore::Result* result, Start start) {
  if (absl::Status status = CheckProcess(client); !status.ok()) return status;
  return client->session->Wait(client->session->Run(std::move(start)), deadline, result);
}

}  // namespace basin::abi
