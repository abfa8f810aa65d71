#include "estimator/kubernetes/kubectl.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "estimator/agent/channel.h"
#include "estimator/agent/steady_now.h"
#include "estimator/launch/spawn.h"

namespace basin {
namespace {

constexpr int kTimedOut = 124;

// Parts in small letters; the text in any.
bool SaysOneOf(absl::string_view text, const std::vector<absl::string_view>& parts) {
  const std::string small = absl::AsciiStrToLower(text);
  return std::any_of(parts.begin(), parts.end(),
                     [&small](absl::string_view part) { return absl::StrContains(small, part); });
}

// Its log lines ("E0102 10:00:00.0 1 memcache.go:265] ...") repeat the error in other words, four times over.
std::string WithoutLog(const std::string& text) {
  std::vector<absl::string_view> lines;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const bool log = line.size() > 5 && absl::string_view("IWEF").find(line[0]) != absl::string_view::npos &&
                     std::all_of(line.begin() + 1, line.begin() + 5, absl::ascii_isdigit) && line[5] == ' ';
    if (!log) lines.push_back(line);
  }
  const std::string rest(absl::StripAsciiWhitespace(absl::StrJoin(lines, "\n")));
  return rest.empty() ? text : rest;
}

}  // namespace

std::vector<std::string> KubectlWords(const KubernetesSettings& settings, const std::vector<std::string>& words) {
  std::vector<std::string> argv = {settings.kubectl.empty() ? "kubectl" : settings.kubectl};
  if (!settings.kubeconfig.empty()) argv.push_back(absl::StrCat("--kubeconfig=", settings.kubeconfig));
  if (!settings.context.empty()) argv.push_back(absl::StrCat("--context=", settings.context));
  if (!settings.name_space.empty()) argv.push_back(absl::StrCat("--namespace=", settings.name_space));
  argv.insert(argv.end(), words.begin(), words.end());
  return argv;
}

absl::Status KubectlStatus(const KubernetesSettings& settings, const std::string& what, const KubectlResult& result) {
  if (result.exit_code == 0) return absl::OkStatus();
  const std::string said(
      absl::StripAsciiWhitespace(LastLines(WithoutLog(result.errors.empty() ? result.out : result.errors))));
  const std::string text = absl::StrCat("kubectl could not ", what, ": ",
                                        said.empty() ? absl::StrCat("it ended with code ", result.exit_code) : said);
  const std::string place =
      settings.name_space.empty() ? "the context's namespace" : "namespace " + settings.name_space;
  if (result.exit_code == kTimedOut) {
    return absl::UnavailableError(absl::StrCat(text, "; the cluster has not answered in time"));
  }
  if (SaysOneOf(said, {"unauthorized", "must be logged in", "asked for the client to provide credentials"})) {
    return absl::UnauthenticatedError(absl::StrCat(text, "; log in to the cluster, so that kubectl get pods answers"));
  }
  if (SaysOneOf(said, {"forbidden"}) && !SaysOneOf(said, {"exceeded quota", "violates podsecurity"})) {
    return absl::PermissionDeniedError(absl::StrCat(text, "; ask for that permission in ", place,
                                                    " (basin doctor --target NAME lists all that runs need)"));
  }
  if (absl::StartsWith(said, "Error from server (NotFound): namespaces") ||
      (SaysOneOf(said, {"namespaces \""}) && SaysOneOf(said, {"not found"}))) {
    return absl::NotFoundError(absl::StrCat(text, "; correct kubernetes.namespace, or have it made"));
  }
  if (SaysOneOf(said, {"context was not found", "does not exist", "no context exists"}) &&
      SaysOneOf(said, {"context"})) {
    return absl::NotFoundError(
        absl::StrCat(text, "; correct kubernetes.context (kubectl config get-contexts lists them)"));
  }
  if (SaysOneOf(said, {"connection refused", "was refused", "unable to connect", "no such host", "i/o timeout",
                       "tls handshake", "serviceunavailable", "the server is currently unable", "etcdserver",
                       "no route to host", "context deadline exceeded", "unexpected eof", "too many requests"})) {
    return absl::UnavailableError(absl::StrCat(text, "; is the cluster reachable from here?"));
  }
  if (SaysOneOf(said, {"(notfound)"})) return absl::NotFoundError(text);
  if (SaysOneOf(said, {"error from server", "is invalid", "error validating"}))
    return absl::FailedPreconditionError(text);
  return absl::InternalError(text);
}

