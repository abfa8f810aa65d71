#include "estimator/job/mpi_command.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/text.h"

namespace basin {
namespace {

constexpr char kHostPrefix[] = "basin-node-";
constexpr char kOpenMpi[] = "(Open MPI) ";
constexpr size_t kMostShown = 200;

// The lines of a text that say what it is: the first, and MPICH's with the version.
std::string Gist(absl::string_view printed) {
  std::string first, version;
  for (absl::string_view line : absl::StrSplit(printed, '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (first.empty()) first = std::string(line);
    if (version.empty() && absl::StartsWith(line, "Version:")) version = absl::StrCat(" ", line);
  }
  return absl::StrCat(first, version).substr(0, kMostShown);
}

}  // namespace

std::string MpiHostName(int node) { return node == 0 ? "localhost" : absl::StrCat(kHostPrefix, node); }

std::optional<int> NodeOfMpiHost(absl::string_view host) {
  int node = 0;
  if (!absl::ConsumePrefix(&host, kHostPrefix) || !absl::SimpleAtoi(host, &node) || node < 1) return std::nullopt;
  if (absl::StrCat(node) != host) return std::nullopt;
  return node;
}

std::vector<std::string> MpirunCommand(int nodes, int ranks_per_node) {
  std::string hosts;
  for (int node = 0; node < nodes; ++node) {
    absl::StrAppend(&hosts, node == 0 ? "" : ",", MpiHostName(node), ":", ranks_per_node);
  }
  return {"mpirun", "--allow-run-as-root",
          // Each node has a PATH of its own, with its own Basin and Open MPI: not the folder where mpirun lies here.
          "--noprefix",
          // Hosts as they are given, whatever allocation this may run in; daemons that stay children, for their guard.
          "-mca", "ras", "^slurm,tm,lsf,gridengine,alps,simulator", "-mca", "plm", "rsh", "-mca", "plm_rsh_agent",
          "basin mpi-daemon", "-mca", "plm_rsh_no_tree_spawn", "1", "-mca", "orte_do_not_resolve", "1", "-mca",
          "orte_keep_fqdn_hostnames", "1", "--leave-session-attached",
          // Ranks node by node, each free to use all cores.
          "--map-by", "slot", "--bind-to", "none", "--host", hosts, "-np", absl::StrCat(nodes * ranks_per_node),
          // A folder that every node has: the ranks have their own.
          "-wdir", "/", "basin", "mpi-rank"};
}

std::vector<std::string> OrtedCommand() { return {"orted"}; }

std::vector<std::string> OrtedCommand(const std::string& line) { return {"sh", "-c", line}; }

std::vector<std::pair<std::string, std::string>> MpirunSettings(const PortRange& ports) {
  // Those of the daemons cannot be chosen: oob_tcp_dynamic_ipv4_ports ends Debian's mpirun 4.1 by SIGABRT.
  return {{"OMPI_MCA_btl_tcp_port_min_v4", absl::StrCat(ports.first)},
          {"OMPI_MCA_btl_tcp_port_range_v4", absl::StrCat(ports.last - ports.first + 1)},
          // Who waits lets others on its core go first: without it, more ranks than cores wait for whoever waits.
          {"OMPI_MCA_mpi_yield_when_idle", "1"}};
}

bool IsMpiVariable(absl::string_view name) {
  for (const char* prefix : {"OMPI_", "OPAL_", "ORTE_", "PMIX_"}) {
    if (absl::StartsWith(name, prefix)) return true;
  }
  return false;
}

absl::Status CheckMpirun(absl::string_view printed, int code, std::string* version) {
  static constexpr char kNext[] =
      "distributed_backend: mpi needs Open MPI 4; install it there (Debian: apt install openmpi-bin), or put its "
      "folder first on PATH with a `setup` line such as module load openmpi";
  const size_t at = printed.find(kOpenMpi);
  if (code == 127 && at == absl::string_view::npos) {
    return absl::FailedPreconditionError(absl::StrCat("mpirun is not there: ", Gist(printed), "; ", kNext));
  }
  if (at == absl::string_view::npos) {
    const std::string gist = Gist(printed);
    return absl::FailedPreconditionError(absl::StrCat(
        "mpirun is not Open MPI's: mpirun --version ",
        gist.empty() ? absl::StrCat("ends with ", code, " and prints nothing") : absl::StrCat("prints \"", gist, "\""),
        "; ", kNext));
  }
  absl::string_view number = printed.substr(at + sizeof kOpenMpi - 1);
  number = number.substr(0, number.find_first_of(" \n\r"));
  *version = absl::StrCat("Open MPI ", number);
  if (absl::StartsWith(number, "4.")) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("mpirun is of ", *version, ", whose flags differ; ", kNext));
}

}  // namespace basin
