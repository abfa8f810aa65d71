#include "estimator/snapshot/tree.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "estimator/snapshot/beneath.h"
#include "estimator/snapshot/ignore_rules.h"
#include "estimator/snapshot/open_folder.h"
#include "estimator/snapshot/tree_limit.h"

namespace basin {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;
constexpr size_t kMaxIgnoreFileBytes = size_t{4} << 20;
constexpr absl::string_view kGitIgnore = ".gitignore";
// Collected from each task's folder as its run's own.
constexpr const char* kOfRuns[] = {"logs", "outputs"};

class Walker {
 public:
  Walker(const std::string& root, const TreeOptions& options)
      : options_(options), shown_(options.shown.empty() ? root : options.shown) {
    tree_.root = root;
    for (const std::string& path : options.never) {
      struct stat info;
      if (stat(path.c_str(), &info) == 0) never_.insert({info.st_dev, info.st_ino});
    }
  }

  absl::StatusOr<SourceTree> Walk(const FolderBeneath& root) {
    BASIN_RETURN_IF_ERROR(ReadTopIgnoreFile());
    BASIN_RETURN_IF_ERROR(WalkFolder(root.fd(), ""));
    if (tree_.bytes > Limit()) return TooLarge(tree_, shown_, options_.limit_mb);
    std::sort(tree_.entries.begin(), tree_.entries.end(),
              [](const TreeEntry& a, const TreeEntry& b) { return a.path < b.path; });
    return std::move(tree_);
  }

  std::vector<std::string> OfRuns(const FolderBeneath& root) {
    if (!ReadTopIgnoreFile().ok() || !EnterGitIgnore(root.fd(), "").ok()) return {};
    for (const char* name : kOfRuns) {
      // Whatever complaint there is, the walk makes it.
      (void)Visit(root.fd(), name, name);
    }
    return std::move(tree_.of_runs);
  }

 private:
  uint64_t Limit() const { return static_cast<uint64_t>(std::max<int64_t>(options_.limit_mb, 0)) * 1'000'000; }
  std::string Shown(const std::string& path) const { return absl::StrCat(shown_, "/", path); }
  std::string IgnoreFileName() const { return tree_.ignore_file.empty() ? ".basinignore" : tree_.ignore_file; }

