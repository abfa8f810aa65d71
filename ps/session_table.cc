#include "ps/session_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/wire/header.h"

namespace basin {
namespace {

// A client has one channel a lane, and for a moment after a cut the old one beside the new.
constexpr size_t kChannelsPerClient = 4;

}  // namespace

ClientKey KeyOf(wire::v1::Role role, uint32_t index, const std::string& client_id) {
  if (role == wire::v1::ROLE_OBSERVER) return {wire::WorkerKey(static_cast<uint32_t>(role), 0), client_id};
  return {wire::WorkerKey(static_cast<uint32_t>(role), index), ""};
}

std::string Sentence(wire::v1::Role role, uint32_t index) {
  switch (role) {
    case wire::v1::ROLE_CHIEF:
      return absl::StrCat("chief ", index);
    case wire::v1::ROLE_WORKER:
      return absl::StrCat("worker ", index);
    case wire::v1::ROLE_PS:
      return absl::StrCat("ps ", index);
    case wire::v1::ROLE_EVALUATOR:
      return absl::StrCat("evaluator ", index);
    case wire::v1::ROLE_OBSERVER:
      return "an observer";
    default:
      return absl::StrCat("a client of unknown role ", static_cast<int>(role));
  }
}

uint32_t Session::worker() const { return wire::WorkerKey(static_cast<uint32_t>(role), index); }

Session& SessionTable::Open(Session session, size_t limit) {
  const wire::PeerId peer = session.peer;
  const ClientKey key = session.key();
  Close(peer);
  if (const auto at = by_client_.find(key); at != by_client_.end() && at->second.size() >= kChannelsPerClient) {
    Close(at->second.front());
  }
  if (sessions_.size() >= limit && !sessions_.empty()) {
    const auto oldest = std::min_element(sessions_.begin(), sessions_.end(), [](const auto& a, const auto& b) {
      return a.second.last_heard < b.second.last_heard;
    });
    Close(oldest->first);
  }
  by_client_[key].push_back(peer);
  return sessions_[peer] = std::move(session);
}

Session* SessionTable::Find(wire::PeerId peer) {
  const auto at = sessions_.find(peer);
  return at == sessions_.end() ? nullptr : &at->second;
}

void SessionTable::Close(wire::PeerId peer) {
  const auto at = sessions_.find(peer);
  if (at == sessions_.end()) return;
  const auto client = by_client_.find(at->second.key());
  std::erase(client->second, peer);
  if (client->second.empty()) by_client_.erase(client);
  sessions_.erase(at);
}

void SessionTable::CloseAll(const ClientKey& key) {
  const auto at = by_client_.find(key);
  if (at == by_client_.end()) return;
  for (const wire::PeerId peer : std::vector<wire::PeerId>(at->second)) Close(peer);
}

}  // namespace basin
