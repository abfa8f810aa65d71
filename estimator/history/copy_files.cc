#include "estimator/history/copy_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"
#include "estimator/history/files_below.h"
#include "estimator/snapshot/beneath.h"
#include "estimator/snapshot/digest.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPieceBytes = 1 << 20;
constexpr size_t kNamedMax = 20;
constexpr char kChecksum[] = "blake2b-256:";

// Its digest; the bytes are added to *bytes.
absl::StatusOr<std::string> CopyFile(const std::string& from, const std::string& to, const CopyOptions& options,
                                     uint64_t* bytes) {
  const int in = open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (in < 0) return ErrnoStatus(errno, absl::StrCat("open ", from));
  absl::Cleanup close_in = [in] { close(in); };
  struct stat info;
  if (fstat(in, &info) != 0) return ErrnoStatus(errno, absl::StrCat("look at ", from));
  if (!S_ISREG(info.st_mode)) return absl::FailedPreconditionError(absl::StrCat(from, ": no file"));
  mode_t mode = (info.st_mode & 0100) != 0 ? 0777 : 0666;
  if (options.owner_only) mode &= 0700;
  const std::string temporary = TemporaryPathFor(to);
  const int out = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
  if (out < 0) {
    const absl::Status status = ErrnoStatus(errno, absl::StrCat("create ", to));
    return absl::Status(status.code(), absl::StrCat(status.message(), "; copy to a folder in which you may write"));
  }
  absl::Cleanup close_out = [out] { close(out); };
  absl::Cleanup remove = [&] { unlink(temporary.c_str()); };
  Digester digester;
  std::string piece(kPieceBytes, '\0');
  while (true) {
    const ssize_t got = read(in, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("read ", from));
    if (got == 0) break;
    const absl::string_view read_bytes(piece.data(), static_cast<size_t>(got));
    digester.Add(read_bytes);
    *bytes += read_bytes.size();
    BASIN_RETURN_IF_ERROR(WriteAll(out, read_bytes, to));
  }
  if (options.sync && fsync(out) != 0) return ErrnoStatus(errno, absl::StrCat("sync ", to));
  if (rename(temporary.c_str(), to.c_str()) != 0) return ErrnoStatus(errno, absl::StrCat("rename to ", to));
  std::move(remove).Cancel();
  return digester.Finish();
}

absl::Status MakeDestination(const std::string& folder, int mode) {
  const absl::Status made = MakeFolders(folder, mode);
  if (made.ok()) return made;
  return absl::Status(made.code(), absl::StrCat(made.message(), "; copy to a folder in which you may write"));
}

absl::Status OnlyAPart(absl::string_view path) {
  return absl::FailedPreconditionError(absl::StrCat(path,
                                                    ": only a part of this file has come; wait for the end of the run; "
                                                    "of one that has ended, `basin show` gives the reason"));
}

bool IsBelow(const fs::path& path, const fs::path& root) {
  return path == root || absl::StartsWith(path.string(), absl::StrCat(root.string(), "/"));
}

}  // namespace

