// Which clients of this ps are alive, judged by lane 0 from what it hears of them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "ps/session_table.h"

namespace basin {

struct Client {
  enum class State {
    kAlive,
    kDead,  // not heard for dead_after; hearing it again revives it
    kGone,  // said Goodbye
  };
  ClientKey key;
  wire::v1::Role role = wire::v1::ROLE_UNSPECIFIED;
  uint32_t index = 0;
  bool is_chief = false;
  std::string client_id;
  Incarnation incarnation;
  std::string host;
  uint64_t pid = 0;
  absl::Time last_heard;
  State state = State::kAlive;
  std::string waiting_for;  // by its last Heartbeat

  bool alive() const { return state == State::kAlive; }
  bool trains() const { return role == wire::v1::ROLE_CHIEF || role == wire::v1::ROLE_WORKER; }
};

class Presence {
 public:
  explicit Presence(absl::Duration dead_after) : dead_after_(dead_after) {}

  const Client* Find(const ClientKey& key) const;
  // A Hello was accepted. True when the client was not alive in this life before.
  bool Arrive(const Session& session, absl::Time now);
  // A message came. True when that revives it.
  bool Heard(const ClientKey& key, absl::Time now);
  void SetWaitingFor(const ClientKey& key, const std::string& what);
  // It said Goodbye. True when it was not gone before. Observers are forgotten.
  bool Leave(const ClientKey& key);
  // Those that count as dead from now on. Dead observers are forgotten.
  std::vector<Client> TakeDead(absl::Time now);
  // When TakeDead may find somebody.
  absl::Time next_death() const;

  bool any_alive() const;
  size_t count_alive() const;
  // Ordered by role and index.
  const std::map<ClientKey, Client>& clients() const { return clients_; }
  absl::Duration dead_after() const { return dead_after_; }

 private:
  absl::Duration dead_after_;
  std::map<ClientKey, Client> clients_;
};

}  // namespace basin
