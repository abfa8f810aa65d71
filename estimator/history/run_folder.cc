#include "estimator/history/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "estimator/history/url_path.h"

namespace basin {
namespace {
constexpr int kPrivateFolder = 0700;
constexpr int kPrivateFile = 0600;
constexpr int kTokenBytes = 32;

// A reader that only looks whether the lock is held has it for a moment.
constexpr absl::Duration kLockPatience = absl::Seconds(1);
}  // namespace

std::string FileNameOf(const TaskId& task) { return absl::StrCat(Name(task.role), "-", task.index); }

std::optional<TaskId> TaskOfFileName(absl::string_view name) {
  const size_t dash = name.rfind('-');
  uint32_t index = 0;
  if (dash == absl::string_view::npos || !absl::SimpleAtoi(name.substr(dash + 1), &index)) return std::nullopt;
  const std::optional<Role> role = RoleNamed(name.substr(0, dash));
  // The round trip refuses other spellings, such as "worker-01".
  if (role && FileNameOf({*role, index}) == name) return TaskId{*role, index};
  return std::nullopt;
}

std::string RunFolder::PathFor(const std::string& runs, const std::string& experiment, const std::string& run_id) {
  return absl::StrCat(runs, "/", experiment, "/", run_id);
}

absl::Status RunFolder::Create() const {
  const size_t last_slash = path_.rfind('/');
  BASIN_RETURN_IF_ERROR(MakeFolders(path_.substr(0, last_slash), kPrivateFolder));
  if (mkdir(path_.c_str(), kPrivateFolder) != 0)
    return ErrnoStatus(errno, absl::StrCat("make the run's folder ", path_));
  BASIN_RETURN_IF_ERROR(MakeFolders(absl::StrCat(path_, "/logs"), kPrivateFolder));
  BASIN_RETURN_IF_ERROR(MakeFolders(absl::StrCat(path_, "/outputs"), kPrivateFolder));
  return WriteFileAtomically(TokenPath(), SecretHex(kTokenBytes), kPrivateFile);
}

absl::Status RunFolder::WriteJob(absl::string_view json) const {
  return WriteFileAtomically(absl::StrCat(path_, "/job.json"), json, kPrivateFile);
}
absl::Status RunFolder::WritePlan(absl::string_view json) const {
  return WriteFileAtomically(absl::StrCat(path_, "/plan.json"), json, kPrivateFile);
}
absl::Status RunFolder::WriteRecord(const RunRecord& record) const {
  return WriteFileAtomically(absl::StrCat(path_, "/run.json"), RunRecordToJson(record), kPrivateFile);
}

std::string RunFolder::LogPath(const TaskId& name) const {
  return absl::StrCat(path_, "/logs/", FileNameOf(name), ".txt");
}
std::string RunFolder::OutputPath(absl::string_view name) const { return absl::StrCat(path_, "/outputs/", name); }
std::string RunFolder::TokenPath() const { return absl::StrCat(path_, "/token"); }

std::string RunFolder::PageUrl() const {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(PagePath(), error);
  return absl::StrCat("file://", UrlPath(error ? PagePath() : absolute.lexically_normal().string()));
}

absl::StatusOr<SupervisorLock> SupervisorLock::Take(const RunFolder& folder) {
  const std::string path = folder.LockPath();
  SupervisorLock lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kPrivateFile));
  if (lock.fd_ < 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
  const absl::Time until = absl::Now() + kLockPatience;
  while (flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, absl::StrCat("lock ", path));
    if (absl::Now() >= until) {
      return absl::FailedPreconditionError(
          absl::StrCat(folder.path(), ": another process supervises this run; look at it with `basin show`"));
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  return lock;
}

bool SupervisorLock::IsHeld(const RunFolder& folder) {
  SupervisorLock lock(open(folder.LockPath().c_str(), O_RDONLY | O_CLOEXEC));
  return lock.fd_ >= 0 && flock(lock.fd_, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

SupervisorLock::~SupervisorLock() {
  if (fd_ >= 0) close(fd_);
}

std::vector<std::string> LastLines(const std::string& path, int count) {
  constexpr std::streamoff kMost = 64 << 10;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return {};
  const std::streamoff size = file.tellg();
  const std::streamoff from = size > kMost ? size - kMost : 0;
  file.seekg(from);
  std::string text(static_cast<size_t>(size - from), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  if (!lines.empty() && lines.back().empty()) lines.pop_back();
  if (lines.size() > static_cast<size_t>(count)) lines.erase(lines.begin(), lines.end() - count);
  return lines;
}

}  // namespace basin
