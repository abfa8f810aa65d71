#include "estimator/agent/task_table.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/host_name.h"
#include "common/base/status_macros.h"
#include "common/wire/port_owner.h"
#include "estimator/agent/agent_log.h"
#include "estimator/agent/steady_now.h"
#include "estimator/agent/task_container.h"
#include "estimator/container/removal.h"
#include "estimator/snapshot/task_tree.h"

namespace basin {
namespace {

constexpr int kCannotStart = 127;
constexpr int kEngineFailed = 125;
constexpr int kEndedBySignal = 128;
constexpr int kMostSignal = 64;
constexpr uint32_t kMostIndex = 100'000;
constexpr size_t kMostRoleBytes = 32;
constexpr size_t kLogEndBytes = size_t{4} << 10;
constexpr uint64_t kFullDiskBytes = uint64_t{64} << 10;

// Runs in a child. Empty, or what went wrong.
std::string MakeTreeAt(const std::string& tree, const std::string& snapshot) {
  if (absl::Status status = RemoveTree(tree); !status.ok()) return std::string(status.message());
  if (!snapshot.empty()) {
    if (absl::Status status = MakeTaskTree(snapshot, tree); !status.ok()) return std::string(status.message());
  }
  for (const std::string& folder : {tree, tree + "/outputs", tree + "/logs"}) {
    if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
      return std::string(ErrnoStatus(errno, absl::StrCat("create ", folder)).message());
    }
  }
  return "";
}

bool HasNul(const std::string& text) { return text.find('\0') != std::string::npos; }

std::string FullDisk(const std::string& path) {
  struct statvfs disk;
  if (statvfs(path.c_str(), &disk) != 0 || uint64_t{disk.f_bavail} * disk.f_frsize >= kFullDiskBytes) return "";
  return absl::StrCat(HostName(), ": the disk with ", path,
                      " is full; free space there, or name another folder in the ", "target's `folder`");
}

}  // namespace

absl::Status TaskTable::Check(const agent::StartTask& request) const {
  if (request.task() >= kMostTasks) {
    return absl::InvalidArgumentError(absl::StrCat("task ", request.task(), ": numbers are below ", kMostTasks));
  }
  bool role_is_fine = !request.role().empty() && request.role().size() <= kMostRoleBytes;
  for (const char c : request.role()) role_is_fine = role_is_fine && c >= 'a' && c <= 'z';
  if (!role_is_fine || request.index() > kMostIndex) {
    return absl::InvalidArgumentError(absl::StrCat("task ", request.task(), ": its role and index name no task"));
  }
  if (request.argv_size() == 0 || request.argv(0).empty()) {
    return absl::InvalidArgumentError(absl::StrCat("task ", request.task(), " has no command"));
  }
  bool has_nul = false;
  for (const std::string& word : request.argv()) has_nul = has_nul || HasNul(word);
  for (const std::string& line : request.setup()) has_nul = has_nul || HasNul(line);
  for (const agent::Variable& variable : request.environment()) {
    has_nul = has_nul || HasNul(variable.name()) || HasNul(variable.value());
    if (variable.name().empty() || absl::StrContains(variable.name(), '=')) {
      return absl::InvalidArgumentError(absl::StrCat("task ", request.task(), ": a variable's name is none"));
    }
  }
  if (has_nul) return absl::InvalidArgumentError(absl::StrCat("task ", request.task(), ": its command has a NUL byte"));
  for (const auto& [number, task] : tasks_) {
    const bool same_name = task.request.role() == request.role() && task.request.index() == request.index();
    if (number == request.task() ? !task.is_gone : same_name) {
      return absl::InvalidArgumentError(absl::StrCat("task ", request.task(), " (", request.role(), "-",
                                                     request.index(), ") is there already, as task ", number));
    }
  }
  return absl::OkStatus();
}

absl::Status TaskTable::Start(const agent::StartTask& request) {
  const auto known = tasks_.find(request.task());
  if (known != tasks_.end() && !known->second.process && !known->second.is_ended &&
      known->second.request.SerializeAsString() == request.SerializeAsString()) {
    return absl::OkStatus();
  }
  BASIN_RETURN_IF_ERROR(Check(request));
  Task& task = tasks_[request.task()];
  task = Task();
  task.request = request;
  task.name = absl::StrCat(request.role(), "-", request.index());
  task.tree = node_.folder.Tasks() + "/" + task.name;
  node_.streams.FollowFile(agent::LOG, request.task(), "", LogPath(task));
  node_.streams.FollowFile(agent::METRICS, request.task(), "", node_.folder.Metrics() + "/" + task.name + ".jsonl");
  MakeTree(&task);
  return absl::OkStatus();
}

