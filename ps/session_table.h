// Who has said Hello to this lane, by the channel that the Hello came on.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cluster_spec/cluster_spec.h"
#include "common/base/ids.h"
#include "common/wire/control.pb.h"
#include "common/wire/transport.h"

namespace basin {

// A client, the same on all its channels: a task by its role and index, an observer by its client id.
struct ClientKey {
  uint32_t worker = 0;   // wire::WorkerKey
  std::string observer;  // client id of an observer; empty for a task
  friend auto operator<=>(const ClientKey&, const ClientKey&) = default;
};
ClientKey KeyOf(wire::v1::Role role, uint32_t index, const std::string& client_id);
// "worker 1", "an observer".
std::string Sentence(wire::v1::Role role, uint32_t index);

struct Session {
  wire::PeerId peer = 0;
  wire::v1::Role role = wire::v1::ROLE_UNSPECIFIED;
  uint32_t index = 0;
  bool is_chief = false;
  std::string client_id;
  Incarnation incarnation;
  std::string host;
  uint64_t pid = 0;
  bool knows_all_ps = true;  // an observer that was given some ps alone may ask for Stats, and not for shards
  absl::Time last_heard;

  ClientKey key() const { return KeyOf(role, index, client_id); }
  uint32_t worker() const;
  bool trains() const { return role == wire::v1::ROLE_CHIEF || role == wire::v1::ROLE_WORKER; }
};

class SessionTable {
 public:
  // A repeat on the same channel replaces. A client that dialled anew keeps its last few channels, since messages of
  // the older ones may still come; beyond `limit` sessions the one not heard for longest makes room.
  Session& Open(Session session, size_t limit);
  Session* Find(wire::PeerId peer);
  // Whether it is the channel on which its client has said Hello last.
  bool IsNewest(const Session& session) const { return by_client_.at(session.key()).back() == session.peer; }
  void Close(wire::PeerId peer);
  // Closes all of a client.
  void CloseAll(const ClientKey& key);
  bool Any(const ClientKey& key) const { return by_client_.contains(key); }
  size_t size() const { return sessions_.size(); }
  bool empty() const { return sessions_.empty(); }

 private:
  std::map<wire::PeerId, Session> sessions_;
  std::map<ClientKey, std::vector<wire::PeerId>> by_client_;  // oldest Hello first
};

}  // namespace basin