KubectlCall::KubectlCall(AgentPipe pipe, std::string input, absl::Time deadline)
    : child_(pipe), input_(std::move(input)), deadline_(deadline) {
  if (input_.empty()) child_.CloseInput();
}

absl::StatusOr<std::unique_ptr<KubectlCall>> KubectlCall::Start(const KubernetesSettings& settings,
                                                                const std::vector<std::string>& words,
                                                                std::string input, absl::Time deadline) {
  signal(SIGPIPE, SIG_IGN);
  const std::vector<std::string> argv = KubectlWords(settings, words);
  const absl::StatusOr<AgentPipe> pipe = SpawnPiped(argv[0], argv);
  if (!pipe.ok()) {
    return absl::NotFoundError(absl::StrCat(pipe.status().message(),
                                            "; targets of kind kubernetes need kubectl: install it, or name it by "
                                            "kubernetes.kubectl"));
  }
  return std::unique_ptr<KubectlCall>(new KubectlCall(*pipe, std::move(input), deadline));
}

void KubectlCall::AddWaits(std::vector<pollfd>* waits) const {
  const AgentPipe& pipe = child_.pipe();
  waits->push_back({pipe.from_agent, POLLIN, 0});
  if (pipe.errors >= 0) waits->push_back({pipe.errors, POLLIN, 0});
  if (pipe.to_agent >= 0 && input_at_ < input_.size()) waits->push_back({pipe.to_agent, POLLOUT, 0});
}

std::optional<KubectlResult> KubectlCall::Service(absl::Time now) {
  child_.ReadErrors();
  while (child_.pipe().to_agent >= 0 && input_at_ < input_.size()) {
    const ssize_t wrote = write(child_.pipe().to_agent, input_.data() + input_at_, input_.size() - input_at_);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EAGAIN) break;
    if (wrote < 0) input_at_ = input_.size();  // what it says tells why
    if (wrote > 0) input_at_ += static_cast<size_t>(wrote);
  }
  if (child_.pipe().to_agent >= 0 && input_at_ == input_.size()) child_.CloseInput();
  ssize_t got = 0;
  // In turns: a log that grows fast must not hold up everything else.
  for (int turn = 0; turn < 16; ++turn) {
    got = ReadSome(child_.pipe().from_agent, &out_);
    if (got <= 0) break;
  }
  const bool late = now >= deadline_;
  if (got != 0 && !late) return std::nullopt;
  KubectlResult result;
  result.exit_code = child_.Finish(late ? absl::ZeroDuration() : absl::Seconds(1));
  if (late) result.exit_code = kTimedOut;
  result.out = std::move(out_);
  result.errors = child_.errors();
  return result;
}

std::string KubectlCall::TakeOutput() {
  std::string taken;
  taken.swap(out_);
  return taken;
}

absl::StatusOr<std::string> RunKubectl(const KubernetesSettings& settings, const std::string& what,
                                       const std::vector<std::string>& words, const std::string& input,
                                       absl::Duration limit) {
  BASIN_ASSIGN_OR_RETURN(const std::unique_ptr<KubectlCall> call,
                         KubectlCall::Start(settings, words, input, SteadyNow() + limit));
  while (true) {
    std::vector<pollfd> waits;
    call->AddWaits(&waits);
    const int64_t left = absl::ToInt64Milliseconds(call->deadline() - SteadyNow()) + 1;
    poll(waits.data(), waits.size(), static_cast<int>(std::clamp<int64_t>(left, 0, 60'000)));
    std::optional<KubectlResult> result = call->Service(SteadyNow());
    if (!result) continue;
    BASIN_RETURN_IF_ERROR(KubectlStatus(settings, what, *result));
    return std::move(result->out);
  }
}

absl::StatusOr<std::string> AskController(const KubernetesSettings& settings) {
  if (!settings.controller.empty()) return settings.controller;
  BASIN_ASSIGN_OR_RETURN(const std::string kinds,
                         RunKubectl(settings, "list what the cluster has of JobSet",
                                    {"api-resources", "--api-group=jobset.x-k8s.io", "--no-headers", "-o", "name"}));
  return absl::StrContains(kinds, "jobsets.jobset.x-k8s.io") ? "jobset" : "jobs";
}

}  // namespace basin
