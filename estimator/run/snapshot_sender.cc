#include "estimator/run/snapshot_sender.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "estimator/agent/channel.h"

namespace basin {

absl::StatusOr<SnapshotSender::Part> SnapshotSender::Next() {
  Part part;
  if (left_ > 0) {
    std::string* data = part.message.mutable_tree_data()->mutable_data();
    data->resize(std::min<uint64_t>(left_, kMostDataBytes));
    ssize_t got = -1;
    do {
      got = read(file_.get(), data->data(), data->size());
    } while (got < 0 && errno == EINTR);
    const std::string& path = snapshot_.tree.entries[entry_ - 1].path;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("read ", snapshot_.use.path(), "/", path));
    if (got == 0) {
      return absl::DataLossError(absl::StrCat(snapshot_.use.path(), "/", path, " has become shorter: ", left_,
                                              " bytes are missing; remove that snapshot and submit again"));
    }
    data->resize(static_cast<size_t>(got));
    left_ -= static_cast<uint64_t>(got);
    sent_ += static_cast<uint64_t>(got);
    part.data_bytes = static_cast<size_t>(got);
    return part;
  }
  if (entry_ == snapshot_.tree.entries.size()) {
    part.message.mutable_tree_end();
    done_ = true;
    return part;
  }
  const TreeEntry& entry = snapshot_.tree.entries[entry_++];
  estimator::v1::TreeEntry* out = part.message.mutable_tree_entry();
  out->set_path(entry.path);
  switch (entry.kind) {
    case TreeEntry::Kind::kFolder:
      out->set_kind(estimator::v1::TreeEntry::FOLDER);
      break;
    case TreeEntry::Kind::kLink:
      out->set_kind(estimator::v1::TreeEntry::LINK);
      out->set_link_target(entry.target);
      break;
    case TreeEntry::Kind::kFile:
      out->set_kind(estimator::v1::TreeEntry::FILE);
      out->set_executable(entry.executable);
      out->set_bytes(entry.bytes);
      left_ = entry.bytes;
      if (left_ > 0) {
        const std::string path = absl::StrCat(snapshot_.use.path(), "/", entry.path);
        file_ = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
        if (file_.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
      }
      break;
  }
  return part;
}

estimator::v1::ToAgent OfferOf(const StagedSnapshot& snapshot) {
  estimator::v1::ToAgent message;
  estimator::v1::OfferSnapshot* offer = message.mutable_offer_snapshot();
  offer->set_digest(snapshot.tree.digest);
  offer->set_files(snapshot.tree.files);
  offer->set_bytes(snapshot.tree.bytes);
  return message;
}

}  // namespace basin
