// A TCP proxy that cuts its connections after random numbers of bytes, drawn from a seed: between frames, in the middle
// of one, in a greeting. Half of the cuts are resets, half are proper ends.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cmath>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/harness/task.h"
#include "common/base/files.h"
#include "common/base/random.h"
#include "common/base/status_macros.h"
#include "common/wire/resolve.h"

namespace basin::bench {
namespace {

// Between 3 KB and 100 MB, as often in each power of ten.
constexpr double kLeastLog = 3.5, kMostLog = 8;

// Two sockets, and both directions between them; they live as long as either direction.
struct Pair {
  Pair(int c, int s) : client(c), server(s) {}
  ~Pair() {
    close(client);
    close(server);
  }
  void End(bool reset) {
    for (const int fd : {client, server}) {
      const linger now = {.l_onoff = 1, .l_linger = 0};
      if (reset) setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
      shutdown(fd, SHUT_RDWR);
    }
  }
  const int client, server;
};

// spec: "target" (host:port), "seed". Commands: "calm" ends the cutting; "counts" answers "cuts".
class ProxyTask final : public Task {
 public:
  // The process ends: its threads with it.
  ~ProxyTask() override = default;

  absl::StatusOr<Json> Start(const Json& spec) override {
    BASIN_ASSIGN_OR_RETURN(const wire::HostPort target, wire::SplitHostPort(spec.value("target", "")));
    target_.sin_family = AF_INET;
    target_.sin_port = htons(target.port);
    if (inet_pton(AF_INET, target.host.c_str(), &target_.sin_addr) != 1)
      return absl::InvalidArgumentError(absl::StrCat("the proxy needs an IPv4 address, not ", target.host));
    seed_ = spec.value("seed", uint64_t{1});
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener_ < 0 || bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        listen(listener_, SOMAXCONN) != 0 || getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      return ErrnoStatus(errno, "listen as a proxy");
    std::thread([this] { Accept(); }).detach();
    return Json{{"port", ntohs(address.sin_port)}};
  }

  absl::StatusOr<Json> Do(const Json& command) override {
    if (command.value("do", "") == "calm") cutting_ = false;
    return Json{{"cuts", cuts_.load()}};
  }

 private:
  void Accept() {
    for (uint64_t number = 0;; ++number) {
      const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) continue;
      const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      auto pair = std::make_shared<Pair>(client, server);
      if (server < 0 || connect(server, reinterpret_cast<const sockaddr*>(&target_), sizeof(target_)) != 0) continue;
      const int yes = 1;
      setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
      setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
      Random random(Mix64(seed_ + number));
      const bool reset = random.Chance(0.5);
      const auto after = [&] {
        return static_cast<uint64_t>(std::pow(10, kLeastLog + (kMostLog - kLeastLog) * random.Unit()));
      };
      const uint64_t up = after(), down = after();
      std::thread([this, pair, up, reset] { Copy(*pair, pair->client, pair->server, up, reset); }).detach();
      std::thread([this, pair, down, reset] { Copy(*pair, pair->server, pair->client, down, reset); }).detach();
    }
  }

  void Copy(Pair& pair, int from, int to, uint64_t left, bool reset) {
    std::vector<char> data(64 << 10);
    while (true) {
      const ssize_t got = recv(from, data.data(), data.size(), 0);
      if (got <= 0) break;
      auto size = static_cast<size_t>(got);
      const bool cut = cutting_ && size >= left;
      if (cut) size = left;  // in the middle of what was received
      for (size_t at = 0; at < size;) {
        const ssize_t sent = send(to, data.data() + at, size - at, MSG_NOSIGNAL);
        if (sent <= 0) return pair.End(false);
        at += static_cast<size_t>(sent);
      }
      left -= std::min<uint64_t>(left, size);
      if (!cut) continue;
      ++cuts_;
      return pair.End(reset);
    }
    pair.End(false);
  }

  sockaddr_in target_ = {};
  uint64_t seed_ = 1;
  int listener_ = -1;
  std::atomic<bool> cutting_ = true;
  std::atomic<uint64_t> cuts_ = 0;
};

}  // namespace

std::unique_ptr<Task> MakeProxyTask() { return std::make_unique<ProxyTask>(); }

}  // namespace basin::bench
