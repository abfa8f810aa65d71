#include "ps/presence.h"

#include <algorithm>

namespace basin {

const Client* Presence::Find(const ClientKey& key) const {
  const auto at = clients_.find(key);
  return at == clients_.end() ? nullptr : &at->second;
}

bool Presence::Arrive(const Session& session, absl::Time now) {
  const ClientKey key = session.key();
  const auto [at, fresh] = clients_.try_emplace(key);
  Client& client = at->second;
  const bool was_here = !fresh && client.alive() && client.incarnation == session.incarnation;
  client = {.key = key,
            .role = session.role,
            .index = session.index,
            .is_chief = session.is_chief,
            .client_id = session.client_id,
            .incarnation = session.incarnation,
            .host = session.host,
            .pid = session.pid,
            .last_heard = now,
            .state = Client::State::kAlive,
            .waiting_for = was_here ? client.waiting_for : ""};
  return !was_here;
}

bool Presence::Heard(const ClientKey& key, absl::Time now) {
  const auto at = clients_.find(key);
  if (at == clients_.end()) return false;
  at->second.last_heard = now;
  if (at->second.state != Client::State::kDead) return false;
  at->second.state = Client::State::kAlive;
  return true;
}

void Presence::SetWaitingFor(const ClientKey& key, const std::string& what) {
  if (const auto at = clients_.find(key); at != clients_.end()) at->second.waiting_for = what;
}

bool Presence::Leave(const ClientKey& key) {
  const auto at = clients_.find(key);
  if (at == clients_.end() || at->second.state == Client::State::kGone) return false;
  if (at->second.role == wire::v1::ROLE_OBSERVER) {
    clients_.erase(at);
  } else {
    at->second.state = Client::State::kGone;
    at->second.waiting_for.clear();
  }
  return true;
}

std::vector<Client> Presence::TakeDead(absl::Time now) {
  std::vector<Client> dead;
  for (auto at = clients_.begin(); at != clients_.end();) {
    Client& client = at->second;
    if (!client.alive() || now - client.last_heard < dead_after_) {
      ++at;
      continue;
    }
    client.state = Client::State::kDead;
    dead.push_back(client);
    at = client.role == wire::v1::ROLE_OBSERVER ? clients_.erase(at) : std::next(at);
  }
  return dead;
}

absl::Time Presence::next_death() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [key, client] : clients_) {
    if (client.alive()) next = std::min(next, client.last_heard + dead_after_);
  }
  return next;
}

bool Presence::any_alive() const { return count_alive() > 0; }

size_t Presence::count_alive() const {
  size_t count = 0;
  for (const auto& [key, client] : clients_) count += client.alive();
  return count;
}

}  // namespace basin
