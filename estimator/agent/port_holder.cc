#include "estimator/agent/port_holder.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/wire/bind_address.h"
#include "common/wire/resolve.h"

namespace basin {
namespace {

constexpr uint32_t kFirstPort = 2222;  // where TensorFlow's clusters listen by custom
constexpr uint32_t kMostPorts = 4096;
constexpr uint32_t kLastPort = 65535;
constexpr int kPortBacklog = 1024;
constexpr char kEverywhere[] = "0.0.0.0";

// `shares`: bound as a program that sets SO_REUSEADDR does, so that ends of old connections do not count.
absl::StatusOr<UniqueFd> ListenOn(const std::string& ip, uint32_t port, bool shares) {
  addrinfo hints = {};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(ip.c_str(), absl::StrCat(port).c_str(), &hints, &found); error != 0) {
    return absl::InvalidArgumentError(absl::StrCat(ip, ": ", gai_strerror(error)));
  }
  UniqueFd fd(socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int yes = 1;
  // Otherwise bound without the option, so that whoever gets the port may do without it too; it is set afterwards for
  // those who accept here.
  int error = fd.get() < 0 ? errno : 0;
  if (error == 0 && shares && setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0) error = errno;
  if (error == 0 && bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0) error = errno;
  if (error == 0 && setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0) error = errno;
  if (error == 0 && listen(fd.get(), kPortBacklog) != 0) error = errno;
  freeaddrinfo(found);
  if (error != 0) return ErrnoStatus(error, absl::StrCat("listen on ", wire::JoinHostPort(ip, port)));
  return fd;
}

// Nobody listens there, so nothing can be sent to it. An address of the loopback net that is asked for by its literal,
// 127.0.0.1 apart, stands for a machine of its own: its ports have names of their own.
absl::StatusOr<UniqueFd> TakeName(const std::string& ip, uint32_t port) {
  const bool own_machine = absl::StartsWith(ip, "127.") && ip != "127.0.0.1";
  const std::string name = absl::StrCat("basin-port-", port, own_machine ? "-" : "", own_machine ? ip : "");
  sockaddr_un at = {};
  at.sun_family = AF_UNIX;
  std::memcpy(at.sun_path + 1, name.data(), name.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.get() >= 0 && bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), size) == 0) return fd;
  if (errno == EADDRINUSE) return absl::AlreadyExistsError(absl::StrCat("port ", port, " is of another Basin run"));
  return ErrnoStatus(errno, absl::StrCat("take the name of port ", port));
}

absl::StatusOr<HeldPort> HoldOne(const std::string& ip, uint32_t port) {
  HeldPort held;
  BASIN_ASSIGN_OR_RETURN(held.name, TakeName(ip, port));
  BASIN_ASSIGN_OR_RETURN(held.listener, ListenOn(ip, port, /*shares=*/false));
  return held;
}

bool IsLoopbackLiteral(const std::string& address) { return address == "localhost" || wire::IsLoopback(address); }

}  // namespace

PortAddress ChoosePortAddress(const std::string& bind_address) {
  if (bind_address.empty()) return {kEverywhere, "ports are held on all interfaces"};
  absl::StatusOr<wire::BindFacts> facts = wire::CollectBindFacts(bind_address, {});
  if (!facts.ok()) {
    return {kEverywhere, absl::StrCat("ports are held on all interfaces: ", facts.status().message())};
  }
  // Debian's /etc/hosts has the host's own name as 127.0.1.1, where no other machine could reach it.
  facts->every_task_is_loopback = IsLoopbackLiteral(bind_address);
  const absl::StatusOr<wire::BindAddress> chosen = wire::ChooseBindAddress(*facts, "");
  if (!chosen.ok() || chosen->ip == kEverywhere || chosen->ip == "::") {
    return {
        chosen.ok() ? chosen->ip : kEverywhere,
        absl::StrCat("ports are held on all interfaces: ", bind_address, " resolves to ",
                     absl::StrJoin(facts->own_ips, ", "), ", which is no address of this machine that others reach")};
  }
  return {chosen->ip, absl::StrCat("ports are held on ", chosen->ip, " (", bind_address, ")")};
}

absl::StatusOr<std::vector<uint32_t>> PortHolder::Hold(const PortRequest& request) {
  held_.clear();
  address_ = ChoosePortAddress(request.bind_address);
  if (request.count > kMostPorts) {
    return absl::InvalidArgumentError(absl::StrCat(request.count, " ports on one node, at most ", kMostPorts));
  }
  std::vector<uint32_t> ports;
  std::string last_problem;
  const auto hold_up_to = [&](uint32_t first, uint32_t last) {
    for (uint32_t port = std::max(first, 1u); port <= std::min(last, kLastPort) && ports.size() < request.count;
         ++port) {
      if (held_.count(port) > 0) continue;
      if (std::find(request.avoid.begin(), request.avoid.end(), port) != request.avoid.end()) continue;
      absl::StatusOr<HeldPort> held = HoldOne(address_.ip, port);
      if (!held.ok()) {
        last_problem = std::string(held.status().message());
        continue;
      }
      ports.push_back(port);
      held_[port] = *std::move(held);
    }
  };
  if (request.count > 0) hold_up_to(kFirstPort, kFirstPort + request.count - 1);
  hold_up_to(request.first, request.last);
  if (ports.size() < request.count) {
    held_.clear();
    return absl::ResourceExhaustedError(
        absl::StrCat(request.count, " free ports are needed on ", address_.ip, ", ", ports.size(),
                     " found (2222 upward, then ", request.first, "-", request.last, ")",
                     last_problem.empty() ? "" : absl::StrCat("; the last one: ", last_problem),
                     "; set network.ports in the job file"));
  }
  return ports;
}

absl::StatusOr<HeldPort> PortHolder::Take(uint32_t port) {
  const auto found = held_.find(port);
  if (found == held_.end()) return absl::NotFoundError(absl::StrCat("port ", port, " is not held on this node"));
  HeldPort held = std::move(found->second);
  held_.erase(found);
  return held;
}

bool PortHolder::IsTaken(uint32_t port) const {
  const absl::StatusOr<UniqueFd> fd = ListenOn(address_.ip.empty() ? kEverywhere : address_.ip, port, /*shares=*/true);
  return !fd.ok();
}

}  // namespace basin
