#include "estimator/agent/environment_preparation.h"

#include <signal.h>
#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "estimator/agent/channel.h"
#include "estimator/agent/task_container.h"
#include "estimator/container/removal.h"
#include "estimator/environment/build_environment.h"
#include "estimator/environment/environment_spec.h"

namespace basin {
namespace {

constexpr size_t kShownLogBytes = size_t{8} << 10;
constexpr size_t kMostPreparedBytes = size_t{64} << 10;
constexpr char kRemovalsName[] = "environment";

agent::EnvironmentReady Problem(const std::string& text) {
  agent::EnvironmentReady ready;
  ready.set_problem(text);
  return ready;
}

}  // namespace

std::string EnvironmentPreparation::LogName() const { return absl::StrCat("environment-", folder_.node, ".txt"); }
std::string EnvironmentPreparation::LogPath() const { return absl::StrCat(folder_.Logs(), "/", LogName()); }

std::optional<agent::EnvironmentReady> EnvironmentPreparation::Prepare(const agent::PrepareEnvironment& request) {
  const std::string spec = request.spec() + "\n" + request.container();
  if (running()) {
    if (spec == spec_) return std::nullopt;
    return Problem("another environment is being built on this node for this run");
  }
  if (is_ready_ && spec == spec_) return ready_;
  is_ready_ = false;
  ready_.Clear();
  spec_ = spec;
  image_.reset();
  const absl::StatusOr<EnvironmentSpec> parsed = ParseEnvironmentSpec(request.spec());
  if (!parsed.ok()) return Problem(std::string(parsed.status().message()));
  if (!request.container().empty()) {
    const absl::StatusOr<ContainerRequest> container = ParseContainerRequest(request.container());
    if (!container.ok()) return Problem(std::string(container.status().message()));
    container_ = *container;
  } else if (parsed->kind == EnvironmentSpec::Kind::kNone) {
    is_ready_ = true;
    return ready_;
  }
  const std::string spec_path = folder_.path + "/environment.spec";
  const std::string result_path = folder_.path + "/environment.json";
  if (absl::Status status = WriteFileAtomically(spec_path, request.spec(), 0600); !status.ok()) {
    return Problem(std::string(status.message()));
  }
  unlink(result_path.c_str());
  GuardedCommand command;
  command.argv = {programs_.folder + "/basin",
                  "environment-build",
                  "--spec",
                  spec_path,
                  "--base",
                  folder_.base,
                  "--result",
                  result_path};
  if (!request.container().empty()) {
    const std::string container_path = folder_.path + "/environment.container";
    if (absl::Status status = WriteFileAtomically(container_path, request.container(), 0600); !status.ok()) {
      return Problem(std::string(status.message()));
    }
    command.containers = RemovalsOf(folder_, kRemovalsName);
    for (const std::string& word :
         {std::string("--container"), container_path, std::string("--run"), folder_.run_id, std::string("--name"),
          absl::StrCat("basin-", folder_.run_id, "-", folder_.node, "-environment"), std::string("--removals"),
          command.containers}) {
      command.argv.push_back(word);
    }
  }
  command.environment = EnvironmentLines(inherited_);
  command.folder = folder_.path;
  command.log_path = LogPath();
  command.grace = grace_;
  absl::StatusOr<GuardedProcess> process = GuardedProcess::Start(command);
  if (!process.ok()) return Problem(std::string(process.status().message()));
  process_.emplace(*std::move(process));
  code_ = 0;
  signal_ = SIGKILL;  // unless its guard says otherwise
  return std::nullopt;
}

std::optional<agent::EnvironmentReady> EnvironmentPreparation::Poll() {
  if (removing_) {
    if (!removing_->Poll()) return std::nullopt;
    removing_.reset();
    ForgetRemovals(RemovalsOf(folder_, kRemovalsName));  // what could not be removed is told
    return Result();
  }
  if (!process_) return std::nullopt;
  for (const GuardedEvent& event : process_->Read()) {
    if (event.kind == GuardedEvent::kExited) {
      code_ = event.code;
      signal_ = event.signal;
    }
    if (event.kind != GuardedEvent::kGone) continue;
    process_.reset();
    // Its guard has, unless it was killed itself.
    const std::string removals = RemovalsOf(folder_, kRemovalsName);
    if (!HasNoted(removals)) return Result();
    absl::StatusOr<ForkedWork> work = ForkedWork::Start([removals] {
      RemoveNoted(removals, absl::Seconds(30));
      return std::string();
    });
    if (!work.ok()) return Result();
    removing_.emplace(*std::move(work));
    return std::nullopt;
  }
  return std::nullopt;
}

agent::EnvironmentReady EnvironmentPreparation::Result() {
  // It appears whole or not at all: what it says holds, however its writer ended afterwards.
  const absl::StatusOr<std::string> text = ReadFile(folder_.path + "/environment.json", kMostPreparedBytes);
  if (!text.ok()) {
    if (signal_ != 0) return Problem(absl::StrCat("the build of the environment was ended by signal ", signal_));
    // It could not even say what went wrong: its log may.
    const absl::StatusOr<std::string> said = ReadTail(LogPath(), kShownLogBytes);
    return Problem(
        absl::StrCat("the environment could not be built (exit code ", code_, ", no result: ", text.status().message(),
                     "), see logs/", LogName(),
                     said.ok() && !said->empty() ? absl::StrCat("; its last lines:\n", LastLines(*said)) : ""));
  }
  const absl::StatusOr<BuiltEnvironment> built = ParseBuiltEnvironment(*text);
  if (!built.ok()) {
    return Problem(
        absl::StrCat("the environment could not be built, see logs/", LogName(), ": ", built.status().message()));
  }
  ready_.set_python(built->python);
  ready_.set_prefix(built->prefix);
  image_ = built->image;
  if (image_) ready_.set_image(absl::StrCat(image_->version, ", image ", image_->identity));
  is_conda_ = access((built->prefix + "/conda-meta").c_str(), F_OK) == 0;
  is_ready_ = true;
  return ready_;
}

void EnvironmentPreparation::Terminate() {
  if (process_) process_->Terminate();
}

void EnvironmentPreparation::Kill() {
  if (process_) process_->Kill();
}

}  // namespace basin
