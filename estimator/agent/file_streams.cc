#include "estimator/agent/file_streams.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "estimator/agent/agent_log.h"
#include "estimator/agent/channel.h"
#include "estimator/agent/folder_listing.h"

namespace basin {
namespace {

constexpr absl::Duration kSearchEvery = absl::Seconds(1);
constexpr char kLogsFolder[] = "logs";
constexpr size_t kMostLookedAt = 200'000;  // of one task, at the end

}  // namespace

FileStreams::File& FileStreams::FileOf(const Key& key, const std::string& path) {
  const auto [at, is_new] = files_.try_emplace(key);
  if (is_new) {
    if (const auto has = has_.find(key); has != has_.end()) at->second.sent = has->second;
  }
  at->second.path = path;
  return at->second;
}

void FileStreams::FollowFile(agent::StreamKind stream, uint32_t task, const std::string& shown,
                             const std::string& path) {
  FileOf({stream, task, shown}, path).is_final = false;
}

void FileStreams::FollowTree(uint32_t task, const std::string& name, FolderBeneath tree) {
  trees_.insert_or_assign(task, Tree{name, std::move(tree)});
}

void FileStreams::TaskIsGone(uint32_t task) {
  for (auto& [key, file] : files_) {
    if (std::get<0>(key) != agent::METRICS || std::get<1>(key) != task) continue;
    file.is_final = true;
    file.waits_at = 0;
  }
}

void FileStreams::Begin(const agent::StreamFiles& has) {
  has_.clear();
  for (const agent::FilePosition& position : has.positions()) {
    has_[{position.stream(), position.task(), position.path()}] = position.offset();
  }
  for (auto& [key, file] : files_) {
    const auto known = has_.find(key);
    file.sent = known == has_.end() ? 0 : known->second;
    // What the file held before it was cut is gone: the stream goes on with what there is.
    if (file.sent < file.start) file.start = file.sent;
    file.waits_at = 0;
  }
  active_ = true;
  next_search_ = absl::InfinitePast();
}

UniqueFd FileStreams::Open(const Key& key, const File& file) const {
  if (std::get<0>(key) != agent::SCRIPT_LOG) {
    return UniqueFd(open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  }
  const auto tree = trees_.find(std::get<1>(key));
  if (tree == trees_.end()) return UniqueFd();
  absl::StatusOr<UniqueFd> fd = tree->second.folder.OpenToRead(file.path);
  return fd.ok() ? *std::move(fd) : UniqueFd();
}

void FileStreams::LookAt(const Key& key, File* file) {
  const UniqueFd fd = Open(key, *file);
  struct stat info;
  if (fd.get() < 0 || fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return;
  const auto size = static_cast<uint64_t>(info.st_size);
  const bool is_replaced = file->inode != 0 && file->inode != info.st_ino;
  if (is_replaced || file->start + size < file->sent) {
    const bool is_text = std::get<0>(key) != agent::METRICS && !absl::StrContains(std::get<2>(key), "tfevents");
    AgentLog(absl::StrCat(file->path, " was ", is_replaced ? "replaced" : "cut", ": it is told from its beginning"));
    if (is_text && file->sent > 0) {
      file->note = absl::StrCat("[basin: the file was ", is_replaced ? "replaced" : "cut", "; from its beginning:]\n");
    }
    file->start = file->sent;
    file->waits_at = 0;
  }
  file->inode = info.st_ino;
  file->size = size;
}

void FileStreams::FindScriptLogs() {
  for (auto& [task, tree] : trees_) {
    const FolderListing listing = ListFolder(tree.folder, kLogsFolder, {.max_entries = kMostScriptLogs});
    for (const ListedFile& found : listing.files) {
      if (found.kind != ListedFile::Kind::kFile) continue;
      FileOf({agent::SCRIPT_LOG, task, found.path}, absl::StrCat(kLogsFolder, "/", found.path));
    }
    if ((listing.is_cut || listing.left_out.count() > 0) && !tree.told_limit) {
      tree.told_limit = true;
      AgentLog(absl::StrCat(tree.name, ": some of ./logs is not streamed: ",
                            listing.is_cut ? absl::StrCat("it has more than ", kMostScriptLogs, " files and folders")
                                           : listing.left_out.names().front()));
    }
  }
}

void FileStreams::Look(absl::Time now, bool everything) {
  const bool search = everything || now >= next_search_;
  if (search) {
    next_search_ = now + kSearchEvery;
    FindScriptLogs();
  }
  for (auto& [key, file] : files_) {
    if (search || std::get<0>(key) != agent::SCRIPT_LOG) LookAt(key, &file);
  }
}

std::optional<agent::FileChunk> FileStreams::Read(const Key& key, File* file) {
  agent::FileChunk chunk;
  chunk.set_stream(static_cast<agent::StreamKind>(std::get<0>(key)));
  chunk.set_task(std::get<1>(key));
  chunk.set_path(std::get<2>(key));
  chunk.set_offset(file->sent);
  if (!file->note.empty()) {
    chunk.set_data(file->note);
    file->sent += file->note.size();
    file->start = file->sent;
    file->note.clear();
    return chunk;
  }
  const uint64_t at = file->sent - file->start;
  if (at >= file->size || file->size == file->waits_at) return std::nullopt;
  const UniqueFd fd = Open(key, *file);
  std::string data(std::min<uint64_t>(file->size - at, kMostDataBytes), '\0');
  const ssize_t got = fd.get() < 0 ? 0 : pread(fd.get(), data.data(), data.size(), static_cast<off_t>(at));
  data.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  if (chunk.stream() == agent::METRICS && !file->is_final && data.size() < kMostDataBytes) {
    data.resize(data.rfind('\n') + 1);  // none: npos + 1 is 0
  }
  if (data.empty()) {
    file->waits_at = file->size;
    return std::nullopt;
  }
  file->sent += data.size();
  chunk.set_data(std::move(data));
  return chunk;
}

LeftOut FileStreams::NotTold() const {
  LeftOut left_out;
  for (const auto& [task, tree] : trees_) {
    const FolderListing listing =
        ListFolder(tree.folder, kLogsFolder, {.max_entries = kMostLookedAt, .counts_the_rest = true});
    const std::string prefix = absl::StrCat(tree.name, "/", kLogsFolder, "/");
    left_out.AddAll(listing.left_out, prefix);
    for (const ListedFile& found : listing.files) {
      const auto leave_out = [&](const std::string& why) {
        left_out.Add(absl::StrCat(prefix, found.path, " (", why, ")"));
      };
      const auto file = files_.find(Key{agent::SCRIPT_LOG, task, found.path});
      if (found.kind != ListedFile::Kind::kFile) {
        leave_out(found.kind == ListedFile::Kind::kLink ? "a link" : "a socket, pipe or device");
      } else if (file == files_.end()) {
        leave_out(absl::StrCat("beyond the ", kMostScriptLogs, " files and folders of a task that are streamed"));
      } else if (file->second.sent - file->second.start < found.bytes) {
        leave_out("it could not be read");
      }
    }
  }
  return left_out;
}

std::optional<agent::FileChunk> FileStreams::Next() {
  auto at = files_.upper_bound(told_last_);
  for (size_t i = 0; i < files_.size(); ++i, ++at) {
    if (at == files_.end()) at = files_.begin();
    if (std::optional<agent::FileChunk> chunk = Read(at->first, &at->second)) {
      told_last_ = at->first;
      return chunk;
    }
  }
  return std::nullopt;
}

}  // namespace basin
