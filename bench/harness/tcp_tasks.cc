// Limits of the network: a raw TCP stream in one direction, and round trips of small messages, with blocking calls.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "bench/harness/statistics.h"
#include "bench/harness/task.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

constexpr int kWaitSeconds = 20;  // for a peer that has gone

sockaddr_in AddressOf(const Json& spec) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  inet_pton(AF_INET, spec.value("host", "127.0.0.1").c_str(), &address.sin_addr);
  address.sin_port = htons(static_cast<uint16_t>(spec.value("port", 0)));
  return address;
}

// Before it connects or listens, as TCP wants it. `buffers` 0: the system's defaults, which grow by themselves.
absl::StatusOr<int> MakeSocket(int buffers) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return ErrnoStatus(errno, "socket");
  const timeval wait = {.tv_sec = kWaitSeconds, .tv_usec = 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
  if (buffers > 0) {
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffers, sizeof(buffers));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffers, sizeof(buffers));
  }
  return fd;
}

void SendAtOnce(int fd) {
  const int yes = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
}

absl::Status SendAll(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent < 0) return ErrnoStatus(errno, "send to the raw TCP receiver");
    data += sent;
    size -= static_cast<size_t>(sent);
  }
  return absl::OkStatus();
}

// Exactly `size` bytes; false at a proper end before the first.
absl::StatusOr<bool> ReceiveAll(int fd, char* data, size_t size) {
  for (size_t got = 0; got < size;) {
    const ssize_t read = recv(fd, data + got, size - got, 0);
    if (read < 0) return ErrnoStatus(errno, "receive raw TCP");
    if (read == 0 && got == 0) return false;
    if (read == 0) return absl::DataLossError("the raw TCP sender ended in the middle of a message");
    got += static_cast<size_t>(read);
  }
  return true;
}

// spec: "host" to listen on, "buffers", "bytes": of one read. "round" takes one connection and only receives until its
// end; "echo" sends back each message of 64 bytes.
class TcpReceiverTask final : public Task {
 public:
  ~TcpReceiverTask() override {
    if (listener_ >= 0) close(listener_);
  }

  absl::StatusOr<Json> Start(const Json& spec) override {
    data_.resize(spec.value("bytes", size_t{1} << 20));
    BASIN_ASSIGN_OR_RETURN(listener_, MakeSocket(spec.value("buffers", 0)));
    sockaddr_in address = AddressOf(spec);
    socklen_t size = sizeof(address);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 4) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      return ErrnoStatus(errno, absl::StrCat("listen on ", spec.value("host", "127.0.0.1")));
    return Json{{"port", ntohs(address.sin_port)}};
  }

  absl::StatusOr<Json> Do(const Json& command) override {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return ErrnoStatus(errno, "accept the raw TCP sender");
    absl::Cleanup close_fd = [fd] { close(fd); };
    SendAtOnce(fd);
    if (command.value("do", "") == "echo") {
      char message[64];
      while (true) {
        BASIN_ASSIGN_OR_RETURN(const bool more, ReceiveAll(fd, message, sizeof(message)));
        if (!more) return Json::object();
        BASIN_RETURN_IF_ERROR(SendAll(fd, message, sizeof(message)));
      }
    }
    uint64_t bytes = 0;
    Clock::time_point start = {};
    while (true) {
      const ssize_t read = recv(fd, data_.data(), data_.size(), 0);
      if (read < 0) return ErrnoStatus(errno, "receive a raw TCP stream");
      if (read == 0) return Json{{"bytes", bytes}, {"seconds", SecondsSince(start)}};
      if (bytes == 0) start = Clock::now();
      bytes += static_cast<uint64_t>(read);
    }
  }

 private:
  int listener_ = -1;
  std::vector<char> data_;
};

// spec: "host" and "port" of the receiver, "buffers", "bytes": of one write.
class TcpSenderTask final : public Task {
 public:
  absl::StatusOr<Json> Start(const Json& spec) override {
    spec_ = spec;
    data_.assign(spec.value("bytes", size_t{1} << 20), 'x');
    return Json::object();
  }

  absl::StatusOr<Json> Do(const Json& command) override {
    BASIN_ASSIGN_OR_RETURN(const int fd, MakeSocket(spec_.value("buffers", 0)));
    absl::Cleanup close_fd = [fd] { close(fd); };
    const sockaddr_in address = AddressOf(spec_);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
      return ErrnoStatus(errno, "connect to the raw TCP receiver");
    SendAtOnce(fd);
    const double seconds = command.value("seconds", 0.5);
    const Clock::time_point start = Clock::now();
    if (command.value("do", "") == "echo") {
      LatencySample latencies;
      char message[64] = {};
      while (SecondsSince(start) < seconds) {
        const Clock::time_point sent = Clock::now();
        BASIN_RETURN_IF_ERROR(SendAll(fd, message, sizeof(message)));
        BASIN_ASSIGN_OR_RETURN(const bool more, ReceiveAll(fd, message, sizeof(message)));
        if (!more) return absl::DataLossError("the raw TCP receiver ended before it answered");
        latencies.Add(SecondsSince(sent) * 1e6);
      }
      return Json{{"p50_us", Percentile(latencies.values(), 0.5)}, {"p99_us", Percentile(latencies.values(), 0.99)}};
    }
    while (SecondsSince(start) < seconds) BASIN_RETURN_IF_ERROR(SendAll(fd, data_.data(), data_.size()));
    return Json::object();
  }

 private:
  Json spec_;
  std::vector<char> data_;
};

}  // namespace

std::unique_ptr<Task> MakeTcpReceiverTask() { return std::make_unique<TcpReceiverTask>(); }
std::unique_ptr<Task> MakeTcpSenderTask() { return std::make_unique<TcpSenderTask>(); }

}  // namespace basin::bench
