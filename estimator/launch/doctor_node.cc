#include "estimator/launch/doctor_node.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/wire/resolve.h"
#include "estimator/agent/forked_work.h"
#include "estimator/agent/input_check.h"
#include "estimator/agent/node_facts.h"
#include "estimator/agent/port_holder.h"
#include "estimator/container/prepare_image.h"
#include "estimator/environment/installer.h"
#include "estimator/job/mpi_command.h"
#include "estimator/launch/doctor_reach.h"
#include "estimator/launch/doctor_talk.h"

namespace basin {
namespace {

constexpr absl::Duration kFileLimit = absl::Seconds(10);  // what a file server that is dead may cost
constexpr absl::Duration kToolLimit = absl::Seconds(20);
constexpr absl::Duration kResolveLimit = absl::Seconds(15);
// A file that another node has just written may not show up at once: NFS looks again after a while.
constexpr absl::Duration kAppearLimit = absl::Seconds(5);

void Say(const DoctorMessage& message) {
  const std::string line = absl::StrCat(kDoctorMagic, DoctorMessageToLine(message), "\n");
  for (size_t at = 0; at < line.size();) {
    const ssize_t wrote = write(STDOUT_FILENO, line.data() + at, line.size() - at);
    if (wrote < 0 && errno != EINTR) return;  // nobody listens: the end of the input follows
    if (wrote > 0) at += static_cast<size_t>(wrote);
  }
}

// What `work` answers, asked in a child, so that whatever hangs holds up no other answer.
absl::StatusOr<DoctorMessage> Within(absl::Duration limit, const std::function<DoctorMessage()>& work) {
  BASIN_ASSIGN_OR_RETURN(std::optional<ForkedWork> child,
                         ForkedWork::Start([&work] { return DoctorMessageToLine(work()); }));
  const pid_t pid = child->pid();
  const absl::Time deadline = absl::Now() + limit;
  std::optional<absl::StatusOr<std::string>> result = child->Poll();
  while (!result && absl::Now() < deadline) {
    pollfd wait = {child->fd(), POLLIN, 0};
    poll(&wait, 1, 100);
    result = child->Poll();
  }
  child.reset();                                // kills it where it still runs
  waitpid(pid, nullptr, result ? 0 : WNOHANG);  // one that does not even die is left to whoever adopts it
  if (!result) return absl::DeadlineExceededError(absl::StrCat("no answer within ", absl::FormatDuration(limit)));
  if (!result->ok()) return result->status();
  return ParseDoctorLine(**result);
}

std::vector<DoctorResolved> ResolveAll(const std::vector<std::string>& names) {
  std::vector<DoctorResolved> all;
  for (const std::string& name : names) {
    const auto known =
        std::find_if(all.begin(), all.end(), [&name](const DoctorResolved& one) { return one.name == name; });
    if (known != all.end()) {
      all.push_back(DoctorResolved(*known));
      continue;
    }
    const absl::StatusOr<std::vector<std::string>> ips = wire::Resolve(name);
    DoctorResolved resolved = {name, {}, ""};
    if (ips.ok()) {
      resolved.ips = *ips;
    } else {
      resolved.problem = std::string(ips.status().message());
    }
    all.push_back(std::move(resolved));
  }
  return all;
}

std::string PythonProblem() {
  const auto tried = RunInstaller({"python3", "-I", "-c", "import venv, ensurepip"}, [](absl::string_view) {});
  if (absl::IsNotFound(tried.status())) return "there is no python3 on PATH";
  if (!tried.ok()) return std::string(tried.status().message());
  if (tried->exit_code == 0) return "";
  return absl::StrCat("python3 cannot make virtual environments: ",
                      tried->last.empty() ? tried->Ending() : tried->last.back());
}

std::string CondaProblem() {
  for (const char* name : {"micromamba", "mamba", "conda"}) {
    const auto tried = RunInstaller({name, "--version"}, [](absl::string_view) {});
    if (tried.ok() && tried->exit_code == 0) return "";
  }
  return "there is no micromamba, mamba or conda on PATH";
}

void LookAtMpi(DoctorLook* look) {
  std::string printed;
  const auto tried = RunInstaller({"mpirun", "--version"},
                                  [&printed](absl::string_view line) { absl::StrAppend(&printed, line, "\n"); });
  const absl::Status status = tried.ok() ? CheckMpirun(printed, tried->exit_code, &look->mpi_version) : tried.status();
  look->mpi_problem = std::string(status.message());
}

void LookAtContainers(const std::string& text, DoctorLook* look) {
  const absl::StatusOr<ContainerRequest> request = ParseContainerRequest(text);
  const absl::StatusOr<NodeImage> image = request.ok() ? PrepareImage(
                                                             *request, "", [](absl::string_view) {}, /*may_pull=*/false)
                                                       : request.status();
  if (image.ok()) look->container_found = absl::StrCat(image->version, ", image ", image->identity);
  look->container_problem = std::string(image.status().message());
  // That it is not there yet is none: a run would pull it.
  if (absl::IsNotFound(image.status())) look->container_found = std::string(image.status().message());
}

std::vector<DoctorPath> InputProblems(const std::vector<DoctorPath>& inputs) {
  agent::CheckInputs request;
  for (const DoctorPath& input : inputs) {
    agent::Input* added = request.add_inputs();
    added->set_name(input.name);
    added->set_path(input.path);
  }
  const agent::InputsChecked checked = CheckInputsHere(request);
  std::vector<DoctorPath> problems;
  for (const agent::InputProblem& problem : checked.problems()) {
    problems.push_back({problem.name(), problem.problem()});
  }
  return problems;
}

// The rest of the look: all that may hang, each in its turn.
void LookAtTheSlow(const DoctorLookRequest& request, DoctorLook* look) {
  const auto resolved = Within(kResolveLimit, [&request] {
    DoctorMessage message;
    message.look.emplace().resolved = ResolveAll(request.resolve);
    return message;
  });
  if (resolved.ok() && resolved->look) {
    look->resolved = resolved->look->resolved;
  } else {
    for (const std::string& name : request.resolve) {
      look->resolved.push_back({name, {}, absl::StrCat("the resolver: ", resolved.status().message())});
    }
  }
  if (!request.inputs.empty()) {
    const auto inputs = Within(kFileLimit, [&request] {
      DoctorMessage message;
      message.look.emplace().input_problems = InputProblems(request.inputs);
      return message;
    });
    if (inputs.ok() && inputs->look) {
      look->input_problems = inputs->look->input_problems;
    } else {
      for (const DoctorPath& input : request.inputs) {
        look->input_problems.push_back({input.name, absl::StrCat(input.path, ": ", inputs.status().message())});
      }
    }
  }
  if (!request.pip && !request.conda && !request.mpi && request.container.empty()) return;
  const auto tools = Within(kToolLimit, [&request] {
    DoctorMessage message;
    DoctorLook& found = message.look.emplace();
    if (request.pip) found.python_problem = PythonProblem();
    if (request.conda) found.conda_problem = CondaProblem();
    if (request.mpi) LookAtMpi(&found);
    if (!request.container.empty()) LookAtContainers(request.container, &found);
    return message;
  });
  if (tools.ok() && tools->look) {
    look->python_problem = tools->look->python_problem;
    look->conda_problem = tools->look->conda_problem;
    look->mpi_problem = tools->look->mpi_problem;
    look->mpi_version = tools->look->mpi_version;
    look->container_problem = tools->look->container_problem;
    look->container_found = tools->look->container_found;
  } else {
    std::string& problem = request.pip     ? look->python_problem
                           : request.conda ? look->conda_problem
                           : request.mpi   ? look->mpi_problem
                                           : look->container_problem;
    problem = std::string(tools.status().message());
  }
}

DoctorFolder DoInFolder(const DoctorFolders& request, const std::string& path) {
  DoctorFolder result = {path, "", true};
  const std::string file = absl::StrCat(path, "/.basin-doctor-", request.nonce);
  struct stat info;
  const int error = stat(path.c_str(), &info) == 0 ? S_ISDIR(info.st_mode) ? 0 : ENOTDIR : errno;
  if (error != 0) return {path, std::strerror(error), false};
  if (request.what == "write") {
    const UniqueFd fd(open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644));
    if (fd.get() < 0) {
      result.problem = std::strerror(errno);
    } else if (write(fd.get(), request.nonce.data(), request.nonce.size()) !=
                   static_cast<ssize_t>(request.nonce.size()) ||
               fsync(fd.get()) != 0) {
      result.problem = std::strerror(errno);
      unlink(file.c_str());
    }
  } else if (request.what == "remove") {
    if (unlink(file.c_str()) != 0) result.problem = std::strerror(errno);
  } else {
    const absl::Time deadline = absl::Now() + kAppearLimit;
    while (true) {
      const absl::StatusOr<std::string> text = ReadFile(file, 4096);
      if (text.ok() && *text == request.nonce) break;
      if (absl::Now() >= deadline || (!text.ok() && !absl::IsNotFound(text.status()))) {
        result.problem = text.ok() ? "it has another content" : std::string(text.status().message());
        break;
      }
      absl::SleepFor(absl::Milliseconds(100));
    }
  }
  return result;
}

std::vector<DoctorFolder> DoInFolders(const DoctorFolders& request) {
  std::vector<DoctorFolder> results;
  for (const std::string& path : request.folders) {
    const auto done = Within(kFileLimit, [&request, &path] {
      DoctorMessage message;
      message.folders = {DoInFolder(request, path)};
      return message;
    });
    if (done.ok() && done->folders && done->folders->size() == 1) {
      results.push_back(done->folders->front());
    } else {
      results.push_back({path, std::string(done.status().message()), true});
    }
  }
  return results;
}

class DoctorNode {
 public:
  explicit DoctorNode(std::string version) : version_(std::move(version)) {}
  ~DoctorNode() {
    StopAnswering();
    // Whoever asked for these is gone without having them removed.
    for (const DoctorFolders& left : written_) DoInFolders(left);
  }

