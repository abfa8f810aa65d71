#include "estimator/launch/doctor.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/wire/resolve.h"
#include "estimator/container/prepare_image.h"
#include "estimator/job/plan.h"

namespace basin {
namespace {

constexpr int kFirstPort = 2222;
constexpr int kUsualPorts = 4;  // a ps, a chief, two workers
constexpr int kMostForAllPairs = 8;
constexpr uint64_t kEnoughShm = uint64_t{1} << 30;
constexpr uint64_t kEnoughFiles = 4096;

bool AnyLoopback(const std::vector<std::string>& ips) {
  return std::any_of(ips.begin(), ips.end(), [](const std::string& ip) { return wire::IsLoopback(ip); });
}

// "2222-2225, 20000".
std::string PortsText(const std::vector<int>& ports) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < ports.size();) {
    size_t last = i;
    while (last + 1 < ports.size() && ports[last + 1] == ports[last] + 1) ++last;
    parts.push_back(last == i ? absl::StrCat(ports[i]) : absl::StrCat(ports[i], "-", ports[last]));
    i = last + 1;
  }
  return absl::StrJoin(parts, ", ");
}

class Diagnosis {
 public:
  Diagnosis(const Target& target, const DoctorNeeds& needs, const DoctorBundle& bundle, const std::string& version,
            const std::vector<NodeVisit>& visits)
      : target_(target), needs_(needs), bundle_(bundle), version_(version), visits_(visits) {}

  std::vector<DoctorFinding> All() {
    for (node_ = 0; node_ < visits_.size(); ++node_) {
      if (!Reached() || !Programs()) continue;
      if (!visit().lost.empty()) {
        Problem("answers", visit().lost, "see whether the node and the network to it are well, and ask again");
      }
      Machine();
      if (!visit().looked) continue;
      Addresses();
      Ports();
      Reach();
      Shared();
      JobNeeds();
    }
    return std::move(findings_);
  }

 private:
  const NodeVisit& visit() const { return visits_[node_]; }
  const TargetNode& node() const { return target_.nodes[node_]; }

  void Add(const char* check, DoctorState state, const std::string& found, const std::string& fix) {
    findings_.push_back({node().name, check, state, found, fix});
  }
  void Ok(const char* check, const std::string& found) { Add(check, DoctorState::kOk, found, ""); }
  void Warning(const char* check, const std::string& found, const std::string& fix) {
    Add(check, DoctorState::kWarning, found, fix);
  }
  void Problem(const char* check, const std::string& found, const std::string& fix) {
    Add(check, DoctorState::kProblem, found, fix);
  }

  bool Reached() {
    if (!visit().not_reached.empty()) {
      Problem("ssh", visit().not_reached, visit().not_reached_fix);
      return false;
    }
    if (target_.kind == TargetKind::kSsh) {
      Ok("ssh", absl::StrCat("it is reached", visit().hello.host_name.empty()
                                                  ? ""
                                                  : absl::StrCat(", and calls itself ", visit().hello.host_name)));
    }
    return true;
  }

  bool Programs() {
    if (visit().programs_missing) {
      Missing();
      return false;
    }
    if (!visit().no_answer.empty()) {
      Problem("basin", visit().no_answer, visit().no_answer_fix);
      return false;
    }
    const DoctorHello& hello = visit().hello;
    const std::string found = absl::StrCat("basin ", hello.version, " (", hello.machine, ", ", hello.libc, ")");
    if (hello.version == version_) {
      Ok("basin", found);
    } else {
      Problem("basin", absl::StrCat(found, ", here it is ", version_),
              "install the same version there, or take programs out of the target, and Basin's are sent");
    }
    return true;
  }

  void Missing() {
    const NodeSystem& system = visit().system;
    const std::string found = absl::StrCat("no basin ", version_, " there (", system.machine, ", ",
                                           system.libc.empty() ? "no glibc" : system.libc, ")");
    if (bundle_.path.empty()) {
      Problem(
          "basin", absl::StrCat(found, ", and no archive of the programs here to send"),
          "make it (cmake --build build/release --target bundle), name one by --bundle, or name the folder of basin "
          "on the nodes by programs in the target");
    } else if (const std::string why = WhyNotRunnable(bundle_.system, system); !why.empty()) {
      Problem("basin", absl::StrCat(found, ", and those of ", bundle_.path, " do not run there"), why);
    } else if (!visit().not_sent.empty()) {
      Problem("basin", absl::StrCat(found, ", and ", bundle_.path, " could not be sent"), visit().not_sent);
    } else {
      Ok("basin", absl::StrCat(found, "; basin submit sends ", bundle_.path));
      Warning("unseen", "the other checks need basin on the node",
              "ask again with --send, which sends it as the first job would");
    }
  }

