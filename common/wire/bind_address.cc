#include "common/wire/bind_address.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/wire/resolve.h"

namespace basin::wire {

absl::StatusOr<std::vector<LocalAddress>> ListLocalAddresses() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot list this machine's network addresses: ", std::strerror(errno)));
  }
  std::vector<LocalAddress> result;
  for (const ifaddrs* at = list; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr || !(at->ifa_flags & IFF_UP)) continue;
    const int family = at->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    char text[NI_MAXHOST];
    const socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    if (getnameinfo(at->ifa_addr, size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0) continue;
    result.push_back({at->ifa_name, text});
  }
  freeifaddrs(list);
  return result;
}

namespace {

bool IsLocal(const BindFacts& facts, const std::string& ip) {
  // All of 127.0.0.0/8 is this machine's, though its interface lists one address of it.
  if (IsLoopback(ip)) return true;
  return std::any_of(facts.local.begin(), facts.local.end(), [&](const LocalAddress& local) { return local.ip == ip; });
}

std::string AllInterfaces(const BindFacts& facts) {
  const bool v6 =
      std::all_of(facts.own_ips.begin(), facts.own_ips.end(), [](const std::string& ip) { return IsIpv6(ip); });
  return v6 ? "::" : "0.0.0.0";
}

}  // namespace

absl::StatusOr<BindAddress> ChooseBindAddress(const BindFacts& facts, const std::string& interface) {
  BindAddress result;
  result.host = facts.own_host;
  if (!interface.empty()) {
    // IPv4 before IPv6: an interface's first IPv6 address is often link-local.
    for (const bool want_v6 : {false, true}) {
      for (const LocalAddress& local : facts.local) {
        if ((local.interface != interface && local.ip != interface) || IsIpv6(local.ip) != want_v6) continue;
        result.ip = local.ip;
        return result;
      }
    }
    std::vector<std::string> known;
    for (const LocalAddress& local : facts.local) known.push_back(absl::StrCat(local.interface, " (", local.ip, ")"));
    return absl::InvalidArgumentError(absl::StrCat("--interface ", interface,
                                                   ": this machine has no such interface or address; it has ",
                                                   absl::StrJoin(known, ", ")));
  }
  for (const std::string& ip : facts.own_ips) {
    if (ip == "0.0.0.0" || ip == "::") {
      result.ip = ip;
      return result;
    }
  }
  for (const std::string& ip : facts.own_ips) {
    if (IsLoopback(ip) || !IsLocal(facts, ip)) continue;
    result.ip = ip;
    return result;
  }
  const auto loopback =
      std::find_if(facts.own_ips.begin(), facts.own_ips.end(), [](const std::string& ip) { return IsLoopback(ip); });
  if (loopback != facts.own_ips.end() && facts.every_task_is_loopback) {
    result.ip = *loopback;
    return result;
  }
  result.ip = AllInterfaces(facts);
  result.note = absl::StrCat("listening on all interfaces, since this task's host \"", facts.own_host,
                             "\" resolves to ", absl::StrJoin(facts.own_ips, ", "),
                             loopback != facts.own_ips.end() ? ", which other machines cannot reach"
                                                             : ", which is not an address of this machine",
                             "; --interface chooses one");
  return result;
}

absl::StatusOr<BindFacts> CollectBindFacts(const std::string& own_host, const std::vector<std::string>& task_hosts) {
  BindFacts facts;
  facts.own_host = own_host;
  BASIN_ASSIGN_OR_RETURN(facts.own_ips, Resolve(own_host));
  BASIN_ASSIGN_OR_RETURN(facts.local, ListLocalAddresses());
  const auto all_loopback = [](const std::vector<std::string>& ips) {
    return std::all_of(ips.begin(), ips.end(), [](const std::string& ip) { return IsLoopback(ip); });
  };
  facts.every_task_is_loopback = all_loopback(facts.own_ips);
  std::vector<std::string> hosts = task_hosts;
  std::sort(hosts.begin(), hosts.end());
  hosts.erase(std::unique(hosts.begin(), hosts.end()), hosts.end());
  for (size_t i = 0; facts.every_task_is_loopback && i < hosts.size(); ++i) {
    if (hosts[i] == own_host) continue;
    const absl::StatusOr<std::vector<std::string>> ips = Resolve(hosts[i]);
    facts.every_task_is_loopback = ips.ok() && all_loopback(*ips);
  }
  return facts;
}

}  // namespace basin::wire