  absl::Status ReadTopIgnoreFile() {
    for (const char* name : {".basinignore", ".amlignore"}) {
      absl::StatusOr<std::string> content = ReadFile(absl::StrCat(tree_.root, "/", name), kMaxIgnoreFileBytes);
      if (absl::IsNotFound(content.status())) continue;
      if (!content.ok()) return content.status();
      tree_.ignore_file = name;
      rules_.Enter("", *content);
      return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  // Git reads none through a link.
  absl::StatusOr<bool> EnterGitIgnore(int folder, const std::string& path) {
    if (!tree_.ignore_file.empty() && tree_.ignore_file != kGitIgnore) return false;
    struct stat info;
    if (fstatat(folder, ".gitignore", &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode)) return false;
    const std::string file = absl::StrCat(tree_.root, path.empty() ? "" : "/", path, "/", kGitIgnore);
    BASIN_ASSIGN_OR_RETURN(const std::string content, ReadFile(file, kMaxIgnoreFileBytes));
    tree_.ignore_file = std::string(kGitIgnore);
    rules_.Enter(path, content);
    return true;
  }

  absl::Status WalkFolder(int folder, const std::string& path) {
    std::vector<std::string> names;
    {
      const OpenFolder stream(
          fdopendir(openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
      if (stream == nullptr) return ErrnoStatus(errno, absl::StrCat("list folder ", Shown(path)));
      while (const dirent* entry = readdir(stream.get())) {
        const absl::string_view name = entry->d_name;
        if (name != "." && name != ".." && name != ".git") names.emplace_back(name);
      }
    }
    // The order decides nothing but which of several complaints is made.
    std::sort(names.begin(), names.end());
    BASIN_ASSIGN_OR_RETURN(const bool entered, EnterGitIgnore(folder, path));
    for (const std::string& name : names) {
      BASIN_RETURN_IF_ERROR(Visit(folder, name, path.empty() ? name : absl::StrCat(path, "/", name)));
    }
    if (entered) rules_.Leave();
    return absl::OkStatus();
  }

  absl::Status Visit(int folder, const std::string& name, const std::string& path) {
    struct stat info;
    if (fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      // Removed since it was listed: then it is as if it had been removed before.
      return errno == ENOENT ? absl::OkStatus() : ErrnoStatus(errno, absl::StrCat("stat ", Shown(path)));
    }
    const bool is_folder = S_ISDIR(info.st_mode);
    if (rules_.Ignores(path, is_folder) || never_.count({info.st_dev, info.st_ino}) != 0) return absl::OkStatus();
    if (std::find(std::begin(kOfRuns), std::end(kOfRuns), path) != std::end(kOfRuns)) {
      tree_.of_runs.push_back(path);
      return absl::OkStatus();
    }
    if (tree_.entries.size() >= options_.max_entries) {
      return tree_.bytes > Limit() ? TooLarge(tree_, shown_, options_.limit_mb)
                                   : TooMany(tree_, shown_, options_.max_entries);
    }
    if (!IsUtf8(path)) {
      return absl::InvalidArgumentError(
          absl::StrCat(Shown(path), ": the name is not UTF-8; rename it, or add it to ", IgnoreFileName()));
    }
    if (const absl::Status status = CheckPathBeneath(path); !status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Shown(path), ": ", status.message(), "; add it to ", IgnoreFileName(), " or shorten it"));
    }
    TreeEntry entry;
    entry.path = path;
    if (is_folder) {
      entry.kind = TreeEntry::Kind::kFolder;
      tree_.entries.push_back(std::move(entry));
      const UniqueFd inside(openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (inside.get() < 0) {
        const absl::Status status = ErrnoStatus(errno, absl::StrCat("open folder ", Shown(path)));
        return absl::Status(status.code(), absl::StrCat(status.message(), "; add it to ", IgnoreFileName(),
                                                        " if the run does not need it"));
      }
      return WalkFolder(inside.get(), path);
    }
    if (S_ISLNK(info.st_mode)) {
      entry.kind = TreeEntry::Kind::kLink;
      BASIN_ASSIGN_OR_RETURN(entry.target, ReadLink(folder, name, path));
    } else if (S_ISREG(info.st_mode)) {
      entry.bytes = static_cast<uint64_t>(info.st_size);
      entry.executable = (info.st_mode & S_IXUSR) != 0;
      tree_.bytes += entry.bytes;
      ++tree_.files;
    } else {
      const char* kind = S_ISSOCK(info.st_mode) ? "a socket" : S_ISFIFO(info.st_mode) ? "a pipe" : "a device";
      return absl::InvalidArgumentError(
          absl::StrCat(Shown(path), " is ", kind, ", which a snapshot cannot hold; add it to ", IgnoreFileName()));
    }
    tree_.entries.push_back(std::move(entry));
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> ReadLink(int folder, const std::string& name, const std::string& path) {
    char target[4096];
    const ssize_t size = readlinkat(folder, name.c_str(), target, sizeof(target));
    if (size < 0) return ErrnoStatus(errno, absl::StrCat("read link ", Shown(path)));
    const std::string text(target, size);
    absl::Status status = CheckLinkTarget(path, text);
    if (status.ok() && !IsUtf8(text)) status = absl::InvalidArgumentError("the target is not UTF-8");
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("snapshot of ", shown_, ": ", status.message(), "; put what it points to ",
                       "into the folder, name it under inputs, or add the link to ", IgnoreFileName()));
    }
    return text;
  }

  const TreeOptions& options_;
  const std::string shown_;
  SourceTree tree_;
  IgnoreRules rules_;
  std::set<std::pair<dev_t, ino_t>> never_;
};

bool SameState(const struct stat& a, const struct stat& b) {
  return a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec &&
         a.st_ctim.tv_sec == b.st_ctim.tv_sec && a.st_ctim.tv_nsec == b.st_ctim.tv_nsec;
}

// Fills in size, mode and digest as one moment had them. ABORTED where the file changed meanwhile.
absl::Status ReadContent(const FolderBeneath& root, const TreeOptions& options, std::string& buffer, TreeEntry& entry) {
  absl::StatusOr<UniqueFd> file = root.OpenToRead(entry.path);
  if (!file.ok()) return file.status();
  struct stat before, after;
  if (fstat(file->get(), &before) != 0) return ErrnoStatus(errno, absl::StrCat("stat ", entry.path));
  Digester digester;
  uint64_t bytes = 0;
  while (true) {
    const ssize_t got = read(file->get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("read ", root.path(), "/", entry.path));
    if (got == 0) break;
    digester.Add({buffer.data(), static_cast<size_t>(got)});
    bytes += got;
    if (options.on_read) options.on_read(entry.path, bytes);
    // A file that grows faster than it is read would never end.
    if (bytes > static_cast<uint64_t>(before.st_size)) break;
  }
  if (fstat(file->get(), &after) != 0) return ErrnoStatus(errno, absl::StrCat("stat ", entry.path));
  if (!SameState(before, after) || bytes != static_cast<uint64_t>(before.st_size)) {
    return absl::AbortedError("it changed while it was read");
  }
  entry.bytes = bytes;
  entry.executable = (before.st_mode & S_IXUSR) != 0;
  entry.content = digester.Finish();
  return absl::OkStatus();
}

}  // namespace

void TreeDigester::Add(const TreeEntry& entry) {
  // Lengths go before texts, so that no two trees make the same bytes.
  const auto add_text = [this](absl::string_view text) {
    char size[8];
    for (int i = 0; i < 8; ++i) size[i] = static_cast<char>(static_cast<uint64_t>(text.size()) >> (8 * i));
    digester_.Add({size, sizeof(size)});
    digester_.Add(text);
  };
  switch (entry.kind) {
    case TreeEntry::Kind::kFolder:
      digester_.Add("d");
      add_text(entry.path);
      break;
    case TreeEntry::Kind::kFile:
      digester_.Add(entry.executable ? "x" : "f");
      add_text(entry.path);
      add_text(entry.content);
      break;
    case TreeEntry::Kind::kLink:
      digester_.Add("l");
      add_text(entry.path);
      add_text(entry.target);
      break;
  }
}

std::string TreeDigester::Finish() { return digester_.Finish(); }

std::vector<std::string> LeftOutAsOfRuns(const std::string& source_directory) {
  const absl::StatusOr<FolderBeneath> root = FolderBeneath::Open(source_directory);
  if (!root.ok()) return {};
  const TreeOptions options;
  return Walker(source_directory, options).OfRuns(*root);
}

absl::StatusOr<SourceTree> ReadTree(const std::string& source_directory, const TreeOptions& options) {
  BASIN_ASSIGN_OR_RETURN(const FolderBeneath root, FolderBeneath::Open(source_directory));
  BASIN_ASSIGN_OR_RETURN(SourceTree tree, Walker(source_directory, options).Walk(root));
  const std::string shown = options.shown.empty() ? source_directory : options.shown;
  std::string buffer(kReadBytes, '\0');
  TreeDigester digester;
  tree.bytes = 0;
  for (TreeEntry& entry : tree.entries) {
    if (entry.kind == TreeEntry::Kind::kFile) {
      absl::Status status = ReadContent(root, options, buffer, entry);
      if (absl::IsAborted(status)) status = ReadContent(root, options, buffer, entry);
      if (absl::IsNotFound(status)) status = absl::AbortedError("it was removed meanwhile");
      if (absl::IsAborted(status)) {
        return absl::FailedPreconditionError(
            absl::StrCat("snapshot of ", shown, ": ", entry.path, ": ", status.message(),
                         "; submit again when nothing writes to it, or add it to ",
                         tree.ignore_file.empty() ? ".basinignore" : tree.ignore_file));
      }
      BASIN_RETURN_IF_ERROR(status);
      tree.bytes += entry.bytes;
    }
    digester.Add(entry);
  }
  if (tree.bytes > static_cast<uint64_t>(std::max<int64_t>(options.limit_mb, 0)) * 1'000'000) {
    return TooLarge(tree, shown, options.limit_mb);
  }
  tree.digest = digester.Finish();
  return tree;
}

}  // namespace basin