  void Machine() {
    const DoctorHello& hello = visit().hello;
    if (hello.gpus > 0) {
      Ok("gpu", absl::StrCat(hello.gpus, hello.gpus == 1 ? " GPU" : " GPUs"));
    } else if (needs_.gpu) {
      Problem("gpu", absl::StrCat("none, and the job has use_gpu: true: ", hello.gpu_problem),
              "see that nvidia-smi -L lists one there, or set use_gpu: false");
    } else if (hello.gpu_problem == "no NVIDIA driver is loaded") {
      Ok("gpu", absl::StrCat("none: ", hello.gpu_problem));
    } else {
      Warning("gpu", absl::StrCat("none: ", hello.gpu_problem), "see what nvidia-smi -L says there");
    }
    const std::string shm = absl::StrCat("/dev/shm has ", hello.shm_bytes >> 20, " MiB");
    if (hello.shm_bytes >= kEnoughShm) {
      Ok("shm", shm);
    } else {
      Warning("shm", absl::StrCat(shm, ", less than 1 GiB: frameworks that share tensors there may run out"),
              "mount -o remount,size=1G /dev/shm, of a container: --shm-size=1g");
    }
    if (hello.open_files >= kEnoughFiles) {
      Ok("files", hello.open_files == UINT64_MAX ? "each process may open any number of files"
                                                 : absl::StrCat("each process may open ", hello.open_files, " files"));
    } else {
      Warning("files", absl::StrCat("each process may open ", hello.open_files, " files, less than ", kEnoughFiles),
              "raise nofile in /etc/security/limits.conf there (* soft nofile 65536), and log in anew");
    }
  }

  void Addresses() {
    if (visits_.size() == 1) return;
    const std::vector<DoctorResolved>& resolved = visit().look.resolved;
    std::vector<std::string> well;
    bool bad = false;
    for (size_t i = 0; i < visits_.size() && i < resolved.size(); ++i) {
      const TargetNode& other = target_.nodes[i];
      const DoctorResolved& one = resolved[i];
      if (!one.problem.empty()) {
        bad = true;
        Problem("addresses", one.problem,
                absl::StrCat("add ", other.address, " to its DNS or /etc/hosts, or give ", other.name,
                             " an address (address: 10.0.0.7) in the target"));
      } else if (AnyLoopback(one.ips)) {
        bad = true;
        const std::string found = absl::StrCat(other.address, " leads to ", absl::StrJoin(one.ips, ", "));
        const std::string fix =
            absl::StrCat("in its /etc/hosts give ", other.address,
                         " the address that the other nodes reach (Debian puts a host's own name at "
                         "127.0.1.1), or name that address in the target");
        if (i == node_) {
          Warning("addresses",
                  absl::StrCat(found,
                               ", its own loopback: Basin then listens on all interfaces, but a program that "
                               "listens on its own name is reached by no other node"),
                  fix);
        } else {
          Problem("addresses", absl::StrCat(found, ", which is this node itself, not ", other.name), fix);
        }
      } else {
        well.push_back(absl::StrCat(other.address, one.ips[0] == other.address ? "" : absl::StrCat(" ", one.ips[0])));
      }
    }
    if (!bad) Ok("addresses", absl::StrJoin(well, ", "));
  }

  void Ports() {
    const DoctorLook& look = visit().look;
    const int count = needs_.ports[node_];
    if (count == 0) return Ok("ports", "no task listens there");
    if (!look.ports_problem.empty()) {
      return Problem("ports", look.ports_problem, "see who listens there (ss -ltnp), or set network.ports in the job");
    }
    std::vector<int> taken;
    for (int port = kFirstPort; port < kFirstPort + count; ++port) {
      if (std::find(look.ports.begin(), look.ports.end(), port) == look.ports.end()) taken.push_back(port);
    }
    if (taken.empty()) return Ok("ports", absl::StrCat(PortsText(look.ports), " can be had; ", look.ports_note));
    Warning("ports",
            absl::StrCat(PortsText(taken), " cannot be had, ", PortsText(look.ports), " instead; ", look.ports_note),
            absl::StrCat("none is needed where network.ports (", needs_.range.first, "-", needs_.range.last,
                         ") are open between the nodes; else see who listens there (ss -ltnp)"));
  }

