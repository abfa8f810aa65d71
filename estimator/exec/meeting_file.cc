#include "estimator/exec/meeting_file.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/host_name.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace basin {
namespace {

constexpr size_t kMostBytes = 64 << 10;
constexpr absl::Duration kConnect = absl::Seconds(2), kAnswer = absl::Seconds(10);

absl::StatusOr<LineConnection> CallAt(const std::string& host, const Meeting& meeting, nlohmann::json introduction) {
  BASIN_ASSIGN_OR_RETURN(LineConnection connection, ConnectTo(host, meeting.port, kConnect));
  BASIN_ASSIGN_OR_RETURN(const nlohmann::json hello, connection.Next(kAnswer));
  const std::string theirs = ValueIn(hello, "nonce", std::string()), own = SecretHex(16);
  introduction["nonce"] = own;
  introduction["proof"] = MeetingProof(meeting.token, "a rank", own, theirs);
  connection.Send(introduction);
  BASIN_ASSIGN_OR_RETURN(const nlohmann::json answer, connection.Next(kAnswer));
  const std::string proof = ValueIn(answer, "proof", std::string());
  if (SecretEquals(proof, MeetingProof(meeting.token, "rank 0", theirs, own))) return connection;
  return absl::UnavailableError("another program listens where rank 0 should");
}

}  // namespace

std::string MeetingPath(const std::string& folder, const std::string& launch) {
  return absl::StrCat(folder, "/.basin-exec-", launch);
}

absl::Status WriteMeeting(const std::string& path, const Meeting& meeting) {
  const nlohmann::json file = {{"basin_exec", 1},
                               {"host", meeting.host},
                               {"addresses", meeting.hosts},
                               {"port", meeting.port},
                               {"token", meeting.token}};
  return WriteFileAtomically(path, file.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n", 0600);
}

absl::StatusOr<std::optional<Meeting>> ReadMeeting(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (fd.get() < 0) {
    // ESTALE: replaced at this moment, on a network file system.
    if (errno == ENOENT || errno == ESTALE) return std::nullopt;
    return ErrnoStatus(errno, absl::StrCat("open ", path));
  }
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, absl::StrCat("stat ", path));
  if (!S_ISREG(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 077) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, " is not a file of this user's alone (owner ", info.st_uid, ", mode 0",
                     (info.st_mode >> 6) & 7, (info.st_mode >> 3) & 7, info.st_mode & 7,
                     "), so it may be somebody else's launch; remove it, or give another --rendezvous folder"));
  }
  std::string text(kMostBytes, '\0');
  const ssize_t got = read(fd.get(), text.data(), text.size());
  if (got < 0) return ErrnoStatus(errno, absl::StrCat("read ", path));
  text.resize(static_cast<size_t>(got));
  const nlohmann::json file = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto wrong = [&path] {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " is no file of basin exec of this version; remove it, or give another --rendezvous folder"));
  };
  Meeting meeting;
  try {
    if (file.at("basin_exec").get<int>() != 1) return wrong();
    file.at("host").get_to(meeting.host);
    file.at("addresses").get_to(meeting.hosts);
    file.at("port").get_to(meeting.port);
    file.at("token").get_to(meeting.token);
  } catch (const nlohmann::json::exception&) {
    return wrong();
  }
  return meeting;
}

std::string MeetingProof(const std::string& token, absl::string_view side, const std::string& own_nonce,
                         const std::string& other_nonce) {
  // The token may be longer than a key.
  unsigned char key[crypto_generichash_KEYBYTES], proof[crypto_generichash_BYTES];
  crypto_generichash(key, sizeof key, reinterpret_cast<const unsigned char*>(token.data()), token.size(), nullptr, 0);
  const std::string said = absl::StrCat("basin exec, ", side, ", ", own_nonce, ", ", other_nonce);
  crypto_generichash(proof, sizeof proof, reinterpret_cast<const unsigned char*>(said.data()), said.size(), key,
                     sizeof key);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(proof), sizeof proof));
}

absl::StatusOr<LineConnection> CallRankZero(const Meeting& meeting, const nlohmann::json& introduction) {
  std::vector<std::string> hosts = meeting.hosts;
  if (meeting.host == HostName()) hosts.insert(hosts.begin(), "127.0.0.1");
  absl::Status last = absl::UnavailableError("rank 0 has no address");
  for (const std::string& host : hosts) {
    absl::StatusOr<LineConnection> connection = CallAt(host, meeting, introduction);
    if (connection.ok()) return connection;
    last = connection.status();
  }
  return absl::UnavailableError(last.message());
}

bool StillGathers(const Meeting& meeting) {
  return CallRankZero(meeting, {{"asks", true}, {"host", HostName()}, {"pid", getpid()}}).ok();
}

std::vector<std::string> OwnAddresses() {
  std::vector<std::string> addresses;
  ifaddrs* interfaces = nullptr;
  if (getifaddrs(&interfaces) != 0) return addresses;
  for (const ifaddrs* one = interfaces; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET) continue;
    if ((one->ifa_flags & IFF_UP) == 0 || (one->ifa_flags & IFF_LOOPBACK) != 0) continue;
    char text[INET_ADDRSTRLEN];
    const auto* const address = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
    if (inet_ntop(AF_INET, &address->sin_addr, text, sizeof text) != nullptr) addresses.emplace_back(text);
  }
  freeifaddrs(interfaces);
  return addresses;
}

}  // namespace basin
