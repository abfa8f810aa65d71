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
#include "common/base/text.h"

namespace basin {
namespace {

constexpr size_t kMostLeftOut = 100;
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
  Lister(size_t max_entries, FolderListing* listing) : entries_left_(max_entries), listing_(*listing) {}

  void List(UniqueFd folder, const std::string& prefix, int depth) {
    // The stream closes a descriptor of its own.
    DIR* stream = fdopendir(fcntl(folder.get(), F_DUPFD_CLOEXEC, 0));
    if (stream == nullptr) return LeaveOut(prefix, std::strerror(errno));
    folder.Close();
    while (!listing_.is_cut) {
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

 private:
  void Take(int folder, const std::string& name, const std::string& path, int depth) {
    if (entries_left_ == 0) {
      listing_.is_cut = true;
      return;
    }
    --entries_left_;
    struct stat info;
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
    if (listing_.left_out.size() < kMostLeftOut) {
      listing_.left_out.push_back(absl::StrCat(Printable(path.substr(0, 300)), " (", why, ")"));
    }
  }

  size_t entries_left_;
  FolderListing& listing_;
};

}  // namespace

FolderListing ListFolder(const FolderBeneath& tree, const std::string& folder, size_t max_entries) {
  FolderListing listing;
  UniqueFd fd(openat(tree.fd(), folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd.get() < 0) {
    if (errno != ENOENT) listing.left_out.push_back(absl::StrCat(". (", std::strerror(errno), ")"));
    return listing;
  }
  Lister(max_entries, &listing).List(std::move(fd), "", 0);
  std::sort(listing.files.begin(), listing.files.end(),
            [](const ListedFile& a, const ListedFile& b) { return a.path < b.path; });
  return listing;
}

}  // namespace basin
