// Where a job runs: a named target of a targets file, or "local". Pure values.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "estimator/container/container.h"
#include "estimator/job/kubernetes_settings.h"
#include "estimator/job/slurm_options.h"

namespace basin {

enum class TargetKind { kLocal, kSsh, kSlurm, kKubernetes };
// "local", "ssh", "slurm", "kubernetes": as targets files and journals have it.
const char* TargetKindName(TargetKind kind);

// A machine of the target.
struct TargetNode {
  std::string name;     // as ssh knows it; "localhost" for the local target
  std::string address;  // as the other nodes reach it, in TF_CONFIG; the name where the targets file gives none
  std::string user;     // empty: as ssh decides
  int ssh_port = 0;     // 0: as ssh decides
};

// What a target of kind slurm has besides.
struct SlurmTarget {
  SlurmOptions options;
  // The allocation in which the run is; empty: there is none yet.
  std::string job_id;
  std::vector<int> cpus;  // of each node there, as granted; empty: not known
};

struct Target {
  std::string name = "local";
  std::string source;  // the file that defines it; empty: built in, or named on the command line
  TargetKind kind = TargetKind::kLocal;
  std::vector<TargetNode> nodes;            // of the local target exactly one; of Slurm's none before an allocation; of
                                            // Kubernetes none
  std::string folder;                       // of Basin on the nodes; empty: ~/.cache/basin
  std::string programs;                     // folder of basin, basin-ps there ("~/": of the home there); empty: sent,
                                            // or found on PATH
  std::string bundle;                       // archive of the programs to send; empty: the one beside this program
  std::string ssh_config;                   // file for ssh -F; empty: the user's own
  std::vector<std::string> shared_folders;  // claimed to be the same on all nodes; doctor proves it
  ContainerSettings containers;             // for jobs with an image
  KubernetesSettings kubernetes;            // kKubernetes
  absl::Duration lease = absl::Seconds(30);
  absl::Duration detach_grace = absl::Minutes(10);
  absl::Duration ping = absl::Seconds(5);
  SlurmTarget slurm;
};

}  // namespace basin
