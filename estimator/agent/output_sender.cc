#include "estimator/agent/output_sender.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "estimator/agent/channel.h"
#include "estimator/snapshot/tree.h"

namespace basin {
namespace {

constexpr char kOutputsFolder[] = "outputs";
constexpr size_t kMostEntries = 200'000;  // of one task: files, folders, links

}  // namespace

OutputSender::OutputSender(std::vector<TaskOutputs> tasks, uint64_t limit_bytes, const agent::StreamFiles& has,
                           LeftOut logs_left_out)
    : tasks_(std::move(tasks)), room_(limit_bytes), left_out_(std::move(logs_left_out)) {
  for (const agent::FilePosition& position : has.positions()) {
    if (position.stream() == agent::OUTPUT) has_[{position.task(), position.path()}] = position.offset();
  }
}

void OutputSender::LeaveOut(const std::string& task, const std::string& path, const std::string& why) {
  left_out_.Add(absl::StrCat(task, "/", kOutputsFolder, "/", path, " (", why, ")"));
}

void OutputSender::Plan(const TaskOutputs& task) {
  const absl::StatusOr<FolderBeneath> tree = FolderBeneath::Open(task.tree);
  if (!tree.ok()) return;  // it was never made
  const FolderListing listing =
      ListFolder(*tree, kOutputsFolder, {.max_entries = kMostEntries, .counts_the_rest = true});
  left_out_.AddAll(listing.left_out, absl::StrCat(task.name, "/", kOutputsFolder, "/"));
  for (const ListedFile& file : listing.files) {
    if (file.kind == ListedFile::Kind::kOther) {
      LeaveOut(task.name, file.path, "a socket, pipe or device");
    } else if (file.kind == ListedFile::Kind::kLink && !CheckLinkTarget(file.path, file.target).ok()) {
      LeaveOut(task.name, file.path, "a link that leads outside");
    } else if (file.bytes > room_) {
      LeaveOut(task.name, file.path, ShowBytes(file.bytes));
    } else {
      room_ -= file.bytes;
      items_.push_back({task.task, task.name, task.tree, file});
    }
  }
}

bool OutputSender::Open(const Item& item) {
  if (open_tree_ != item.tree || !folder_) {
    absl::StatusOr<FolderBeneath> folder = FolderBeneath::Open(item.tree);
    if (!folder.ok()) {
      LeaveOut(item.name, item.file.path, std::string(folder.status().message()));
      return false;
    }
    folder_.emplace(*std::move(folder));
    open_tree_ = item.tree;
  }
  absl::StatusOr<UniqueFd> fd = folder_->OpenToRead(absl::StrCat(kOutputsFolder, "/", item.file.path));
  if (!fd.ok()) {
    LeaveOut(item.name, item.file.path, std::string(fd.status().message()));
    return false;
  }
  file_ = *std::move(fd);
  const auto has = has_.find({item.task, item.file.path});
  offset_ = has == has_.end() ? 0 : std::min(has->second, item.file.bytes);
  return true;
}

// nullopt: there is nothing (more) to say about it.
std::optional<agent::FileChunk> OutputSender::Piece(const Item& item) {
  agent::FileChunk chunk;
  chunk.set_stream(agent::OUTPUT);
  chunk.set_task(item.task);
  chunk.set_path(item.file.path);
  if (item.file.kind == ListedFile::Kind::kLink) {
    chunk.set_link_target(item.file.target);
    chunk.set_last(true);
    return chunk;
  }
  if (file_.get() < 0 && !Open(item)) return std::nullopt;
  std::string data(std::min<uint64_t>(item.file.bytes - offset_, kMostDataBytes), '\0');
  const ssize_t got = data.empty() ? 0 : pread(file_.get(), data.data(), data.size(), static_cast<off_t>(offset_));
  if (got < 0 || static_cast<size_t>(got) < data.size()) {
    LeaveOut(item.name, item.file.path, got < 0 ? std::strerror(errno) : "it became shorter while it was read");
    file_.Close();
    return std::nullopt;
  }
  chunk.set_offset(offset_);
  chunk.set_data(std::move(data));
  chunk.set_executable(item.file.executable);
  offset_ += static_cast<uint64_t>(got);
  chunk.set_last(offset_ == item.file.bytes);
  return chunk;
}

std::optional<agent::FileChunk> OutputSender::Next() {
  for (;; ++at_) {
    while (at_ == items_.size() && next_task_ < tasks_.size()) {
      items_.clear();
      at_ = 0;
      Plan(tasks_[next_task_++]);
    }
    if (at_ == items_.size()) break;
    const Item& item = items_[at_];
    std::optional<agent::FileChunk> chunk = Piece(item);
    if (!chunk) continue;
    if (chunk->last()) {
      collected_.set_files(collected_.files() + 1);
      collected_.set_bytes(collected_.bytes() + item.file.bytes);
      file_.Close();
      ++at_;
    }
    return chunk;
  }
  collected_.mutable_left_out()->Assign(left_out_.names().begin(), left_out_.names().end());
  collected_.set_left_out_count(left_out_.count());
  return std::nullopt;
}

}  // namespace basin
