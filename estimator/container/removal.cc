#include "estimator/container/removal.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

extern char** environ;

namespace basin {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostBytes = size_t{1} << 20;
constexpr absl::Duration kLookEvery = absl::Milliseconds(20);

std::vector<std::string> NotedIn(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// What went wrong; empty: it is removed.
std::string Run(const std::vector<std::string>& argv, absl::Duration limit) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  absl::Cleanup destroy = [&actions] { posix_spawn_file_actions_destroy(&actions); };
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  // It says which one it has removed.
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  std::vector<char*> pointers;
  for (const std::string& word : argv) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  // Whoever waits may hold signals back that the engine is to hear.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  absl::Cleanup destroy_attributes = [&attributes] { posix_spawnattr_destroy(&attributes); };
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t pid = 0;
  if (const int error = posix_spawnp(&pid, pointers[0], &actions, &attributes, pointers.data(), environ); error != 0) {
    return std::string(ErrnoStatus(error, "it cannot be started").message());
  }
  int status = 0;
  bool ended = false;
  for (absl::Duration left = limit; !ended && left > absl::ZeroDuration(); left -= kLookEvery) {
    ended = waitpid(pid, &status, WNOHANG) == pid;
    if (!ended) absl::SleepFor(std::min(left, kLookEvery));
  }
  if (!ended) {
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return absl::StrCat("it did not end within ", absl::FormatDuration(limit));
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
  return absl::StrCat("it failed with ", WIFEXITED(status) ? "exit code " : "signal ",
                      WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

}  // namespace

absl::Status NoteRemoval(const std::string& folder, const std::string& name, const std::vector<std::string>& argv) {
  BASIN_RETURN_IF_ERROR(MakeFolders(folder, 0700));
  std::string text;
  for (const std::string& word : argv) text.append(word).push_back('\0');
  return WriteFileAtomically(absl::StrCat(folder, "/", name), text, 0600);
}

void ForgetRemoval(const std::string& folder, const std::string& name) {
  unlink(absl::StrCat(folder, "/", name).c_str());
}

void RemoveNoted(const std::string& folder, absl::Duration limit) {
  for (const std::string& name : NotedIn(folder)) {
    const absl::StatusOr<std::string> text = ReadFile(absl::StrCat(folder, "/", name), kMostBytes);
    if (!text.ok() || text->empty() || text->back() != '\0') continue;  // WriteFileAtomically's, not yet in place
    const std::vector<std::string> argv = absl::StrSplit(text->substr(0, text->size() - 1), '\0');
    const std::string problem = Run(argv, limit);
    if (!problem.empty()) {
      std::fprintf(stderr, "basin: container %s may be left: %s (%s); remove it by that command\n", name.c_str(),
                   problem.c_str(), absl::StrJoin(argv, " ").c_str());
      continue;
    }
    ForgetRemoval(folder, name);
  }
}

void ForgetRemovals(const std::string& folder) {
  for (const std::string& name : NotedIn(folder)) ForgetRemoval(folder, name);
}

bool HasNoted(const std::string& folder) { return !NotedIn(folder).empty(); }

}  // namespace basin