  absl::Status Run() {
    Say(Hello());
    std::string text;
    while (true) {
      const size_t end = text.find('\n');
      if (end != std::string::npos) {
        BASIN_ASSIGN_OR_RETURN(const DoctorMessage request, ParseDoctorLine(text.substr(0, end)));
        text.erase(0, end + 1);
        BASIN_RETURN_IF_ERROR(Answer(request));
        continue;
      }
      if (text.size() > kMostDoctorLine) return absl::InvalidArgumentError("a line of more than 1 MiB");
      char bytes[16 << 10];
      const ssize_t got = read(STDIN_FILENO, bytes, sizeof(bytes));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return absl::OkStatus();
      text.append(bytes, static_cast<size_t>(got));
    }
  }

 private:
  DoctorMessage Hello() const {
    agent::Welcome facts;
    GatherNodeFacts(&facts);
    DoctorMessage message;
    message.hello = {version_,          facts.host_name(),   facts.machine(),   facts.libc(),
                     facts.gpus_size(), facts.gpu_problem(), facts.shm_bytes(), facts.open_files_limit()};
    return message;
  }

  absl::Status Answer(const DoctorMessage& request) {
    DoctorMessage answer;
    if (request.look_request) {
      answer.look = Look(*request.look_request);
    } else if (request.reach) {
      answer.reached = TryToReach(*request.reach);
    } else if (request.folders_request) {
      answer.folders = DoInFolders(*request.folders_request);
      if (request.folders_request->what == "write") {
        written_.push_back({"remove", request.folders_request->nonce, request.folders_request->folders});
      } else if (request.folders_request->what == "remove") {
        written_.clear();
      }
    } else {
      return absl::InvalidArgumentError("it asks for nothing");
    }
    Say(answer);
    return absl::OkStatus();
  }

