#include "common/wire/zmq_socket.h"

#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"

namespace basin::wire {
namespace {

// Measured, README.md: what is sent stays in the cache until it is copied out again, and a reader that is late does not
// stop the sender.
constexpr int kSendBufferBytes = 1 << 20;
constexpr int kReceiveBufferBytes = 4 << 20;
constexpr int kHeartbeatMs = 5'000;
// A silent peer is given up after this. The roles' own heartbeats decide who is dead; this frees the connection of a
// host that vanished.
constexpr int kHeartbeatTimeoutMs = 20'000;
constexpr int kHandshakeMs = 20'000;

absl::Status ZmqError(absl::string_view what) {
  const int error = zmq_errno();
  absl::string_view hint;
  if (error == EMFILE) hint = "; raise the limit of open files (ulimit -n)";
  return absl::UnavailableError(absl::StrCat("ZeroMQ: ", what, ": ", zmq_strerror(error), hint));
}

}  // namespace

ZmqContext::ZmqContext(int io_threads) : handle_(zmq_ctx_new()), owner_(getpid()) {
  BASIN_CHECK(handle_ != nullptr);
  zmq_ctx_set(handle_, ZMQ_IO_THREADS, std::max(1, io_threads));
  // The default of 1023 is a third of that many channels (a socket and two ends of its monitor each).
  zmq_ctx_set(handle_, ZMQ_MAX_SOCKETS, std::min(zmq_ctx_get(handle_, ZMQ_SOCKET_LIMIT), 65'535));
}

ZmqContext::~ZmqContext() {
  if (getpid() != owner_) return;
  while (zmq_ctx_term(handle_) != 0 && zmq_errno() == EINTR) {
  }
}

absl::StatusOr<ZmqSocket> ZmqSocket::Open(std::shared_ptr<ZmqContext> context, int type) {
  ZmqSocket socket;
  socket.handle_ = zmq_socket(context->handle(), type);
  if (socket.handle_ == nullptr) return ZmqError("cannot make a socket");
  socket.context_ = std::move(context);
  socket.owner_ = getpid();
  socket.Set(ZMQ_LINGER, 0);
  return socket;
}

ZmqSocket::ZmqSocket(ZmqSocket&& other) noexcept
    : context_(std::move(other.context_)), handle_(std::exchange(other.handle_, nullptr)), owner_(other.owner_) {}

ZmqSocket& ZmqSocket::operator=(ZmqSocket&& other) noexcept {
  if (this == &other) return *this;
  Close();
  context_ = std::move(other.context_);
  handle_ = std::exchange(other.handle_, nullptr);
  owner_ = other.owner_;
  return *this;
}

void ZmqSocket::Set(int option, int value) { BASIN_CHECK(zmq_setsockopt(handle_, option, &value, sizeof value) == 0); }
void ZmqSocket::Set(int option, int64_t value) {
  BASIN_CHECK(zmq_setsockopt(handle_, option, &value, sizeof value) == 0);
}

void ZmqSocket::Close() {
  if (handle_ == nullptr) return;
  if (getpid() == owner_) zmq_close(handle_);
  context_.reset();
  handle_ = nullptr;
}

void SetConnectionOptions(ZmqSocket& socket) {
  socket.Set(ZMQ_MAXMSGSIZE, static_cast<int64_t>(kMaxFrameBytes));
  socket.Set(ZMQ_HANDSHAKE_IVL, kHandshakeMs);
  socket.Set(ZMQ_HEARTBEAT_IVL, kHeartbeatMs);
  socket.Set(ZMQ_HEARTBEAT_TIMEOUT, kHeartbeatTimeoutMs);
  socket.Set(ZMQ_HEARTBEAT_TTL, kHeartbeatTimeoutMs);
  socket.Set(ZMQ_TCP_KEEPALIVE, 1);
  socket.Set(ZMQ_SNDBUF, kSendBufferBytes);
  socket.Set(ZMQ_RCVBUF, kReceiveBufferBytes);
}

absl::StatusOr<ZmqMonitor> ZmqMonitor::Attach(const ZmqSocket& watched, int events) {
  static std::atomic<uint64_t> next{0};
  const std::string endpoint = absl::StrCat("inproc://basin-monitor-", next.fetch_add(1, std::memory_order_relaxed));
  if (zmq_socket_monitor(watched.handle(), endpoint.c_str(), events) != 0) return ZmqError("cannot watch a socket");
  ZmqMonitor monitor;
  BASIN_ASSIGN_OR_RETURN(monitor.pair_, ZmqSocket::Open(watched.context(), ZMQ_PAIR));
  // Unbounded: libzmq's I/O thread would block on a full monitor. The reader empties it before each wait.
  monitor.pair_.Set(ZMQ_RCVHWM, 0);
  if (zmq_connect(monitor.pair_.handle(), endpoint.c_str()) != 0) return ZmqError("cannot watch a socket");
  return monitor;
}

std::optional<MonitorEvent> ZmqMonitor::Next() {
  if (pair_.handle() == nullptr) return std::nullopt;
  char head[6];
  const int got = zmq_recv(pair_.handle(), head, sizeof head, ZMQ_DONTWAIT);
  if (got != static_cast<int>(sizeof head)) return std::nullopt;
  // The second frame is the endpoint; it came with the first.
  zmq_recv(pair_.handle(), nullptr, 0, 0);
  MonitorEvent event;
  std::memcpy(&event.event, head, sizeof event.event);
  std::memcpy(&event.value, head + sizeof event.event, sizeof event.value);
  return event;
}

long PollMilliseconds(absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) return -1;
  const int64_t ms = absl::ToInt64Milliseconds(absl::Ceil(deadline - absl::Now(), absl::Milliseconds(1)));
  return static_cast<long>(std::clamp<int64_t>(ms, 0, 3'600'000));
}

}  // namespace basin::wire
