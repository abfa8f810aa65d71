#include "estimator/environment/installer.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <iterator>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "estimator/container/input_file.h"

extern char** environ;

namespace basin {
namespace {

constexpr size_t kLastLines = 12;
constexpr size_t kMaxLineBytes = 4096;

constexpr const char* kAstray[] = {"PYTHONPATH=", "PYTHONHOME=", "PYTHONSTARTUP=", "VIRTUAL_ENV=",
                                   "PIP_TARGET=", "PIP_PREFIX=", "PIP_USER=",      "PIP_REQUIRE_VIRTUALENV="};
constexpr const char* kAdded[] = {"PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_NO_INPUT=1", "PYTHONUNBUFFERED=1",
                                  "CONDA_ALWAYS_YES=true", "MAMBA_ALWAYS_YES=true"};
constexpr const char* kElsewhere[] = {
    "PIP_",        "http_proxy=", "https_proxy=",   "ftp_proxy=",          "all_proxy=",      "no_proxy=",
    "HTTP_PROXY=", "HTTPS_PROXY=", "FTP_PROXY=",    "ALL_PROXY=",          "NO_PROXY=",       "SSL_CERT_FILE=",
    "CURL_CA_BUNDLE=", "REQUESTS_CA_BUNDLE="};

template <size_t N>
bool BeginsWithOne(absl::string_view text, const char* const (&beginnings)[N]) {
  return std::any_of(std::begin(beginnings), std::end(beginnings),
                     [text](const char* beginning) { return absl::StartsWith(text, beginning); });
}

// The tool's environment: this process's, which main has not changed, less and more by a few names.
std::vector<std::string> ToolEnvironment() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!BeginsWithOne(*variable, kAstray)) variables.emplace_back(*variable);
  }
  variables.insert(variables.end(), std::begin(kAdded), std::end(kAdded));
  return variables;
}

std::vector<char*> Pointers(const std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// Cuts a stream into lines; a carriage return (progress bars) ends one too.
class LineCutter {
 public:
  explicit LineCutter(const std::function<void(absl::string_view)>& say) : say_(say) {}
  void Add(absl::string_view bytes) {
    for (const char c : bytes) {
      if (c == '\n' || c == '\r') {
        Flush();
      } else if (line_.size() < kMaxLineBytes) {
        line_ += c;
      }
    }
  }
  void Flush() {
    const absl::string_view line = absl::StripTrailingAsciiWhitespace(line_);
    if (!line.empty()) {
      say_(line);
      last_.emplace_back(line);
      if (last_.size() > kLastLines) last_.pop_front();
    }
    line_.clear();
  }
  std::vector<std::string> last() const { return {last_.begin(), last_.end()}; }

 private:
  const std::function<void(absl::string_view)>& say_;
  std::string line_;
  std::deque<std::string> last_;
};

}  // namespace

std::string InstallerOutcome::Ending() const {
  std::string text = exit_code > 128 ? absl::StrCat("signal ", exit_code - 128) : absl::StrCat("exit code ", exit_code);
  for (const std::string& line : last) absl::StrAppend(&text, "\n  ", line);
  return text;
}

std::vector<std::string> ToolVariablesElsewhere() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (BeginsWithOne(*variable, kElsewhere) && !BeginsWithOne(*variable, kAstray)) variables.emplace_back(*variable);
  }
  variables.insert(variables.end(), std::begin(kAdded), std::end(kAdded));
  return variables;
}

absl::StatusOr<InstallerOutcome> RunInstaller(const std::vector<std::string>& argv,
                                              const std::function<void(absl::string_view line)>& say,
                                              const std::string& input) {
  BASIN_ASSIGN_OR_RETURN(const UniqueFd file, InputFile(input));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "make a pipe");
  UniqueFd reading(ends[0]), writing(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  absl::Cleanup destroy = [&actions] { posix_spawn_file_actions_destroy(&actions); };
  posix_spawn_file_actions_adddup2(&actions, file.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, writing.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, writing.get(), STDERR_FILENO);
  const std::vector<std::string> environment = ToolEnvironment();
  pid_t pid = 0;
  if (const int error =
          posix_spawnp(&pid, argv[0].c_str(), &actions, nullptr, Pointers(argv).data(), Pointers(environment).data());
      error != 0) {
    return ErrnoStatus(error, absl::StrCat("start ", argv[0]));
  }
  writing.Close();
  LineCutter lines(say);
  char buffer[16 << 10];
  while (true) {
    const ssize_t got = read(reading.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    lines.Add({buffer, static_cast<size_t>(got)});
  }
  lines.Flush();
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return ErrnoStatus(errno, absl::StrCat("wait for ", argv[0]));
  }
  InstallerOutcome outcome;
  outcome.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  outcome.last = lines.last();
  return outcome;
}

}  // namespace basin
