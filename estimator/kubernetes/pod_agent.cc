#include "estimator/kubernetes/pod_agent.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/agent/steady_now.h"
#include "estimator/kubernetes/kept_outputs.h"
#include "estimator/kubernetes/pod_log.h"
#include "estimator/kubernetes/pod_plan.h"
#include "estimator/kubernetes/pod_source.h"
#include "estimator/launch/local_launcher.h"
#include "estimator/run/node_link.h"

namespace basin {
namespace {

using agent::FromAgent;
using agent::ToAgent;

// The agent ends with this process, by the end of its connection. The lease is for one that hangs.
constexpr absl::Duration kLease = absl::Minutes(10);
constexpr absl::Duration kPingEvery = absl::Seconds(20);
constexpr uint64_t kFirstEpoch = 1;
// Of the output, between two lines that say where it is.
constexpr uint64_t kMarkEvery = uint64_t{1} << 20;

void Print(absl::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = write(STDOUT_FILENO, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return;  // nobody keeps the log
    text.remove_prefix(static_cast<size_t>(wrote));
  }
}

std::string BaseInPod() { return absl::StrCat(kPodWorkFolder, "/base"); }

class PodAgent {
 public:
  PodAgent(const PodAgentOptions& options, PodPlan plan, PlannedTask task, std::string token, int signals)
      : options_(options),
        plan_(std::move(plan)),
        task_(std::move(task)),
        token_(std::move(token)),
        signals_(signals) {}

  absl::StatusOr<int> Run() {
    BASIN_ASSIGN_OR_RETURN(source_, ReadPodSource(plan_, BaseInPod()));
    BASIN_RETURN_IF_ERROR(MakeFolders(BaseInPod(), 0700));
    const std::unique_ptr<Launcher> launcher = MakeLocalLauncher(BaseInPod(), "");
    BASIN_ASSIGN_OR_RETURN(const AgentPipe pipe, launcher->Open({plan_.run_id, Number(), {}}));
    link_ = std::make_unique<NodeLink>(pipe);
    while (!exit_code_) {
      Wait();
      TakeSignals();
      if (link_) ServiceLink();
      if (link_) SendSource();
      PollOutputs();
      OnTime(SteadyNow());
    }
    return *exit_code_;
  }

 private:
  uint32_t Number() const { return static_cast<uint32_t>(task_.place.node); }

  void Wait() {
    std::vector<pollfd> waits = {{signals_, POLLIN, 0}};
    absl::Time until = std::min({next_ping_, kill_at_, wait_until_});
    if (link_) {
      link_->AddWaits(&waits);
      until = std::min(until, link_->NextDeadline());
    }
    kept_.AddWaits(&waits);
    if (agent_.get() >= 0) waits.push_back({agent_.get(), POLLIN, 0});
    const int64_t left = until == absl::InfiniteFuture() ? 60'000 : absl::ToInt64Milliseconds(until - SteadyNow()) + 1;
    // What waits for room to be sent is tried again soon.
    const int64_t most = source_.tree.empty() ? 60'000 : 20;
    poll(waits.data(), waits.size(), static_cast<int>(std::clamp<int64_t>(left, 0, most)));
    // The agent that another took over has ended, and with it all that was of the task.
    if (taken_over_ && (agent_.get() < 0 || waits.back().revents != 0)) Finish(TaskCode());
  }

  void TakeSignals() {
    signalfd_siginfo info;
    while (read(signals_, &info, sizeof info) == sizeof info) {
      if (!is_stopping_) Print(PodLine("ending"));
      is_stopping_ = true;
      wait_until_ = std::min(wait_until_, SteadyNow());
      if (taken_over_ || !link_ || !link_->speaks()) {
        if (agent_pid_ > 0) kill(agent_pid_, SIGTERM);
        if (agent_pid_ == 0) Finish(128 + SIGTERM);
      } else if (!started_) {
        Refuse(kExitFailed, "the pod was told to end before its task had started");
      } else {
        SignalTask(false);
        kill_at_ = SteadyNow() + absl::Seconds(plan_.cancel_grace_seconds);
      }
    }
  }

