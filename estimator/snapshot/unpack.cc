#include "estimator/snapshot/unpack.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "estimator/snapshot/snapshot_folder.h"
#include "estimator/snapshot/task_tree.h"

namespace basin {
namespace {

BeneathLimits LimitsOf(const UnpackOptions& options) {
  BeneathLimits limits;
  limits.max_entries = options.max_entries;
  limits.max_file_bytes = options.max_bytes;
  limits.max_total_bytes = options.max_bytes;
  return limits;
}

}  // namespace

SnapshotUnpacker::SnapshotUnpacker(std::string base, std::string digest, const UnpackOptions& options,
                                   std::string partial, UniqueFd lock, FolderBeneath folder)
    : base_(std::move(base)),
      digest_(std::move(digest)),
      options_(options),
      partial_(std::move(partial)),
      lock_(std::move(lock)),
      folder_(std::move(folder)) {}

SnapshotUnpacker::~SnapshotUnpacker() {
  // What cannot be removed now, a later pruning removes.
  if (!partial_.empty()) RemoveTree(partial_).IgnoreError();
}

absl::StatusOr<std::unique_ptr<SnapshotUnpacker>> SnapshotUnpacker::Begin(const std::string& base,
                                                                          const std::string& digest,
                                                                          const UnpackOptions& options) {
  BASIN_RETURN_IF_ERROR(CheckDigest(digest));
  BASIN_RETURN_IF_ERROR(MakeFolders(SnapshotsFolder(base), 0700));
  while (true) {
    std::string partial = absl::StrCat(SnapshotPath(base, digest), kPartialMark, SecretHex(6));
    if (mkdir(partial.c_str(), 0700) != 0) return ErrnoStatus(errno, absl::StrCat("make folder ", partial));
    UniqueFd lock(open(partial.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    // Between the two, somebody's pruning may have taken it for one that was left behind.
    if (lock.get() < 0 && errno == ENOENT) continue;
    if (lock.get() < 0) return ErrnoStatus(errno, absl::StrCat("open folder ", partial));
    if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) continue;
    if (!IsStillAt(lock, partial)) continue;
    absl::StatusOr<FolderBeneath> folder = FolderBeneath::Open(partial, LimitsOf(options));
    if (!folder.ok()) {
      RemoveTree(partial).IgnoreError();
      return folder.status();
    }
    return std::unique_ptr<SnapshotUnpacker>(
        new SnapshotUnpacker(base, digest, options, std::move(partial), std::move(lock), *std::move(folder)));
  }
}

absl::Status SnapshotUnpacker::Fail(absl::Status status) {
  failure_ = absl::Status(status.code(), absl::StrCat("snapshot ", digest_.substr(0, 12), ": ", status.message()));
  return failure_;
}

absl::Status SnapshotUnpacker::CloseFile() {
  if (!entry_.has_value()) return absl::OkStatus();
  if (file_bytes_ != entry_->bytes) {
    return absl::InvalidArgumentError(absl::StrCat("file \"", absl::Utf8SafeCHexEscape(entry_->path), "\" has ",
                                                   file_bytes_, " bytes; ", entry_->bytes, " were announced"));
  }
  // Nobody is meant to write to what other runs share.
  if (fchmod(file_.get(), entry_->executable ? 0555 : 0444) != 0) return ErrnoStatus(errno, "chmod");
  entry_->content = content_.Finish();
  tree_.Add(*entry_);
  entry_.reset();
  file_.Close();
  return absl::OkStatus();
}

absl::Status SnapshotUnpacker::AddEntry(const TreeEntry& entry) {
  BASIN_RETURN_IF_ERROR(failure_);
  if (absl::Status status = CloseFile(); !status.ok()) return Fail(std::move(status));
  if (absl::Status status = CheckPathBeneath(entry.path); !status.ok()) return Fail(std::move(status));
  const size_t slash = entry.path.rfind('/');
  const bool in_order = entry.path > last_path_;
  const bool has_folder = slash == std::string::npos || folders_.contains(entry.path.substr(0, slash));
  if (!in_order || !has_folder) {
    return Fail(
        absl::InvalidArgumentError(absl::StrCat("entry \"", absl::Utf8SafeCHexEscape(entry.path), "\" ",
                                                in_order ? "lies in no folder that came before" : "is out of order")));
  }
  last_path_ = entry.path;
  absl::Status status;
  switch (entry.kind) {
    case TreeEntry::Kind::kFolder:
      status = folder_.MakeFolder(entry.path);
      folders_.insert(entry.path);
      tree_.Add(entry);
      break;
    case TreeEntry::Kind::kLink:
      status = folder_.MakeLink(entry.path, entry.target);
      tree_.Add(entry);
      break;
    case TreeEntry::Kind::kFile: {
      absl::StatusOr<UniqueFd> file = folder_.Create(entry.path, entry.executable);
      status = file.status();
      if (!file.ok()) break;
      file_ = *std::move(file);
      entry_ = entry;
      file_bytes_ = 0;
      content_ = Digester();
      break;
    }
  }
  return status.ok() ? absl::OkStatus() : Fail(std::move(status));
}

absl::Status SnapshotUnpacker::AddData(absl::string_view bytes) {
  BASIN_RETURN_IF_ERROR(failure_);
  if (!entry_.has_value()) return Fail(absl::InvalidArgumentError("bytes that belong to no file"));
  if (bytes.size() > entry_->bytes - file_bytes_) {
    return Fail(
        absl::InvalidArgumentError(absl::StrCat("file \"", absl::Utf8SafeCHexEscape(entry_->path),
                                                "\" has more than the ", entry_->bytes, " bytes that were announced")));
  }
  if (absl::Status status = folder_.Append(file_, entry_->path, bytes); !status.ok()) return Fail(std::move(status));
  content_.Add(bytes);
  file_bytes_ += bytes.size();
  return absl::OkStatus();
}

absl::Status SnapshotUnpacker::CheckWhole() {
  BASIN_RETURN_IF_ERROR(failure_);
  if (absl::Status status = CloseFile(); !status.ok()) return Fail(std::move(status));
  if (const std::string found = tree_.Finish(); found != digest_) {
    return Fail(absl::DataLossError(absl::StrCat("what arrived has the digest ", found, "; submit again")));
  }
  return absl::OkStatus();
}

absl::StatusOr<SnapshotUse> SnapshotUnpacker::Publish() {
  BASIN_RETURN_IF_ERROR(failure_);
  // In use before it can be seen, so that no pruning comes between.
  absl::StatusOr<SnapshotUse> use = LockSnapshot(base_, digest_);
  if (!use.ok()) return Fail(use.status());
  if (rename(partial_.c_str(), use->path().c_str()) == 0) {
    partial_.clear();
  } else if (errno != ENOTEMPTY && errno != EEXIST) {
    return Fail(ErrnoStatus(errno, absl::StrCat("rename ", partial_)));
  }
  return use;
}

absl::StatusOr<SnapshotUse> SnapshotUnpacker::Finish() {
  BASIN_RETURN_IF_ERROR(CheckWhole());
  // The name must not outlive the contents when the power fails.
  if (syncfs(fd()) != 0) return Fail(ErrnoStatus(errno, absl::StrCat("sync ", partial_)));
  absl::StatusOr<SnapshotUse> use = Publish();
  if (use.ok()) PruneSnapshots(base_, options_.keep);
  return use;
}

absl::StatusOr<StagedSnapshot> StageSnapshot(const std::string& source_directory, const std::string& base,
                                             const TreeOptions& options,
                                             const std::function<void(uint64_t bytes)>& progress) {
  absl::Status last;
  for (int attempt = 0; attempt < 2; ++attempt) {
    BASIN_ASSIGN_OR_RETURN(SourceTree tree, ReadTree(source_directory, options));
    absl::StatusOr<SnapshotUse> use = UseSnapshot(base, tree.digest);
    if (absl::IsNotFound(use.status())) use = CopyIntoSnapshots(tree, base, progress);
    if (use.ok()) return StagedSnapshot{std::move(tree), *std::move(use)};
    last = use.status();
    if (!absl::IsAborted(last)) return last;
  }
  return absl::FailedPreconditionError(absl::StrCat("snapshot of ",
                                                    options.shown.empty() ? source_directory : options.shown, ": ",
                                                    last.message(), "; submit again when nothing writes to it"));
}

}  // namespace basin
