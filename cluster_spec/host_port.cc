#include "cluster_spec/host_port.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

absl::Status WrongAddress(absl::string_view what) { return absl::InvalidArgumentError(what); }

bool AllOf(absl::string_view text, bool (*test)(unsigned char)) {
  for (char c : text) {
    if (!test(static_cast<unsigned char>(c))) return false;
  }
  return !text.empty();
}

absl::Status CheckName(absl::string_view host) {
  if (host.size() > 253) return WrongAddress(absl::StrCat("expected a host name of at most 253 bytes, found ", host.size()));
  // A dot at the end means the DNS root.
  for (absl::string_view label : absl::StrSplit(absl::StripSuffix(host, "."), '.')) {
    if (label.empty()) return WrongAddress("expected a host name, found one with nothing between two dots; remove one");
    if (label.size() > 63)
      return WrongAddress(absl::StrCat("expected at most 63 bytes between dots of a host name, found ", label.size()));
    if (label.front() == '-' || label.back() == '-')
      return WrongAddress("expected a host name, found a part that begins or ends with '-'; remove it");
    for (char c : label) {
      if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_')
        return WrongAddress(
            "expected host:port with letters, digits, '-', '_' and '.' in the host; write it such as ps0:2222");
    }
  }
  return absl::OkStatus();
}

// Digits and dots alone are an IPv4 address, or a mistake in one; no DNS name ends in a number.
bool LooksLikeIpv4(absl::string_view host) {
  return AllOf(host, [](unsigned char c) { return absl::ascii_isdigit(c) || c == '.'; });
}

}  // namespace

std::string HostPort::ToString() const {
  return kind == Kind::kIpv6 ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

std::string HostPort::Canonical() const {
  HostPort shortest = *this;
  if (kind == Kind::kIpv6) {
    const std::vector<std::string> parts = absl::StrSplit(host, absl::MaxSplits('%', 1));
    in6_addr address{};
    char text[INET6_ADDRSTRLEN] = "";
    if (inet_pton(AF_INET6, parts[0].c_str(), &address) == 1) inet_ntop(AF_INET6, &address, text, sizeof text);
    shortest.host = parts.size() > 1 ? absl::StrCat(text, "%", parts[1]) : std::string(text);
  } else {
    shortest.host = absl::AsciiStrToLower(absl::StripSuffix(host, "."));
  }
  return shortest.ToString();
}

absl::StatusOr<HostPort> ParseHostPort(absl::string_view text) {
  if (text.empty()) return WrongAddress("expected host:port, found an empty string; write it such as ps0:2222");
  if (text.find('\0') != absl::string_view::npos)
    return WrongAddress("expected host:port, found a zero byte in it; remove it");
  if (text != absl::StripAsciiWhitespace(text)) return WrongAddress("expected host:port, found spaces around it; remove them");
  if (const size_t scheme = text.find("://"); scheme != absl::string_view::npos)
    return WrongAddress(absl::StrCat("expected host:port, found a scheme; remove ", text.substr(0, scheme + 3),
                              " here (rpc_layer sets it for all)"));
  HostPort out;
  absl::string_view port;
  if (text[0] == '[') {
    const size_t close = text.find(']');
    if (close == absl::string_view::npos)
      return WrongAddress("expected ']' after an IPv6 address; write it such as [::1]:2222");
    out.host = std::string(text.substr(1, close - 1));
    out.kind = HostPort::Kind::kIpv6;
    port = text.substr(close + 1);
    const size_t zone = out.host.find('%');
    in6_addr address{};
    if (zone == out.host.size() - 1 || inet_pton(AF_INET6, out.host.substr(0, zone).c_str(), &address) != 1)
      return WrongAddress("expected an IPv6 address between the brackets; write it such as [fe80::1]:2222");
    if (zone != std::string::npos && !AllOf(out.host.substr(zone + 1), absl::ascii_isalnum))
      return WrongAddress("expected letters and digits after '%' in an IPv6 address; write it such as [fe80::1%eth0]:2222");
    if (port.empty() || port[0] != ':') return WrongAddress("expected a port after ']'; write it such as [::1]:2222");
  } else {
    const size_t colon = text.find(':');
    if (colon == absl::string_view::npos)
      return WrongAddress(absl::StrCat("expected host:port, found no port; add one, such as ", text, ":2222"));
    if (text.find(':', colon + 1) != absl::string_view::npos)
      return WrongAddress("expected host:port, found more than one ':'; an IPv6 address goes in brackets, such as [::1]:2222");
    out.host = std::string(text.substr(0, colon));
    port = text.substr(colon);
    if (out.host.empty()) return WrongAddress("expected host:port, found no host before ':'; write it such as ps0:2222");
    if (LooksLikeIpv4(out.host)) {
      out.kind = HostPort::Kind::kIpv4;
      in_addr address{};
      if (inet_pton(AF_INET, out.host.c_str(), &address) != 1)
        return WrongAddress("expected an IPv4 address of four numbers from 0 to 255; write it such as 10.0.0.4:2222");
    } else {
      BASIN_RETURN_IF_ERROR(CheckName(out.host));
    }
  }
  port.remove_prefix(1);
  uint32_t number = 0;
  if (port.size() > 5 || !AllOf(port, absl::ascii_isdigit) || !absl::SimpleAtoi(port, &number) || number < 1 ||
      number > 65535)
    return WrongAddress("expected a port from 1 to 65535 after ':'; write it such as ps0:2222");
  out.port = static_cast<uint16_t>(number);
  return out;
}

}  // namespace basin