  void SignalTask(bool kill) {
    ToAgent message;
    message.mutable_signal_task()->set_task(Number());
    message.mutable_signal_task()->set_kill(kill);
    link_->Send(message);
  }

  void OnTime(absl::Time now) {
    if (exit_code_ || !link_ || !link_->speaks()) return;
    if (now >= kill_at_) {
      kill_at_ = absl::InfiniteFuture();
      SignalTask(true);
    }
    if (now >= next_ping_) {
      next_ping_ = now + kPingEvery;
      ToAgent message;
      message.mutable_ping()->set_number(++pings_);
      link_->Send(message);
    }
    if (drained_ && now >= wait_until_) Leave();
  }

  void ServiceLink() {
    std::vector<LinkEvent> events;
    link_->Service(SteadyNow(), &events);
    for (const LinkEvent& event : events) {
      if (exit_code_ || !link_) return;
      if (event.kind == LinkEvent::kSpeaks) SayHello();
      if (event.kind == LinkEvent::kMessage) Handle(event.message);
      if (event.kind == LinkEvent::kEnded) Ended(event.text);
    }
  }

  void Ended(const std::string& why) {
    const std::string errors = link_->Finish().errors;
    link_.reset();
    if (taken_over_) return;
    if (left_) return Finish(TaskCode());
    Print(PodLine("refused", absl::StrCat(kExitFailed, " the agent in the pod has ended: ", why,
                                          errors.empty() ? "" : absl::StrCat(": ", errors))));
    Finish(kExitFailed);
  }

  void SayHello() {
    ToAgent message;
    agent::Hello* hello = message.mutable_hello();
    hello->set_run_id(plan_.run_id);
    hello->set_node(Number());
    hello->set_epoch(kFirstEpoch);
    hello->set_token(token_);
    hello->set_lease_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(kLease)));
    hello->set_cancel_grace_ms(static_cast<uint32_t>(plan_.cancel_grace_seconds * 1000));
    link_->Send(message);
  }

  // The steps that come before the task, each once the one before is done.
  enum class Step { kInputs, kSource, kEnvironment, kPort, kStart, kDone };
  void NextStep(Step step) {
    ToAgent message;
    switch (step) {
      case Step::kInputs:
        if (plan_.inputs.empty()) return NextStep(Step::kSource);
        for (const JobInput& input : plan_.inputs) {
          agent::Input* out = message.mutable_check_inputs()->add_inputs();
          out->set_name(input.name);
          out->set_path(input.path);
        }
        break;
      case Step::kSource:
        if (!source_.offer) return NextStep(Step::kEnvironment);
        message = *source_.offer;
        break;
      case Step::kEnvironment:
        if (plan_.environment_spec.empty()) return NextStep(Step::kPort);
        Print(PodLine("state", "preparing: the environment is built"));
        message.mutable_prepare_environment()->set_spec(plan_.environment_spec);
        break;
      case Step::kPort:
        if (task_.place.port == 0) return NextStep(Step::kStart);
        message.mutable_hold_ports()->set_count(1);
        message.mutable_hold_ports()->set_first(static_cast<uint32_t>(task_.place.port));
        message.mutable_hold_ports()->set_last(static_cast<uint32_t>(task_.place.port));
        message.mutable_hold_ports()->set_bind_address(options_.pod_ip);
        break;
      case Step::kStart:
        message = StartMessage();
        break;
      case Step::kDone:
        return;
    }
    link_->Send(message);
  }

  ToAgent StartMessage() const {
    ToAgent message;
    agent::StartTask* start = message.mutable_start_task();
    start->set_task(Number());
    start->set_role(std::string(Name(plan_.role)));
    start->set_index(task_.place.name.index);
    for (const std::string& word : task_.argv) start->add_argv(word);
    for (const auto& [name, value] : task_.environment) {
      agent::Variable* variable = start->add_environment();
      variable->set_name(name);
      variable->set_value(value);
    }
    start->set_port(static_cast<uint32_t>(task_.place.port));
    start->set_takes_listener(task_.takes_listener);
    if (source_.offer && task_.uses_snapshot) start->set_snapshot_digest(source_.offer->offer_snapshot().digest());
    for (const std::string& line : plan_.setup) start->add_setup(line);
    return message;
  }

