// What `basin doctor` and the `basin doctor-node` that it starts on each node say to each other: one JSON object a
// line, asked on standard input, answered on standard output behind a word that no shell's greeting begins with. Pure.
//
//   node:   BASIN-DOCTOR {"hello": {...}}
//   asked:  {"look_request": {...}}       answered: BASIN-DOCTOR {"look": {...}}
//           {"reach": [...]}                        BASIN-DOCTOR {"reached": [...]}
//           {"folders_request": {...}}              BASIN-DOCTOR {"folders": [...]}
//
// The node ends, and lets go of its ports, at the end of its input.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

inline constexpr char kDoctorMagic[] = "BASIN-DOCTOR ";
// What is read of one line, at most.
inline constexpr size_t kMostDoctorLine = size_t{1} << 20;

struct DoctorHello {
  std::string version;
  std::string host_name;
  std::string machine;
  std::string libc;
  int gpus = 0;
  std::string gpu_problem;  // why there are none
  uint64_t shm_bytes = 0;
  uint64_t open_files = 0;
};

struct DoctorPath {
  std::string name;
  std::string path;
};
struct DoctorLookRequest {
  std::vector<std::string> resolve;  // addresses of the nodes, in their order
  int ports = 0;                     // how many
  int first_port = 0;                // of the range that follows 2222, 2223, ...
  int last_port = 0;
  std::string bind_address;
  std::string nonce;  // what its ports say to whoever connects
  std::vector<DoctorPath> inputs;
  bool pip = false;
  bool conda = false;
  bool mpi = false;
  std::string container;  // a ContainerRequest's text; empty: none
};
struct DoctorResolved {
  std::string name;
  std::vector<std::string> ips;
  std::string problem;  // empty where it resolves
};
struct DoctorLook {
  std::vector<DoctorResolved> resolved;
  std::vector<int> ports;                  // that it holds now, and answers on
  std::string ports_problem;               // why there are fewer than asked for
  std::string ports_note;                  // on which address
  std::vector<DoctorPath> input_problems;  // name, and what is wrong
  std::string python_problem;              // empty where it can make environments, or was not asked
  std::string conda_problem;
  std::string mpi_problem;
  std::string container_problem;
  std::string container_found;  // "podman 4.3.1, image 922d7444a77e"; with a problem: what a run would do about it
  std::string mpi_version;      // "Open MPI 4.1.4"
};

struct DoctorPeer {
  int node = 0;
  std::string address;
  std::vector<int> ports;
  std::string nonce;
};
enum class DoctorReach { kAnswered, kTimedOut, kRefused, kUnreachable, kStranger };
struct DoctorReached {
  int node = 0;
  int port = 0;
  std::string address;
  DoctorReach how = DoctorReach::kAnswered;
  std::string problem;  // in the system's words
};

struct DoctorFolders {
  std::string what;  // "write", "read", "remove"
  std::string nonce;
  std::vector<std::string> folders;
};
struct DoctorFolder {
  std::string path;
  std::string problem;   // empty: done
  bool is_there = true;  // the folder itself
};

// One line without its end. Exactly one of the fields is there.
struct DoctorMessage {
  std::optional<DoctorHello> hello;
  std::optional<DoctorLookRequest> look_request;
  std::optional<DoctorLook> look;
  std::optional<std::vector<DoctorPeer>> reach;
  std::optional<std::vector<DoctorReached>> reached;
  std::optional<DoctorFolders> folders_request;
  std::optional<std::vector<DoctorFolder>> folders;
};
std::string DoctorMessageToLine(const DoctorMessage& message);
// INVALID_ARGUMENT for what is none.
absl::StatusOr<DoctorMessage> ParseDoctorLine(absl::string_view line);

}  // namespace basin
