#include "estimator/agent/folder_listing.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/text.h"

namespace basin {
namespace {

// A message of the agent has at most 1 MiB.
constexpr size_t kMostNamed = 500;
constexpr size_t kMostNamedBytes = size_t{256} << 10;
constexpr size_t kMostCounted = 1'000'000;  // beyond the limit
constexpr int kDeepest = 60;

bool IsPlain(const std::string& text) {
  return IsUtf8(text) && std::none_of(text.begin(), text.end(), absl::ascii_iscntrl);
}

std::string Printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
  }
  return text;
}

class Lister {
 public:
  Lister(const ListFolderOptions& options, FolderListing* listing)
      : options_(options), entries_left_(options.max_entries), listing_(*listing) {}

  void List(UniqueFd folder, const std::string& prefix, int depth) {
    // The stream closes a descriptor of its own.
    DIR* stream = fdopendir(fcntl(folder.get(), F_DUPFD_CLOEXEC, 0));
    if (stream == nullptr) return LeaveOut(prefix, std::strerror(errno));
    folder.Close();
    while (!is_over_) {
      errno = 0;
      const dirent* entry = readdir(stream);
      if (entry == nullptr) {
        if (errno != 0) LeaveOut(prefix, std::strerror(errno));
        break;
      }
      const std::string name = entry->d_name;
      if (name != "." && name != "..") Take(dirfd(stream), name, prefix.empty() ? name : prefix + "/" + name, depth);
    }
    closedir(stream);
  }

  void TellTheRest() {
    if (rest_ == 0) return;
    listing_.left_out.Add(absl::StrCat("... (", is_over_ ? "at least " : "", rest_, rest_ == 1 ? " file" : " files",
                                       " beyond the first ", options_.max_entries, " files and folders)"),
                          rest_);
  }

 private:
  void Take(int folder, const std::string& name, const std::string& path, int depth) {
    struct stat info;
    if (entries_left_ == 0) {
      listing_.is_cut = true;
      is_over_ = !options_.counts_the_rest || ++counted_ > kMostCounted;
      if (is_over_ || fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return;
      UniqueFd below;
      if (S_ISDIR(info.st_mode) && depth < kDeepest) {
        below = UniqueFd(openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      }
      if (!S_ISDIR(info.st_mode)) ++rest_;
      if (below.get() >= 0) List(std::move(below), path, depth + 1);
      return;
    }
    --entries_left_;
    if (fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return;  // gone again
    if (!IsPlain(name)) return LeaveOut(path, "its name is not UTF-8, or has control characters");
    if (!CheckPathBeneath(path).ok()) return LeaveOut(path, "its path is too long");
    if (S_ISDIR(info.st_mode)) {
      UniqueFd below(openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (below.get() < 0) return LeaveOut(path, std::strerror(errno));
      if (depth >= kDeepest) return LeaveOut(path, "it lies too deep");
      return List(std::move(below), path, depth + 1);
    }
    ListedFile file{.path = path};
    if (S_ISREG(info.st_mode)) {
      if (IsTemporaryName(name)) return;  // of a program of Basin's that was killed, or is at work
      file.bytes = static_cast<uint64_t>(info.st_size);
      file.executable = (info.st_mode & S_IXUSR) != 0;
    } else if (S_ISLNK(info.st_mode)) {
      file.kind = ListedFile::Kind::kLink;
      char target[4096];
      const ssize_t size = readlinkat(folder, name.c_str(), target, sizeof target);
      if (size < 0) return LeaveOut(path, std::strerror(errno));
      file.target.assign(target, static_cast<size_t>(size));
      if (!IsPlain(file.target)) return LeaveOut(path, "its target is not UTF-8, or has control characters");
    } else {
      file.kind = ListedFile::Kind::kOther;
    }
    listing_.files.push_back(std::move(file));
  }

  void LeaveOut(const std::string& path, const char* why) {
    listing_.left_out.Add(absl::StrCat(Printable(path.substr(0, 300)), " (", why, ")"));
  }

  const ListFolderOptions options_;
  size_t entries_left_;
  size_t counted_ = 0;  // beyond the limit
  uint64_t rest_ = 0;   // files among them
  bool is_over_ = false;
  FolderListing& listing_;
};

}  // namespace

void LeftOut::Add(std::string what, uint64_t stands_for) {
  count_ += stands_for;
  if (names_.size() >= kMostNamed || bytes_ + what.size() > kMostNamedBytes) return;
  bytes_ += what.size();
  names_.push_back(std::move(what));
}

void LeftOut::AddAll(const LeftOut& other, const std::string& prefix) {
  const uint64_t count = count_ + other.count_;
  for (const std::string& name : other.names_) Add(absl::StrCat(prefix, name), 0);
  count_ = count;
}

FolderListing ListFolder(const FolderBeneath& tree, const std::string& folder, const ListFolderOptions& options) {
  FolderListing listing;
  UniqueFd fd(openat(tree.fd(), folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd.get() < 0) {
    if (errno != ENOENT) listing.left_out.Add(absl::StrCat(". (", std::strerror(errno), ")"));
    return listing;
  }
  Lister lister(options, &listing);
  lister.List(std::move(fd), "", 0);
  lister.TellTheRest();
  std::sort(listing.files.begin(), listing.files.end(),
            [](const ListedFile& a, const ListedFile& b) { return a.path < b.path; });
  return listing;
}

}  // namespace basin