  void Handle(const FromAgent& message) {
    switch (message.body_case()) {
      case FromAgent::kWelcome: {
        agent_pid_ = message.welcome().pid();
        agent_ = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, agent_pid_, 0)));
        node_folder_ = message.welcome().node_folder();
        Print(PodLine("agent"));
        ToAgent streams;
        streams.mutable_stream_files();
        link_->Send(streams);
        return NextStep(Step::kInputs);
      }
      case FromAgent::kInputsChecked: {
        std::vector<std::string> problems;
        for (const agent::InputProblem& one : message.inputs_checked().problems()) {
          problems.push_back(absl::StrCat("inputs: ", one.name(), ": ", one.problem()));
        }
        return problems.empty() ? NextStep(Step::kSource) : Refuse(kExitUsage, absl::StrJoin(problems, "; "));
      }
      case FromAgent::kSnapshotState:
        if (!message.snapshot_state().problem().empty()) return Refuse(kExitFailed, message.snapshot_state().problem());
        if (message.snapshot_state().have()) {
          source_.tree.clear();
          return NextStep(Step::kEnvironment);
        }
        sends_source_ = true;
        return;
      case FromAgent::kEnvironmentReady: {
        const std::string& problem = message.environment_ready().problem();
        return problem.empty() ? NextStep(Step::kPort) : Refuse(kExitFailed, problem);
      }
      case FromAgent::kPortsHeld: {
        const agent::PortsHeld& held = message.ports_held();
        const bool is_ours = held.ports_size() == 1 && held.ports(0) == static_cast<uint32_t>(task_.place.port);
        if (is_ours) return NextStep(Step::kStart);
        return Refuse(
            kExitFailed,
            absl::StrCat("port ", task_.place.port, " of the pod cannot be had", held.problem().empty() ? "" : ": ",
                         held.problem(),
                         "; is the pod on the host's network (hostNetwork), or another container of it there?"));
      }
      case FromAgent::kTaskStarted:
        started_ = true;
        return Print(PodLine("started", absl::StrCat(message.task_started().pid())));
      case FromAgent::kTaskExited:
        exit_ = TaskExit{message.task_exited().code(), message.task_exited().signal(), false};
        return Print(
            PodLine("exited", absl::StrCat(exit_->code, " ", exit_->signal, " ", message.task_exited().problem())));
      case FromAgent::kTaskGone: {
        // With no room for outputs, what comes is the end of the streams.
        ToAgent drain;
        drain.mutable_collect_outputs();
        return link_->Send(drain);
      }
      case FromAgent::kFileChunk:
        return HandleChunk(message.file_chunk());
      case FromAgent::kCollected:
        Print(PodLine("gone"));
        return plan_.outputs == "folder" ? KeepOutputs() : Drained();
      case FromAgent::kGoodbye:
        link_.reset();
        return Finish(TaskCode());
      case FromAgent::kRefused:
        // The only one that can be: another with a larger epoch.
        taken_over_ = true;
        link_.reset();
        return;
      default:
        return;
    }
  }

  void HandleChunk(const agent::FileChunk& chunk) {
    if (chunk.stream() == agent::LOG) {
      if (chunk.offset() >= next_mark_) {
        Print(PodLine("log", absl::StrCat(chunk.offset())));
        next_mark_ = chunk.offset() + kMarkEvery;
      }
      Print(chunk.data());
    } else if (chunk.stream() != agent::OUTPUT) {
      Print(PodChunkLine(chunk));
    }
    if (!chunk.data().empty()) link_->Stored(chunk.data().size());
  }

  void SendSource() {
    if (!sends_source_) return;
    while (!source_.tree.empty() && link_->CanSendData()) {
      // Entries are data too: control would overtake the bytes of the file before.
      link_->SendData(source_.tree.front(), source_.tree.front().tree_data().data().size());
      source_.tree.pop_front();
    }
  }

  void KeepOutputs() {
    const std::string name = absl::StrCat(Name(plan_.role), "-", task_.place.name.index);
    kept_.Begin(absl::StrCat(node_folder_, "/tasks/", name), absl::StrCat(plan_.kept_path, "/", name));
  }

  void PollOutputs() {
    const std::optional<std::string> text = kept_.Poll();
    if (!text) return;
    Print(PodLine("kept", *text));
    Drained();
  }

  void Drained() {
    drained_ = true;
    wait_until_ = plan_.outputs == "exec" && !is_stopping_ ? SteadyNow() + absl::Seconds(plan_.wait_seconds)
                                                           : absl::InfinitePast();
  }

  void Leave() {
    if (left_) return;
    left_ = true;
    ToAgent message;
    message.mutable_bye();
    link_->Send(message);
  }

  void Refuse(int code, const std::string& why) {
    Print(PodLine("refused", absl::StrCat(code, " ", why)));
    exit_ = TaskExit{code, 0, false};
    Leave();
  }

  // As shells have it. Where another took over before the end, that one knows.
  int TaskCode() const {
    if (!exit_) return 128 + SIGTERM;
    return exit_->signal != 0 ? 128 + exit_->signal : exit_->code;
  }

  void Finish(int code) {
    if (!exit_code_) exit_code_ = code;
  }

  const PodAgentOptions& options_;
  const PodPlan plan_;
  const PlannedTask task_;
  const std::string token_;
  const int signals_;
  std::unique_ptr<NodeLink> link_;
  UniqueFd agent_;  // a pidfd
  pid_t agent_pid_ = 0;
  std::string node_folder_;
  PodSource source_;
  bool sends_source_ = false;
  KeptOutputs kept_;
  bool started_ = false;
  bool drained_ = false;
  bool taken_over_ = false;
  bool left_ = false;
  bool is_stopping_ = false;
  std::optional<TaskExit> exit_;
  std::optional<int> exit_code_;
  uint64_t pings_ = 0;
  uint64_t next_mark_ = kMarkEvery;
  absl::Time next_ping_ = absl::InfinitePast();
  absl::Time kill_at_ = absl::InfiniteFuture();
  absl::Time wait_until_ = absl::InfiniteFuture();
};