absl::StatusOr<CopiedFiles> CopyFrom(const std::string& root, const std::string& path, const std::string& to,
                                     const CopyOptions& options) {
  std::error_code error;
  const fs::path real_root = fs::canonical(root, error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("look at ", root));
  const auto resolve = [&](const fs::path& given) -> absl::StatusOr<fs::path> {
    std::error_code failed;
    const fs::path real = fs::canonical(given, failed);
    if (failed) return ErrnoStatus(failed.value(), absl::StrCat("look at ", given.string()));
    if (IsBelow(real, real_root)) return real;
    return absl::PermissionDeniedError(absl::StrCat(given.string(), ": a link that leads out of ", root));
  };
  BASIN_ASSIGN_OR_RETURN(const fs::path from, resolve(real_root / path));
  if (absl::EndsWith(from.string(), kPartialSuffix)) {
    return OnlyAPart(path);
  }
  CopiedFiles copied;
  const int folder_mode = options.owner_only ? 0700 : 0777;
  if (!fs::is_directory(from, error)) {
    if (const fs::path above = fs::path(to).parent_path(); !above.empty()) {
      BASIN_RETURN_IF_ERROR(MakeDestination(above.string(), folder_mode));
    }
    BASIN_ASSIGN_OR_RETURN(const std::string digest, CopyFile(from.string(), to, options, &copied.bytes));
    copied.files = 1;
    copied.checksum = absl::StrCat(kChecksum, digest);
    return copied;
  }
  BASIN_ASSIGN_OR_RETURN(const std::vector<FileBelow> files, FilesBelow(from.string()));
  BASIN_RETURN_IF_ERROR(MakeDestination(to, folder_mode));
  Digester whole;
  for (const auto& [file, size] : files) {
    if (absl::EndsWith(file, kPartialSuffix)) {
      copied.not_whole.push_back(file);
      continue;
    }
    BASIN_ASSIGN_OR_RETURN(const fs::path real, resolve(from / file));
    if (fs::is_directory(real, error)) continue;  // a link to a folder: its files stand where they are
    const std::string place = absl::StrCat(to, "/", file);
    BASIN_RETURN_IF_ERROR(MakeFolders(place.substr(0, place.rfind('/')), folder_mode));
    BASIN_ASSIGN_OR_RETURN(const std::string digest, CopyFile(real.string(), place, options, &copied.bytes));
    whole.Add(absl::StrCat(file, absl::string_view("\0", 1), digest, "\n"));
    ++copied.files;
  }
  copied.checksum = absl::StrCat(kChecksum, whole.Finish());
  return copied;
}

absl::StatusOr<std::vector<std::string>> FilesOfRun(const std::string& run_folder) {
  std::vector<std::string> files;
  for (const char* folder : {"logs", "outputs"}) {
    BASIN_ASSIGN_OR_RETURN(const std::vector<FileBelow> found, FilesBelow(absl::StrCat(run_folder, "/", folder)));
    for (const FileBelow& file : found) {
      if (!absl::EndsWith(file.path, kPartialSuffix)) files.push_back(absl::StrCat(folder, "/", file.path));
    }
  }
  return files;
}

absl::StatusOr<std::string> PathInRun(const std::string& run_folder, const std::string& given) {
  absl::string_view path = given;
  while (absl::ConsumePrefix(&path, "./")) {
  }
  while (absl::ConsumeSuffix(&path, "/")) {
  }
  if (!CheckPathBeneath(path).ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", given, "\": expected a path below the run's folder, such as outputs/model.bin"));
  }
  if (path == "token" || absl::StartsWith(path, "supervisor.")) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is the run's own and is not handed out"));
  }
  std::error_code error;
  for (const std::string& place : {std::string(path), absl::StrCat("outputs/", path)}) {
    if (fs::exists(fs::path(run_folder) / place, error)) return place;
    if (fs::exists(fs::path(run_folder) / absl::StrCat(place, kPartialSuffix), error)) return OnlyAPart(place);
  }
  BASIN_ASSIGN_OR_RETURN(const std::vector<std::string> files, FilesOfRun(run_folder));
  const std::optional<std::string> near = Nearest(path, files);
  std::string there = "it has left no files";
  if (!files.empty()) {
    const size_t shown = std::min(files.size(), kNamedMax);
    there =
        absl::StrCat("there are ", absl::StrJoin(files.begin(), files.begin() + static_cast<ptrdiff_t>(shown), ", "),
                     files.size() > shown ? absl::StrCat(" and ", files.size() - shown, " more") : "");
  }
  return absl::NotFoundError(absl::StrCat(path, ": the run in ", run_folder, " has no such file; ",
                                          near ? absl::StrCat("did you mean ", *near, "? ") : "", there));
}

}  // namespace basin
