#include "estimator/history/git_state.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

extern char** environ;

namespace basin {
namespace {

constexpr size_t kOutputBytesMax = 64 << 10;  // the headers come first; of the rest only whether there is any counts

// The environment without what would lead git elsewhere or let it ask somebody.
std::vector<std::string> Environment() {
  std::vector<std::string> variables;
  for (char** one = environ; *one != nullptr; ++one) {
    if (!absl::StartsWith(*one, "GIT_") && !absl::StartsWith(*one, "SSH_ASKPASS=")) variables.push_back(*one);
  }
  for (const char* one : {"GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=false", "LC_ALL=C"}) {
    variables.push_back(one);
  }
  return variables;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// What it printed; nullopt where it could not be started, failed, or was not done in time.
std::optional<std::string> Output(std::vector<std::string> command, absl::Time deadline) {
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return std::nullopt;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  // A group of its own, so that what git starts ends with it, and Ctrl-C does not reach it.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  std::vector<std::string> variables = Environment();
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, command[0].c_str(), &actions, &attributes, Pointers(command).data(),
                                 Pointers(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  close(pipe_ends[1]);
  std::string text;
  bool ended = error != 0;
  while (!ended) {
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    pollfd poll_fd = {pipe_ends[0], POLLIN, 0};
    if (left <= 0 || poll(&poll_fd, 1, static_cast<int>(std::min<int64_t>(left, 1000))) < 0) {
      if (left <= 0 || errno != EINTR) break;
      continue;
    }
    if (poll_fd.revents == 0) continue;
    char piece[4096];
    const ssize_t got = read(pipe_ends[0], piece, sizeof(piece));
    ended = got == 0;
    if (got > 0 && text.size() < kOutputBytesMax) text.append(piece, static_cast<size_t>(got));
    if (got < 0 && errno != EINTR) break;
  }
  close(pipe_ends[0]);
  if (error != 0) return std::nullopt;
  if (!ended) kill(-pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!ended || !WIFEXITED(status) || WEXITSTATUS(status) != 0) return std::nullopt;
  return text;
}

}  // namespace

std::string WithoutSecrets(absl::string_view url) {
  const size_t scheme = url.find("://");
  if (scheme == absl::string_view::npos) {
    // A path, or user@host:path.
    const size_t colon = url.find(':'), at = url.find('@');
    if (url.empty() || url[0] == '/' || url[0] == '.' || colon == absl::string_view::npos) return std::string(url);
    if (absl::StartsWith(url.substr(colon), "::"))
      return absl::StrCat(url.substr(0, colon), "::...");  // a command line
    return std::string(at < colon ? url.substr(at + 1) : url);
  }
  const std::string head(url.substr(0, scheme + 3));
  absl::string_view rest = url.substr(scheme + 3);
  rest = rest.substr(0, rest.find_first_of("?#"));
  // A password may hold an unescaped slash or at sign; rather too much is cut than too little.
  const size_t slash = rest.find('/'), at = rest.rfind('@');
  const bool has_user = rest.substr(0, slash).find('@') != absl::string_view::npos;
  const bool has_password = rest.substr(0, slash).find(':') != absl::string_view::npos;
  if (at != absl::string_view::npos && (has_user || has_password)) {
    const bool within_authority = slash == absl::string_view::npos || at < slash;
    const size_t cut = within_authority || has_password ? at : rest.substr(0, slash).rfind('@');
    rest = rest.substr(cut + 1);
  }
  return absl::StrCat(head, rest);
}

std::map<std::string, std::string> GitState(const std::string& source_directory, absl::Duration limit) {
  const absl::Time deadline = absl::Now() + limit;
  std::map<std::string, std::string> state;
  const auto git = [&](std::vector<std::string> arguments, absl::Time until) {
    // Repositories may name programs to run for some of this.
    std::vector<std::string> command = {
        "git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C", source_directory};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return Output(std::move(command), until);
  };
  const std::optional<std::string> inside = git({"rev-parse", "--is-inside-work-tree"}, deadline);
  if (!inside || absl::StripAsciiWhitespace(*inside) != "true") return state;

  const auto keep = [&state](const char* name, const std::optional<std::string>& value) {
    if (!value) return;
    if (const absl::string_view text = absl::StripAsciiWhitespace(*value); !text.empty())
      state[name] = std::string(text);
  };
  keep("azureml.git.commit", git({"rev-parse", "--verify", "--quiet", "HEAD"}, deadline));
  keep("azureml.git.branch", git({"symbolic-ref", "--short", "--quiet", "HEAD"}, deadline));
  std::optional<std::string> url = git({"config", "--get", "remote.origin.url"}, deadline);
  if (!url) {
    const std::string remotes = git({"remote"}, deadline).value_or("");
    const std::string first = remotes.substr(0, remotes.find('\n'));
    if (!first.empty()) url = git({"config", "--get", absl::StrCat("remote.", first, ".url")}, deadline);
  }
  if (url) keep("azureml.git.repository_uri", WithoutSecrets(absl::StripAsciiWhitespace(*url)));
  // Last, for it reads the whole tree.
  if (const std::optional<std::string> changes = git({"status", "--porcelain"}, deadline)) {
    state["azureml.git.dirty"] = changes->empty() ? "False" : "True";
  }
  return state;
}

}  // namespace basin