void TaskTable::MakeTree(Task* task) {
  std::string snapshot;
  if (!task->request.snapshot_digest().empty()) {
    const absl::StatusOr<std::string> path = node_.snapshots.PathOf(task->request.snapshot_digest());
    if (!path.ok()) return Fail(task, std::string(path.status().message()));
    snapshot = *path;
  }
  absl::StatusOr<ForkedWork> work =
      ForkedWork::Start([tree = task->tree, snapshot] { return MakeTreeAt(tree, snapshot); });
  if (!work.ok()) return Fail(task, std::string(work.status().message()));
  task->making_tree.emplace(*std::move(work));
}

absl::Status TaskTable::RankIsHere(const agent::RankHere& rank) {
  for (auto& [number, task] : tasks_) {
    if (task.request.mpi_part() != agent::StartTask::RANK || task.request.index() != rank.rank()) continue;
    if (task.is_ended || task.mpi) {
      return absl::FailedPreconditionError(
          absl::StrCat("rank ", rank.rank(), task.mpi ? " has begun already" : " is not wanted any more"));
    }
    task.mpi.emplace();
    for (const agent::Variable& variable : rank.environment()) {
      if (HasNul(variable.name()) || HasNul(variable.value())) continue;
      task.mpi->emplace_back(variable.name(), variable.value());
    }
    if (task.is_ready) Launch(&task);
    return absl::OkStatus();
  }
  return absl::NotFoundError(absl::StrCat("rank ", rank.rank(), " is none of this node's"));
}

void TaskTable::TreeIsMade(Task* task) {
  task->is_ready = true;
  if (task->request.mpi_part() != agent::StartTask::RANK || task->mpi) Launch(task);
}

void TaskTable::Launch(Task* task) {
  const agent::StartTask& request = task->request;
  absl::StatusOr<FolderBeneath> tree = FolderBeneath::Open(task->tree);
  if (!tree.ok()) return Fail(task, std::string(tree.status().message()));
  node_.streams.FollowTree(request.task(), task->name, *std::move(tree));

  absl::StatusOr<GuardedCommand> made = CommandOf(*task);
  if (!made.ok()) return Fail(task, std::string(made.status().message()));
  GuardedCommand command = *std::move(made);
  command.folder = task->tree;
  command.log_path = LogPath(*task);
  command.grace = grace_;
  UniqueFd listener;
  if (request.port() != 0) {
    absl::StatusOr<HeldPort> taken = node_.ports.Take(request.port());
    if (!taken.ok()) return Fail(task, std::string(taken.status().message()));
    task->port_name = std::move(taken->name);
    // A script binds its port itself: it is let go only now.
    if (request.takes_listener()) listener = std::move(taken->listener);
  }
  command.listener = listener.get();
  absl::StatusOr<GuardedProcess> process = GuardedProcess::Start(command);
  if (!process.ok()) return Fail(task, std::string(process.status().message()));
  task->process.emplace(*std::move(process));
}

absl::StatusOr<GuardedCommand> TaskTable::CommandOf(const Task& task) {
  const agent::StartTask& request = task.request;
  TaskSurroundings around;
  around.paths = {node_.programs.folder, task.tree, node_.folder.Token()};
  around.paths.shared_memory = node_.shared_memory;
  around.node_folder = node_.folder.path;
  if (task.mpi) around.mpi = *task.mpi;
  around.programs = node_.programs;
  around.metrics_file = node_.folder.Metrics() + "/" + task.name + ".jsonl";
  // One that is built in an image is of no use outside.
  if (request.in_container() == node_.environment.image().has_value()) {
    if (!node_.environment.ready().python().empty()) around.paths.python = node_.environment.ready().python();
    around.environment_prefix = node_.environment.ready().prefix();
    around.is_conda = node_.environment.is_conda();
  }
  GuardedCommand command;
  command.argv = TaskWords(request, around);
  if (request.in_container()) {
    if (!node_.environment.image()) return absl::FailedPreconditionError("its image was not prepared on this node");
    const std::string name =
        absl::StrCat("basin-", node_.folder.run_id, "-", node_.folder.node, "-", task.name, "-", ++containers_);
    BASIN_ASSIGN_OR_RETURN(
        EngineCommand engine,
        TaskInContainer({*node_.environment.image(), node_.environment.container(), node_.folder, name}, around,
                        command.argv, ContainedEnvironment(request, around)));
    command.argv = std::move(engine.argv);
    command.input = std::move(engine.input);
    command.environment = EnvironmentLines(node_.inherited);  // the engine's
    command.containers = RemovalsOf(node_.folder, task.name);
    if (!engine.remove.empty()) BASIN_RETURN_IF_ERROR(NoteRemoval(command.containers, name, engine.remove));
    return command;
  }
  const Environment environment = TaskEnvironment(node_.inherited, request, around);
  BASIN_ASSIGN_OR_RETURN(command.argv[0], FindTaskProgram(command.argv[0], environment, task.tree));
  command.environment = EnvironmentLines(environment);
  return command;
}

