// How Open MPI's mpirun is asked to start the ranks of a run, and what its messages mean. Pure.
//
// mpirun starts one process a rank, by its own hands on the first node and by a daemon, orted, on each other one. It
// would start the daemons by ssh; here `basin mpi-daemon` takes ssh's place, which asks the agents, so that nodes need
// not reach each other by ssh. What it starts as a rank is `basin mpi-rank`, which stands for the rank before mpirun,
// while the rank itself is a task of its node's agent like any other (estimator/agent/mpi_door.h).
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "estimator/job/job.h"

namespace basin {

// Each node but the first has a name of Basin's own before mpirun, which takes a node that it knows by another name for
// a second one, and one with the name of its own machine for itself.
std::string MpiHostName(int node);
// nullopt for a name that MpiHostName does not give.
std::optional<int> NodeOfMpiHost(absl::string_view host);

// Rank r is on node r / ranks_per_node. REQUIRES: both >= 1.
std::vector<std::string> MpirunCommand(int nodes, int ranks_per_node);
// Of a daemon, until mpirun has said with which words.
std::vector<std::string> OrtedCommand();
// With those words, as they came to take ssh's place: one line for a shell.
std::vector<std::string> OrtedCommand(const std::string& line);

// Settings of Open MPI (OMPI_MCA_...) for mpirun, which hands them on to the ranks. The job's own variables win.
std::vector<std::pair<std::string, std::string>> MpirunSettings(const PortRange& ports);
// The setting that says where the ranks of a node have their shared memory.
inline constexpr char kSharedMemorySetting[] = "OMPI_MCA_btl_vader_backing_directory";

// What a rank that was started elsewhere must be given of the environment in which mpirun started its stand-in.
bool IsMpiVariable(absl::string_view name);

// The exit code of a rank that has lost the daemon of its node.
inline constexpr int kLostDaemonCode = 195;

// `printed`: by `mpirun --version`, `code`: how that ended. OK and *version ("Open MPI 4.1.4") for an mpirun whose
// flags are those above; FAILED_PRECONDITION that names what was found instead.
absl::Status CheckMpirun(absl::string_view printed, int code, std::string* version);

}  // namespace basin
