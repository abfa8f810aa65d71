// RAII over libzmq's context, sockets and monitors. After a fork the child owns none of them: destructors there do
// nothing (libzmq's threads do not exist in the child, and closing would hang or harm the parent's connections).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace basin::wire {

class ZmqContext final {
 public:
  explicit ZmqContext(int io_threads);
  // Waits for the sockets' linger, which is always finite here.
  ~ZmqContext();
  ZmqContext(const ZmqContext&) = delete;
  ZmqContext& operator=(const ZmqContext&) = delete;
  void* handle() const { return handle_; }

 private:
  void* const handle_;
  const pid_t owner_;
};

class ZmqSocket final {
 public:
  ZmqSocket() = default;
  // UNAVAILABLE names the limit that was hit (sockets, descriptors).
  static absl::StatusOr<ZmqSocket> Open(std::shared_ptr<ZmqContext> context, int type);
  ~ZmqSocket() { Close(); }
  ZmqSocket(ZmqSocket&& other) noexcept;
  ZmqSocket& operator=(ZmqSocket&& other) noexcept;

  void* handle() const { return handle_; }
  const std::shared_ptr<ZmqContext>& context() const { return context_; }
  void Set(int option, int value);
  void Set(int option, int64_t value);
  void Close();

 private:
  std::shared_ptr<ZmqContext> context_;
  void* handle_ = nullptr;
  pid_t owner_ = 0;
};

// What both ends of a TCP connection set: bounds, heartbeats, buffers.
void SetConnectionOptions(ZmqSocket& socket);

struct MonitorEvent {
  uint16_t event = 0;  // ZMQ_EVENT_*
  uint32_t value = 0;  // a descriptor or an errno, by event
};

// What happens to a socket's connections. Outlives the socket that it watches or is closed before it.
class ZmqMonitor final {
 public:
  ZmqMonitor() = default;
  static absl::StatusOr<ZmqMonitor> Attach(const ZmqSocket& watched, int events);
  void* handle() const { return pair_.handle(); }
  // The next event, in order; nothing when there is none yet.
  std::optional<MonitorEvent> Next();
  void Close() { pair_.Close(); }

 private:
  ZmqSocket pair_;
};

// For zmq_poll: rounded up, -1 for an infinite deadline, at most an hour (callers loop).
long PollMilliseconds(absl::Time deadline);

}  // namespace basin::wire