absl::StatusOr<int> RunWithPlan(const PodAgentOptions& options, int signals) {
  const absl::StatusOr<std::string> text = ReadFile(absl::StrCat(kPodPlanFolder, "/plan.json"));
  if (!text.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(
        text.status().message(), "; it is the command of a pod that basin submit has made, which has its plan there"));
  }
  BASIN_ASSIGN_OR_RETURN(PodPlan plan, ParsePodPlan(*text));
  if (plan.version != options.version) {
    return absl::FailedPreconditionError(absl::StrCat("the image has Basin ", options.version,
                                                      ", the job was submitted by ", plan.version,
                                                      "; use an image of the same version"));
  }
  uint32_t index = 0;
  if (!absl::SimpleAtoi(options.index, &index)) {
    return absl::InvalidArgumentError(
        absl::StrCat("JOB_COMPLETION_INDEX is \"", options.index,
                     "\", expected the number of a task; the pods of an indexed Job have it"));
  }
  const auto task = std::find_if(plan.tasks.begin(), plan.tasks.end(),
                                 [index](const PlannedTask& one) { return one.place.name.index == index; });
  if (task == plan.tasks.end()) {
    return absl::InvalidArgumentError(absl::StrCat("the plan has no ", Name(plan.role), " ", index));
  }
  BASIN_ASSIGN_OR_RETURN(const std::string token, ReadFile(absl::StrCat(kPodTokenFolder, "/token"), 4096));
  const PlannedTask chosen = *task;
  PodAgent pod(options, std::move(plan), chosen, std::string(absl::StripAsciiWhitespace(token)), signals);
  return pod.Run();
}

}  // namespace

int RunPodAgent(const PodAgentOptions& options) {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_DFL);
  // Blocked before anything else: process 1 of a pod would otherwise lose them.
  sigset_t watched;
  sigemptyset(&watched);
  for (const int one : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&watched, one);
  sigprocmask(SIG_BLOCK, &watched, nullptr);
  const UniqueFd signals(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  Print(PodLine("pod", options.version));
  const absl::StatusOr<int> code = RunWithPlan(options, signals.get());
  if (code.ok()) return *code;
  Print(PodLine("refused", absl::StrCat(ExitCodeFor(code.status()), " ", code.status().message())));
  return ExitCodeFor(code.status());
}

}  // namespace basin
