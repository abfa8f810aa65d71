// Where an agent of a node keeps its things: BASE/runs/RUN/node-K/, which only this user may enter.
//
//   agent.sock  agent.lock  agent.log  token
//   logs/ROLE-I.txt  logs/environment-K.txt     what tasks and preparations print
//   tasks/ROLE-I/                               a task's own tree, its working directory
//   metrics/ROLE-I.jsonl
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/unique_fd.h"

namespace basin {

struct NodeFolder {
  std::string base;  // absolute
  std::string run_id;
  uint32_t node = 0;
  std::string path;  // BASE/runs/RUN/node-K
  UniqueFd fd;       // of path

  std::string Token() const { return path + "/token"; }
  std::string AgentLog() const { return path + "/agent.log"; }
  std::string Logs() const { return path + "/logs"; }
  std::string Tasks() const { return path + "/tasks"; }
  std::string Metrics() const { return path + "/metrics"; }
};

inline constexpr uint32_t kMostNodes = 10'000;

// A run's id as it may become a folder's name. INVALID_ARGUMENT says what is wrong with it.
absl::Status CheckRunId(absl::string_view run_id);

// Makes what is missing. PERMISSION_DENIED where a folder below the base belongs to another user, is a link, or the
// base may be written by others: whoever could rename there could become this user.
absl::StatusOr<NodeFolder> MakeNodeFolder(const std::string& base, const std::string& run_id, uint32_t node);

// Makes a folder of the node's folder. OK where it is there.
absl::Status MakeFolderIn(const NodeFolder& folder, const char* name);

// The base where the launcher names none: `cache` (BASIN_CACHE), else `xdg_cache`/basin, else `home`/.cache/basin. A
// leading "~/" of `named` is `home`. INVALID_ARGUMENT where nothing is known.
absl::StatusOr<std::string> ChooseBase(const std::string& named, const std::string& cache, const std::string& xdg_cache,
                                       const std::string& home);

// The lock of the folder, held as long as the descriptor: whoever starts or removes an agent has it. -1 where it cannot
// be had: held by another (`may_wait` false), or the folder is gone.
UniqueFd LockFolder(const NodeFolder& folder, bool may_wait);

// Removes the node's folder with all in it, and the run's where this was its last node.
absl::Status RemoveNodeFolder(const NodeFolder& folder);

// Unix sockets in the node's folder, however long its path is. `Listen` replaces a socket that nobody answers on.
absl::StatusOr<UniqueFd> ListenIn(const NodeFolder& folder, const char* name);
// NOT_FOUND where nobody listens: there is no socket, or one that a process which is gone has left. UNAVAILABLE where
// somebody does, but has no room for one more now. Other codes where it cannot be known.
absl::StatusOr<UniqueFd> ConnectIn(const NodeFolder& folder, const char* name);

}  // namespace basin
