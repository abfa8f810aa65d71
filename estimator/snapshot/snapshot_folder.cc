#include "estimator/snapshot/snapshot_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "estimator/snapshot/open_folder.h"
#include "estimator/snapshot/task_tree.h"

namespace basin {
namespace {

std::vector<std::string> NamesIn(const std::string& path) {
  std::vector<std::string> names;
  const OpenFolder stream(opendir(path.c_str()));
  if (stream == nullptr) return names;
  while (const dirent* entry = readdir(stream.get())) names.emplace_back(entry->d_name);
  std::sort(names.begin(), names.end());
  return names;
}

// A file of locks that nobody can have removed between the opening and the locking. EWOULDBLOCK's code (UNAVAILABLE)
// where `operation` has LOCK_NB and somebody holds it.
absl::StatusOr<UniqueFd> LockFile(const std::string& path, int operation) {
  while (true) {
    UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (fd.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
    int result;
    do {
      result = flock(fd.get(), operation);
    } while (result != 0 && errno == EINTR);
    if (result != 0) return ErrnoStatus(errno, absl::StrCat("lock ", path));
    if (IsStillAt(fd, path)) return fd;
  }
}

bool IsThere(const std::string& path) {
  struct stat info;
  return lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// Removes what a writer that is gone has left; one that lives holds the lock.
void RemoveIfAbandoned(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd.get() >= 0 && flock(fd.get(), LOCK_EX | LOCK_NB) == 0) RemoveTree(path).IgnoreError();
}

// With its lock; whether it was removed. Where somebody uses it, it stays.
bool RemoveUnlessUsed(const std::string& path) {
  const std::string lock_path = absl::StrCat(path, kLockMark);
  const absl::StatusOr<UniqueFd> lock = LockFile(lock_path, LOCK_EX | LOCK_NB);
  if (!lock.ok()) return false;
  bool removed = !IsThere(path);
  if (!removed) {
    // The name goes first: a removal that is cut must not leave a snapshot with holes.
    const std::string doomed = absl::StrCat(path, kPartialMark, SecretHex(6));
    removed = rename(path.c_str(), doomed.c_str()) == 0;
    if (removed) RemoveTree(doomed).IgnoreError();
  }
  if (removed) unlink(lock_path.c_str());
  return removed;
}

}  // namespace

std::string SnapshotsFolder(const std::string& base) { return absl::StrCat(base, "/snapshots"); }

std::string SnapshotPath(const std::string& base, const std::string& digest) {
  return absl::StrCat(SnapshotsFolder(base), "/", digest);
}

bool IsStillAt(const UniqueFd& fd, const std::string& path) {
  struct stat opened, named;
  return fstat(fd.get(), &opened) == 0 && stat(path.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

absl::StatusOr<SnapshotUse> LockSnapshot(const std::string& base, const std::string& digest) {
  const std::string path = SnapshotPath(base, digest);
  absl::StatusOr<UniqueFd> lock = LockFile(absl::StrCat(path, kLockMark), LOCK_SH);
  if (!lock.ok()) return lock.status();
  futimens(lock->get(), nullptr);
  return SnapshotUse(path, *std::move(lock));
}

bool HaveSnapshot(const std::string& base, const std::string& digest) {
  return CheckDigest(digest).ok() && IsThere(SnapshotPath(base, digest));
}

absl::StatusOr<SnapshotUse> UseSnapshot(const std::string& base, const std::string& digest) {
  BASIN_RETURN_IF_ERROR(CheckDigest(digest));
  const absl::Status missing =
      absl::NotFoundError(absl::StrCat("snapshot ", SnapshotPath(base, digest), " is not there"));
  if (!HaveSnapshot(base, digest)) return missing;
  BASIN_ASSIGN_OR_RETURN(SnapshotUse use, LockSnapshot(base, digest));
  if (!HaveSnapshot(base, digest)) return missing;
  return use;
}

int PruneSnapshots(const std::string& base, int keep) {
  const std::string folder = SnapshotsFolder(base);
  struct Found {
    struct timespec used;
    std::string path;
  };
  std::vector<Found> snapshots;
  for (const std::string& name : NamesIn(folder)) {
    const std::string path = absl::StrCat(folder, "/", name);
    if (absl::StrContains(name, kPartialMark)) {
      RemoveIfAbandoned(path);
    } else if (absl::EndsWith(name, kLockMark)) {
      const std::string snapshot(absl::StripSuffix(path, kLockMark));
      if (!IsThere(snapshot)) RemoveUnlessUsed(snapshot);
    } else if (CheckDigest(name).ok()) {
      struct stat info;
      if (stat(absl::StrCat(path, kLockMark).c_str(), &info) == 0 || stat(path.c_str(), &info) == 0) {
        snapshots.push_back({info.st_mtim, path});
      }
    }
  }
  std::sort(snapshots.begin(), snapshots.end(), [](const Found& a, const Found& b) {
    return std::make_tuple(a.used.tv_sec, a.used.tv_nsec, a.path) <
           std::make_tuple(b.used.tv_sec, b.used.tv_nsec, b.path);
  });
  int removed = 0;
  for (const Found& snapshot : snapshots) {
    if (snapshots.size() - removed <= static_cast<size_t>(std::max(keep, 0))) break;
    if (RemoveUnlessUsed(snapshot.path)) ++removed;
  }
  return removed;
}

absl::StatusOr<SnapshotUse> CopyIntoSnapshots(const SourceTree& tree, const std::string& base,
                                              const std::function<void(uint64_t bytes)>& progress) {
  BASIN_ASSIGN_OR_RETURN(const FolderBeneath root, FolderBeneath::Open(tree.root));
  UnpackOptions options;
  options.max_entries = tree.entries.size();
  options.max_bytes = tree.bytes;
  absl::StatusOr<std::unique_ptr<SnapshotUnpacker>> unpacker = SnapshotUnpacker::Begin(base, tree.digest, options);
  if (!unpacker.ok()) return unpacker.status();
  std::string buffer(size_t{256} << 10, '\0');
  uint64_t total = 0;
  for (const TreeEntry& entry : tree.entries) {
    BASIN_RETURN_IF_ERROR((*unpacker)->AddEntry(entry));
    if (entry.kind != TreeEntry::Kind::kFile) continue;
    const absl::Status changed = absl::AbortedError(absl::StrCat(entry.path, " changed while it was copied"));
    absl::StatusOr<UniqueFd> file = root.OpenToRead(entry.path);
    if (absl::IsNotFound(file.status())) return changed;
    if (!file.ok()) return file.status();
    Digester content;
    uint64_t bytes = 0;
    while (true) {
      const ssize_t got = read(file->get(), buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return ErrnoStatus(errno, absl::StrCat("read ", tree.root, "/", entry.path));
      if (got == 0) break;
      bytes += got;
      if (bytes > entry.bytes) return changed;
      const absl::string_view piece(buffer.data(), got);
      content.Add(piece);
      BASIN_RETURN_IF_ERROR((*unpacker)->AddData(piece));
      total += got;
      if (progress) progress(total);
    }
    if (bytes != entry.bytes || content.Finish() != entry.content) return changed;
  }
  return (*unpacker)->Finish();
}

}  // namespace basin