  // Who reached this node's ports.
  void Reach() {
    std::vector<std::string> well;
    bool bad = false;
    for (size_t from = 0; from < visits_.size(); ++from) {
      // By what happened, the ports of it.
      std::map<std::pair<DoctorReach, std::string>, std::vector<int>> by_end;
      std::string address;
      for (const DoctorReached& one : visits_[from].reached) {
        if (static_cast<size_t>(one.node) != node_) continue;
        by_end[{one.how, one.problem}].push_back(one.port);
        address = one.address;
      }
      if (by_end.empty()) continue;
      bool all = true;
      for (const auto& [end, ports] : by_end) {
        if (end.first == DoctorReach::kAnswered) continue;
        all = false;
        Problem("reach",
                absl::StrCat("from ", target_.nodes[from].name, ", ", address, " port ", PortsText(ports), ": ",
                             end.second),
                FixOf(end.first, target_.nodes[from].name, ports));
      }
      if (all) {
        well.push_back(target_.nodes[from].name);
      } else {
        bad = true;
      }
    }
    if (!bad && !well.empty()) Ok("reach", absl::StrCat("its ports answer ", absl::StrJoin(well, ", ")));
  }

  std::string FixOf(DoctorReach how, const std::string& from, const std::vector<int>& ports) const {
    switch (how) {
      case DoctorReach::kStranger:
        return absl::StrCat("see where ", node().address, " leads on ", from, ", and correct /etc/hosts or the target");
      case DoctorReach::kRefused:
        return absl::StrCat("a firewall rejects it, or ", node().address, " leads elsewhere on ", from,
                            ": open tcp ports ", PortsText(ports), " on ", node().name, ", or correct its address");
      default:
        return absl::StrCat("a firewall drops it, or no route leads there: open tcp ports ", PortsText(ports), " and ",
                            needs_.range.first, "-", needs_.range.last, " on ", node().name,
                            " for the other nodes (nft list ruleset shows the rules)");
    }
  }

  void Shared() {
    for (const std::string& path : target_.shared_folders) {
      const DoctorFolder* wrote = FolderOf(visit().wrote, path);
      const DoctorFolder* read = FolderOf(visit().read, path);
      const std::string writer = WriterOf(path);
      if (wrote != nullptr && wrote->problem.empty()) {
        Ok("shared", absl::StrCat(path, ": a file was written there", visits_.size() > 1 ? " for the others" : ""));
      } else if (const DoctorFolder* one = read != nullptr ? read : wrote; one != nullptr && !one->is_there) {
        Problem("shared", absl::StrCat(path, ": ", one->problem),
                "mount it there, or correct shared_folders of the target");
      } else if (read != nullptr && read->problem.empty()) {
        Ok("shared",
           absl::StrCat(path, ": the file of ", writer, " is there",
                        wrote == nullptr ? "" : absl::StrCat("; it may not be written (", wrote->problem, ")")));
      } else if (read != nullptr) {
        Problem("shared", absl::StrCat(path, ": the file that ", writer, " wrote is not seen: ", read->problem),
                absl::StrCat("mount there what ", writer, " has, or take it out of shared_folders of the target"));
      } else if (wrote != nullptr) {
        Warning("shared", absl::StrCat(path, ": nothing proved, for no node may write there (", wrote->problem, ")"),
                "let this user write there, or compare by hand what the nodes see");
      }
    }
  }

  static const DoctorFolder* FolderOf(const std::vector<DoctorFolder>& folders, const std::string& path) {
    const auto found =
        std::find_if(folders.begin(), folders.end(), [&path](const DoctorFolder& one) { return one.path == path; });
    return found == folders.end() ? nullptr : &*found;
  }

  std::string WriterOf(const std::string& path) const {
    for (size_t i = 0; i < visits_.size(); ++i) {
      const DoctorFolder* wrote = FolderOf(visits_[i].wrote, path);
      if (wrote != nullptr && wrote->problem.empty()) return target_.nodes[i].name;
    }
    return "";
  }

