#include "estimator/agent/snapshot_receiver.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "estimator/agent/agent_log.h"

namespace basin {
namespace {

agent::SnapshotState StateOf(const std::string& digest, bool have, const std::string& problem) {
  agent::SnapshotState state;
  state.set_digest(digest);
  state.set_have(have);
  state.set_problem(problem);
  return state;
}

TreeEntry EntryOf(const agent::TreeEntry& from) {
  TreeEntry entry;
  entry.path = from.path();
  entry.kind = from.kind() == agent::TreeEntry::FOLDER ? TreeEntry::Kind::kFolder
               : from.kind() == agent::TreeEntry::LINK ? TreeEntry::Kind::kLink
                                                       : TreeEntry::Kind::kFile;
  entry.executable = from.executable();
  entry.bytes = from.bytes();
  entry.target = from.link_target();
  return entry;
}

}  // namespace

agent::SnapshotState SnapshotReceiver::Offer(const agent::OfferSnapshot& offer) {
  Abandon();
  if (in_use_.count(offer.digest()) > 0) return StateOf(offer.digest(), true, "");
  absl::StatusOr<SnapshotUse> use = UseSnapshot(base_, offer.digest());
  if (use.ok()) {
    in_use_.emplace(offer.digest(), *std::move(use));
    return StateOf(offer.digest(), true, "");
  }
  if (use.status().code() != absl::StatusCode::kNotFound) {
    return StateOf(offer.digest(), false, std::string(use.status().message()));
  }
  UnpackOptions options;
  options.max_bytes = offer.bytes();
  absl::StatusOr<std::unique_ptr<SnapshotUnpacker>> begun = SnapshotUnpacker::Begin(base_, offer.digest(), options);
  if (!begun.ok()) return StateOf(offer.digest(), false, std::string(begun.status().message()));
  unpacker_ = *std::move(begun);
  offered_ = offer.digest();
  AgentLog(absl::StrCat("snapshot ", offered_.substr(0, 16), " comes: ", offer.files(), " files, ",
                        ShowBytes(offer.bytes())));
  return StateOf(offer.digest(), false, "");
}

absl::StatusOr<std::optional<agent::SnapshotState>> SnapshotReceiver::After(const absl::Status& status) {
  if (status.ok()) return std::nullopt;
  Drop();
  return StateOf(offered_, false, std::string(status.message()));
}

absl::StatusOr<std::optional<agent::SnapshotState>> SnapshotReceiver::Entry(const agent::TreeEntry& entry) {
  if (offered_.empty()) return absl::InvalidArgumentError("an entry of a snapshot that was not asked for");
  if (unpacker_ == nullptr) return std::nullopt;
  if (entry.kind() != agent::TreeEntry::FOLDER && entry.kind() != agent::TreeEntry::FILE &&
      entry.kind() != agent::TreeEntry::LINK) {
    return absl::InvalidArgumentError("an entry of a snapshot is of no kind that there is");
  }
  return After(unpacker_->AddEntry(EntryOf(entry)));
}

absl::StatusOr<std::optional<agent::SnapshotState>> SnapshotReceiver::Data(const std::string& bytes) {
  if (offered_.empty()) return absl::InvalidArgumentError("data of a snapshot that was not asked for");
  if (unpacker_ == nullptr) return std::nullopt;
  return After(unpacker_->AddData(bytes));
}

absl::StatusOr<std::optional<agent::SnapshotState>> SnapshotReceiver::End() {
  if (offered_.empty()) return absl::InvalidArgumentError("the end of a snapshot that was not asked for");
  const std::string digest = std::exchange(offered_, "");
  if (unpacker_ == nullptr) return std::nullopt;
  absl::Status status = unpacker_->CheckWhole();
  if (status.ok()) {
    absl::StatusOr<ForkedWork> work = ForkedWork::Start(
        [] { return syncfs(kForkedWorkFd) == 0 ? "" : std::string(ErrnoStatus(errno, "syncfs").message()); },
        unpacker_->fd());
    status = work.status();
    if (work.ok()) sync_.emplace(Sync{digest, *std::move(work)});
  }
  if (status.ok()) return std::nullopt;
  Drop();
  return StateOf(digest, false, std::string(status.message()));
}

std::optional<agent::SnapshotState> SnapshotReceiver::Poll() {
  if (pruning_ && pruning_->Poll()) pruning_.reset();
  if (!sync_) return std::nullopt;
  const std::optional<absl::StatusOr<std::string>> synced = sync_->work.Poll();
  if (!synced) return std::nullopt;
  const std::string digest = sync_->digest;
  sync_.reset();
  const std::string problem = synced->ok() ? **synced : std::string(synced->status().message());
  absl::StatusOr<SnapshotUse> use =
      problem.empty() ? unpacker_->Publish()
                      : absl::DataLossError(absl::StrCat("snapshot ", digest.substr(0, 12), " in ", base_,
                                                         " cannot be written to the disk: ", problem));
  Drop();
  if (!use.ok()) return StateOf(digest, false, std::string(use.status().message()));
  in_use_.emplace(digest, *std::move(use));
  return StateOf(digest, true, "");
}

// What it has written and not published is removed with what is old: a large tree takes its time.
void SnapshotReceiver::Drop() {
  sync_.reset();
  if (unpacker_ == nullptr) return;
  unpacker_->Leave();
  unpacker_.reset();
  Prune();
}

void SnapshotReceiver::Prune() {
  absl::StatusOr<ForkedWork> work = ForkedWork::Start([base = base_] {
    PruneSnapshots(base, UnpackOptions().keep);
    return std::string();
  });
  // The next one does the work of one that cannot be begun, or is cut by it.
  pruning_.reset();
  if (work.ok()) pruning_.emplace(*std::move(work));
}

void SnapshotReceiver::AddWaits(std::vector<pollfd>* waits) const {
  if (sync_) waits->push_back({sync_->work.fd(), POLLIN, 0});
  if (pruning_) waits->push_back({pruning_->fd(), POLLIN, 0});
}

void SnapshotReceiver::AddChildren(std::vector<pid_t>* pids) const {
  if (sync_) pids->push_back(sync_->work.pid());
  if (pruning_) pids->push_back(pruning_->pid());
}

void SnapshotReceiver::Abandon() {
  Drop();
  offered_.clear();
}

absl::StatusOr<std::string> SnapshotReceiver::PathOf(const std::string& digest) const {
  const auto found = in_use_.find(digest);
  if (found == in_use_.end()) {
    return absl::NotFoundError(absl::StrCat("snapshot ", digest.substr(0, 80), " was not sent to this node"));
  }
  return found->second.path();
}

}  // namespace basin