  DoctorLook Look(const DoctorLookRequest& request) {
    DoctorLook look;
    StopAnswering();
    PortHolder holder;
    const absl::StatusOr<std::vector<uint32_t>> held = holder.Hold({static_cast<uint32_t>(request.ports),
                                                                    static_cast<uint32_t>(request.first_port),
                                                                    static_cast<uint32_t>(request.last_port),
                                                                    request.bind_address,
                                                                    {}});
    look.ports_note = holder.address().note;
    if (held.ok()) {
      std::vector<UniqueFd> listeners;
      for (const uint32_t port : *held) {
        absl::StatusOr<HeldPort> taken = holder.Take(port);
        if (!taken.ok()) continue;
        look.ports.push_back(static_cast<int>(port));
        listeners.push_back(std::move(taken->listener));
      }
      if (!listeners.empty()) answering_ = StartAnswering(listeners, request.nonce);
    } else {
      look.ports_problem = std::string(held.status().message());
    }
    LookAtTheSlow(request, &look);
    return look;
  }

  void StopAnswering() {
    if (answering_ <= 0) return;
    kill(answering_, SIGKILL);  // our child, not reaped before
    waitpid(answering_, nullptr, 0);
    answering_ = 0;
  }

  const std::string version_;
  pid_t answering_ = 0;
  std::vector<DoctorFolders> written_;  // and not yet removed
};

}  // namespace

absl::Status RunDoctorNode(const std::string& version) {
  signal(SIGPIPE, SIG_IGN);
  return DoctorNode(version).Run();
}

}  // namespace basin
