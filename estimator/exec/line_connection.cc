#include "estimator/exec/line_connection.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr absl::Duration kMostSend = absl::Seconds(5);
constexpr int kBacklog = 1024;

// Whether the socket becomes ready before `end`.
bool WaitFor(int fd, short events, absl::Time end) {
  while (true) {
    const int64_t left = absl::ToInt64Milliseconds(end - absl::Now()) + 1;
    if (left <= 0) return false;
    pollfd wait = {fd, events, 0};
    const int ready = poll(&wait, 1, static_cast<int>(left));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

// Peers that are gone without a word are found by the kernel: half a minute without an answer closes the connection, be
// it to its probes or to what was sent, which would otherwise be sent again for a quarter of an hour.
void KeepAlive(int fd) {
  const int yes = 1, idle = 10, every = 5, probes = 4;
  const unsigned unanswered_ms = 30'000;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered_ms, sizeof unanswered_ms);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

std::string AddressOf(int fd, int (*ask)(int, sockaddr*, socklen_t*)) {
  sockaddr_in address = {};
  socklen_t size = sizeof address;
  char text[INET_ADDRSTRLEN] = "";
  if (ask(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "";
  return inet_ntop(AF_INET, &address.sin_addr, text, sizeof text) == nullptr ? "" : text;
}

}  // namespace

LineConnection::LineConnection(UniqueFd fd) : fd_(std::move(fd)) {
  fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
  KeepAlive(fd_.get());
}

void LineConnection::Send(const nlohmann::json& line) {
  const std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  const absl::Time end = absl::Now() + kMostSend;
  for (size_t sent = 0; open() && sent < text.size();) {
    const ssize_t wrote = send(fd_.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (wrote > 0) {
      sent += static_cast<size_t>(wrote);
    } else if (errno == EINTR) {
      continue;
    } else if (errno != EAGAIN || !WaitFor(fd_.get(), POLLOUT, end)) {
      Close();
    }
  }
}

std::vector<nlohmann::json> LineConnection::Read() {
  std::vector<nlohmann::json> lines = std::move(ahead_);
  ahead_.clear();
  for (size_t total = 0; open() && total < kMostReadBytes;) {
    char bytes[16384];
    const ssize_t got = read(fd_.get(), bytes, sizeof bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return lines;
    if (got <= 0) {
      Close();
      return lines;
    }
    total += static_cast<size_t>(got);
    partial_.append(bytes, static_cast<size_t>(got));
    for (size_t end; (end = partial_.find('\n')) != std::string::npos; partial_.erase(0, end + 1)) {
      nlohmann::json line = nlohmann::json::parse(partial_.begin(), partial_.begin() + static_cast<ptrdiff_t>(end),
                                                  nullptr, /*allow_exceptions=*/false);
      if (!line.is_object()) {
        Close();
        return lines;
      }
      lines.push_back(std::move(line));
    }
    if (partial_.size() > kMostLineBytes) Close();
  }
  return lines;
}

absl::StatusOr<nlohmann::json> LineConnection::Next(absl::Duration limit) {
  const absl::Time end = absl::Now() + limit;
  while (true) {
    std::vector<nlohmann::json> lines = Read();
    if (!lines.empty()) {
      ahead_.assign(std::make_move_iterator(lines.begin() + 1), std::make_move_iterator(lines.end()));
      return std::move(lines.front());
    }
    if (!open()) return absl::UnavailableError("the other side closed the connection");
    if (!WaitFor(fd_.get(), POLLIN, end)) return absl::UnavailableError("the other side says nothing");
  }
}

absl::StatusOr<Listener> ListenAnywhere() {
  Listener listener;
  listener.fd = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  socklen_t size = sizeof address;
  if (listener.fd.get() < 0 || bind(listener.fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener.fd.get(), kBacklog) != 0 ||
      getsockname(listener.fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return ErrnoStatus(errno, "listen for the other ranks");
  }
  listener.port = ntohs(address.sin_port);
  return listener;
}

absl::StatusOr<LineConnection> ConnectTo(const std::string& ip, uint16_t port, absl::Duration limit) {
  const std::string where = absl::StrCat("connect to ", ip, ":", port);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (inet_pton(AF_INET, ip.c_str(), &address.sin_addr) != 1) return absl::InvalidArgumentError(where);
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return ErrnoStatus(errno, where);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    int error = errno;
    socklen_t size = sizeof error;
    if (error == EINPROGRESS) {
      if (!WaitFor(fd.get(), POLLOUT, absl::Now() + limit))
        return absl::UnavailableError(absl::StrCat(where, ": silence"));
      if (getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    }
    if (error != 0) return ErrnoStatus(error, where);
  }
  return LineConnection(std::move(fd));
}

std::string PeerAddress(int fd) { return AddressOf(fd, getpeername); }
std::string OwnAddress(int fd) { return AddressOf(fd, getsockname); }

}  // namespace basin