bool TaskTable::ContainersAreGone(Task* task) {
  if (!task->request.in_container()) return true;
  if (task->removing && !task->removing->Poll()) return false;
  const bool tried = task->removing.has_value();
  task->removing.reset();
  const std::string removals = RemovalsOf(node_.folder, task->name);
  if (tried) ForgetRemovals(removals);  // what could not be removed is told: nobody waits for it
  if (!HasNoted(removals)) return true;
  absl::StatusOr<ForkedWork> work = ForkedWork::Start([removals] {
    RemoveNoted(removals, absl::Seconds(30));
    return std::string();
  });
  if (!work.ok()) return true;
  task->removing.emplace(*std::move(work));
  return false;
}

void TaskTable::Fail(Task* task, const std::string& problem) {
  agent::TaskExited exited;
  exited.set_task(task->request.task());
  exited.set_code(kCannotStart);
  exited.set_problem(absl::StrCat(HostName(), ": ", problem));
  const std::string full = FullDisk(node_.folder.path);
  if (!full.empty()) exited.set_problem(absl::StrCat(problem, "; ", full));
  AgentLog(absl::StrCat(task->name, " cannot be started: ", exited.problem()));
  task->exited = exited;
  TellExit(task);
  task->is_ended = true;
}

void TaskTable::Exited(Task* task, int code, int signal) {
  // A container's engine says so that a signal has ended what it ran.
  if (task->request.in_container() && code > kEndedBySignal && code <= kEndedBySignal + kMostSignal) {
    signal = code - kEndedBySignal;
    code = 0;
  }
  agent::TaskExited exited;
  exited.set_task(task->request.task());
  exited.set_code(code);
  exited.set_signal(signal);
  const bool is_bad = (code != 0 || signal != 0) && !task->was_stopped;
  if (is_bad) exited.set_problem(FullDisk(node_.folder.path));
  if (is_bad && task->request.setup_size() > 0 && exited.problem().empty()) {
    const std::string said = SetupProblem(ReadTail(LogPath(*task), kLogEndBytes).value_or(""));
    if (!said.empty()) exited.set_problem(absl::StrCat(HostName(), ": ", said));
  }
  if (is_bad && task->request.in_container() && code == kEngineFailed && exited.problem().empty()) {
    exited.set_problem(absl::StrCat("this is how ", Name(node_.environment.image()->engine),
                                    " says that it could not run the container; what it says is in the log"));
  }
  AgentLog(signal != 0 ? absl::StrCat(task->name, " was ended by signal ", signal)
                       : absl::StrCat(task->name, " has ended with ", code));
  task->exited = exited;
  if (task->request.mpi_part() == agent::StartTask::RANK && code == 0 && signal == 0) {
    node_.rank_is_done(task->request.index());
  }
  // Where its port is in use now, only the end of all its own processes shows by whom.
  const bool may_be_taken = is_bad && task->request.port() != 0 && !task->request.takes_listener() &&
                            node_.ports.IsTaken(task->request.port());
  if (!may_be_taken) TellExit(task);
}

void TaskTable::TellExit(Task* task) {
  task->is_told = true;
  agent::FromAgent message;
  *message.mutable_task_exited() = *task->exited;
  node_.tell(message);
}

void TaskTable::TellGone(uint32_t number) {
  agent::FromAgent message;
  message.mutable_task_gone()->set_task(number);
  node_.tell(message);
}

void TaskTable::Signal(uint32_t number, bool kill) {
  const auto found = tasks_.find(number);
  // Who signals it waits for its end. The order to start it can only have been an earlier supervisor's, which is heard
  // no more.
  if (found == tasks_.end()) return TellGone(number);
  if (found->second.is_gone) return;
  Task& task = found->second;
  task.was_stopped = true;
  const bool is_waiting = task.is_ready && !task.process && !task.is_ended;  // a rank that mpirun has not reached
  if (task.making_tree || is_waiting) {
    // Not started yet: it will not be, and nobody needs the rest of its tree.
    task.making_tree.reset();
    Exited(&task, 0, kill ? SIGKILL : SIGTERM);
    task.is_ended = true;
  }
  if (!task.process) return;
  if (kill) {
    task.process->Kill();
  } else {
    task.process->Terminate();
  }
}