  void JobNeeds() {
    const DoctorLook& look = visit().look;
    if (needs_.pip) {
      if (look.python_problem.empty()) {
        Ok("python", "python3 makes virtual environments");
      } else {
        Problem("python", absl::StrCat(look.python_problem, "; the job has pip packages"),
                "install python3 python3-venv (Debian: apt-get install python3-venv)");
      }
    }
    if (needs_.conda) {
      if (look.conda_problem.empty()) {
        Ok("conda", "it is there");
      } else {
        Problem("conda", absl::StrCat(look.conda_problem, "; the job has conda packages"),
                "install one of them there, and put it on the PATH of non-interactive shells");
      }
    }
    if (needs_.mpi) {
      if (look.mpi_problem.empty()) {
        Ok("mpi", look.mpi_version);
      } else {
        Problem("mpi", look.mpi_problem,
                "install the same Open MPI 4 on all nodes (Debian: apt-get install openmpi-bin)");
      }
    }
    if (!needs_.image.empty()) {
      if (look.container_problem.empty()) {
        Ok("container", look.container_found);
      } else if (!look.container_found.empty()) {
        Warning("container", look.container_problem, "nothing, if the node may pull it; the first run waits for that");
      } else {
        const size_t next = look.container_problem.rfind(kNextStep);
        Problem("container", look.container_problem.substr(0, next),
                next == std::string::npos ? "see docs/containers.md"
                                          : look.container_problem.substr(next + absl::string_view(kNextStep).size()));
      }
    }
    for (const DoctorPath& one : look.input_problems) {
      Problem("inputs", absl::StrCat(one.name, ": ", one.path),
              "put it there, or correct its path in the job: every node must see it under the same one");
    }
    if (look.input_problems.empty() && !needs_.inputs.empty()) {
      Ok("inputs", absl::StrJoin(needs_.inputs, ", ", [](std::string* out, const JobInput& input) {
           absl::StrAppend(out, input.name, " ", input.path);
         }));
    }
  }

  const Target& target_;
  const DoctorNeeds& needs_;
  const DoctorBundle& bundle_;
  const std::string& version_;
  const std::vector<NodeVisit>& visits_;
  size_t node_ = 0;  // the one that is looked at
  std::vector<DoctorFinding> findings_;
};

}  // namespace

DoctorNeeds UsualNeeds(int nodes) {
  DoctorNeeds needs;
  needs.ports.assign(nodes, kUsualPorts);
  return needs;
}

DoctorNeeds NeedsOfJob(const Job& job, const std::string& file, int nodes) {
  DoctorNeeds needs;
  needs.job = file;
  needs.ports = PortsNeeded(job, nodes);
  needs.range = job.ports;
  needs.inputs = job.inputs;
  const Packages& packages = job.packages;
  needs.conda = !packages.user_managed && (!packages.conda.empty() || !packages.conda_dependencies_file.empty() ||
                                           !packages.environment_definition.empty());
  // Beside conda packages, conda's own Python takes those of pip.
  needs.pip =
      !packages.user_managed && !needs.conda && (!packages.pip.empty() || !packages.pip_requirements_file.empty());
  // What `setup` lines such as module load bring along is only seen by a run.
  needs.mpi = job.backend == Backend::kMpi && job.setup.empty();
  needs.gpu = job.use_gpu;
  needs.image = job.image;
  // In an image its own tools are used.
  if (!job.image.empty()) needs.pip = needs.conda = false;
  return needs;
}

bool IsThere(const NodeVisit& visit) { return visit.looked && visit.lost.empty(); }

std::vector<std::pair<int, int>> PairsToTry(int nodes) {
  std::vector<std::pair<int, int>> pairs;
  if (nodes == 1) return {{0, 0}};
  for (int from = 0; from < nodes; ++from) {
    if (nodes > kMostForAllPairs) {
      pairs.emplace_back(from, (from + 1) % nodes);
      continue;
    }
    for (int to = 0; to < nodes; ++to) {
      if (from != to) pairs.emplace_back(from, to);
    }
  }
  return pairs;
}

std::string AddressToTry(const DoctorLook& look, const TargetNode& to, bool alone) {
  for (const DoctorResolved& one : look.resolved) {
    if (one.name != to.address || one.ips.empty()) continue;
    return AnyLoopback(one.ips) && !alone ? "" : one.ips[0];
  }
  return "";
}

std::vector<DoctorFinding> Diagnose(const Target& target, const DoctorNeeds& needs, const DoctorBundle& bundle,
                                    const std::string& version, const std::vector<NodeVisit>& visits) {
  return Diagnosis(target, needs, bundle, version, visits).All();
}

bool HasProblem(const std::vector<DoctorFinding>& findings) {
  return std::any_of(findings.begin(), findings.end(),
                     [](const DoctorFinding& one) { return one.state == DoctorState::kProblem; });
}

}  // namespace basin
