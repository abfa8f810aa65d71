#include "common/wire/resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace basin::wire {

absl::StatusOr<HostPort> SplitHostPort(absl::string_view address) {
  const auto wrong = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("address \"", address, "\": ", what, "; expected host:port"));
  };
  HostPort result;
  absl::string_view port;
  if (absl::StartsWith(address, "[")) {
    const size_t end = address.find("]:");
    if (end == absl::string_view::npos) return wrong("no \"]:\" after the IPv6 address");
    result.host = std::string(address.substr(1, end - 1));
    port = address.substr(end + 2);
  } else {
    const size_t colon = address.rfind(':');
    if (colon == absl::string_view::npos) return wrong("no port");
    result.host = std::string(address.substr(0, colon));
    if (absl::StrContains(result.host, ':')) return wrong("an IPv6 address needs brackets, as in [::1]:2222");
    port = address.substr(colon + 1);
  }
  if (result.host.empty()) return wrong("no host");
  uint32_t number = 0;
  if (!absl::SimpleAtoi(port, &number) || number > 65535) return wrong("the port is not a number from 0 to 65535");
  result.port = static_cast<uint16_t>(number);
  return result;
}

std::string JoinHostPort(absl::string_view host, uint16_t port) {
  return absl::StrContains(host, ':') ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

absl::StatusOr<std::vector<std::string>> Resolve(const std::string& host) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int rc = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (rc != 0) {
    const char* reason = rc == EAI_SYSTEM ? std::strerror(errno) : gai_strerror(rc);
    return absl::UnavailableError(absl::StrCat("\"", host, "\": name does not resolve (", reason, ")"));
  }
  std::vector<std::string> ips;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    char text[NI_MAXHOST];
    if (getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0) continue;
    if (std::find(ips.begin(), ips.end(), text) == ips.end()) ips.emplace_back(text);
  }
  freeaddrinfo(found);
  if (ips.empty()) return absl::UnavailableError(absl::StrCat("\"", host, "\": name does not resolve (no address)"));
  return ips;
}

bool IsLoopback(absl::string_view ip) {
  const std::string text(ip);
  in_addr v4;
  if (inet_pton(AF_INET, text.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6;
  if (inet_pton(AF_INET6, text.c_str(), &v6) != 1) return false;
  if (IN6_IS_ADDR_V4MAPPED(&v6)) return v6.s6_addr[12] == 127;
  return IN6_IS_ADDR_LOOPBACK(&v6);
}

bool IsIpv6(absl::string_view ip) { return absl::StrContains(ip, ':'); }

}  // namespace basin::wire