void TaskTable::SignalAll(bool kill) {
  for (auto& [number, task] : tasks_) Signal(number, kill);
}

void TaskTable::AddWaits(std::vector<pollfd>* waits) const {
  for (const auto& [number, task] : tasks_) {
    if (task.making_tree) waits->push_back({task.making_tree->fd(), POLLIN, 0});
    if (task.removing) waits->push_back({task.removing->fd(), POLLIN, 0});
    if (task.process && task.process->status_fd() >= 0) waits->push_back({task.process->status_fd(), POLLIN, 0});
  }
}

void TaskTable::Advance(bool strays_left) {
  for (auto& [number, task] : tasks_) {
    if (task.making_tree) {
      std::optional<absl::StatusOr<std::string>> made = task.making_tree->Poll();
      if (made) {
        task.making_tree.reset();
        const std::string problem = made->ok() ? **made : std::string(made->status().message());
        if (!problem.empty()) {
          Fail(&task, problem);
        } else {
          TreeIsMade(&task);
        }
      }
    }
    if (task.process && task.process->status_fd() >= 0) {
      for (const GuardedEvent& event : task.process->Read()) {
        if (event.kind == GuardedEvent::kStarted) {
          task.started.emplace();
          task.started->set_task(number);
          task.started->set_pid(event.pid);
          AgentLog(absl::StrCat(task.name, " is started, pid ", event.pid));
          agent::FromAgent message;
          *message.mutable_task_started() = *task.started;
          node_.tell(message);
          if (task.request.port() != 0 && task.request.listens_within_ms() != 0) {
            task.listens_by = SteadyNow() + absl::Milliseconds(task.request.listens_within_ms());
          }
        } else if (event.kind == GuardedEvent::kExited) {
          Exited(&task, event.code, event.signal);
        } else {
          // A guard that was killed takes its task along, by SIGKILL.
          if (!task.exited) Exited(&task, 0, SIGKILL);
          task.is_ended = true;
        }
      }
    }
    if (!task.is_ended || task.is_gone || strays_left || !ContainersAreGone(&task)) continue;
    task.is_gone = true;
    task.process.reset();
    node_.streams.TaskIsGone(number);
    if (!task.is_told) {
      task.exited->set_port_taken(node_.ports.IsTaken(task.request.port()));
      if (task.exited->port_taken())
        AgentLog(absl::StrCat(task.name, ": another program has its port ", task.request.port()));
      TellExit(&task);
    }
    task.port_name.Close();
    TellGone(number);
  }
}

void TaskTable::LookAtPorts(absl::Time now) {
  for (auto& [number, task] : tasks_) {
    if (now < task.listens_by) continue;
    task.listens_by = absl::InfiniteFuture();
    if (task.exited || task.was_stopped || wire::IsListenedOn(static_cast<uint16_t>(task.request.port()))) continue;
    AgentLog(absl::StrCat(task.name, " does not listen on its port ", task.request.port()));
    agent::FromAgent message;
    message.mutable_not_listening()->set_task(number);
    node_.tell(message);
  }
}

absl::Time TaskTable::next_look_at_ports() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [number, task] : tasks_) next = std::min(next, task.listens_by);
  return next;
}

bool TaskTable::wants_sweep() const {
  for (const auto& [number, task] : tasks_) {
    if (task.is_ended && !task.is_gone) return true;
  }
  return false;
}

bool TaskTable::all_gone() const {
  for (const auto& [number, task] : tasks_) {
    if (!task.is_gone) return false;
  }
  return true;
}

void TaskTable::AddChildren(std::vector<pid_t>* pids) const {
  for (const auto& [number, task] : tasks_) {
    if (task.making_tree) pids->push_back(task.making_tree->pid());
    if (task.removing) pids->push_back(task.removing->pid());
    if (task.process && task.process->status_fd() >= 0) pids->push_back(task.process->guard());
  }
}

void TaskTable::Report(agent::Welcome* welcome) const {
  for (const auto& [number, task] : tasks_) {
    if (task.started) *welcome->add_started() = *task.started;
    if (task.is_told) *welcome->add_exited() = *task.exited;
    if (task.is_gone) welcome->add_gone()->set_task(number);
  }
}

std::vector<TaskOutputs> TaskTable::outputs() const {
  std::vector<TaskOutputs> outputs;
  for (const auto& [number, task] : tasks_) outputs.push_back({number, task.name, task.tree});
  return outputs;
}

}  // namespace basin
