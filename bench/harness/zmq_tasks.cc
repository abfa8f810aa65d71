// Limits of ZeroMQ: a stream from a DEALER to a ROUTER that only receives, and round trips between them.
#include <zmq.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "bench/harness/statistics.h"
#include "bench/harness/task.h"
#include "common/base/status_macros.h"
#include "common/wire/memory_mapping.h"

namespace basin::bench {
namespace {

constexpr int kWaitMs = 20000;            // for a peer that has gone
constexpr int kBytesInFlight = 16 << 20;  // each side's queue; more only fills memory
constexpr int kMostMessages = 4096;

absl::Status ZmqStatus(absl::string_view what) {
  return absl::UnavailableError(absl::StrCat("ZeroMQ, ", what, ": ", zmq_strerror(zmq_errno())));
}

// Each side's context, socket and options.
class ZmqTask : public Task {
 public:
  ~ZmqTask() override {
    if (socket_ != nullptr) zmq_close(socket_);
    if (context_ != nullptr) zmq_ctx_term(context_);
  }

 protected:
  absl::Status Open(int type, const Json& spec) {
    wire::KeepMemoryMapped();  // without it each message of a megabyte costs fresh pages, and the limit would be low
    bytes_ = spec.value("bytes", size_t{1} << 20);
    context_ = zmq_ctx_new();
    socket_ = context_ == nullptr ? nullptr : zmq_socket(context_, type);
    if (socket_ == nullptr) return ZmqStatus("open a socket");
    const int messages = std::clamp(static_cast<int>(kBytesInFlight / std::max<size_t>(1, bytes_)), 4, kMostMessages);
    Set(ZMQ_SNDHWM, messages);
    Set(ZMQ_RCVHWM, messages);
    Set(ZMQ_LINGER, 0);
    Set(ZMQ_RCVTIMEO, kWaitMs);
    Set(ZMQ_SNDTIMEO, kWaitMs);
    if (const int buffers = spec.value("buffers", 0); buffers > 0) {
      Set(ZMQ_SNDBUF, buffers);
      Set(ZMQ_RCVBUF, buffers);
    }
    return absl::OkStatus();
  }
  void Set(int option, int value) { zmq_setsockopt(socket_, option, &value, sizeof(value)); }

  void* context_ = nullptr;
  void* socket_ = nullptr;
  size_t bytes_ = 0;
};

// spec: "host", "bytes", "buffers". "round" receives until an empty message; "echo" sends each message back until then.
class ZmqRouterTask final : public ZmqTask {
 public:
  absl::StatusOr<Json> Start(const Json& spec) override {
    BASIN_RETURN_IF_ERROR(Open(ZMQ_ROUTER, spec));
    const std::string address = absl::StrCat("tcp://", spec.value("host", "127.0.0.1"), ":*");
    if (zmq_bind(socket_, address.c_str()) != 0) return ZmqStatus(absl::StrCat("bind ", address));
    char bound[256] = "";
    size_t size = sizeof(bound);
    zmq_getsockopt(socket_, ZMQ_LAST_ENDPOINT, bound, &size);
    return Json{{"endpoint", bound}};
  }

  absl::StatusOr<Json> Do(const Json& command) override {
    const bool echo = command.value("do", "") == "echo";
    zmq_msg_t who, message;
    zmq_msg_init(&who);
    zmq_msg_init(&message);
    absl::Cleanup close_messages = [&] {
      zmq_msg_close(&who);
      zmq_msg_close(&message);
    };
    uint64_t bytes = 0;
    Clock::time_point start = {};
    while (true) {
      if (zmq_msg_recv(&who, socket_, 0) < 0 || zmq_msg_recv(&message, socket_, 0) < 0) return ZmqStatus("receive");
      if (zmq_msg_size(&message) == 0) break;
      if (bytes == 0) start = Clock::now();
      bytes += zmq_msg_size(&message);
      if (echo && (zmq_msg_send(&who, socket_, ZMQ_SNDMORE) < 0 || zmq_msg_send(&message, socket_, 0) < 0))
        return ZmqStatus("send back");
    }
    return Json{{"bytes", bytes}, {"seconds", SecondsSince(start)}};
  }
};

// spec: "endpoint", "bytes", "buffers".
class ZmqDealerTask final : public ZmqTask {
 public:
  absl::StatusOr<Json> Start(const Json& spec) override {
    BASIN_RETURN_IF_ERROR(Open(ZMQ_DEALER, spec));
    data_.assign(bytes_, 'x');
    const std::string endpoint = spec.value("endpoint", "");
    if (zmq_connect(socket_, endpoint.c_str()) != 0) return ZmqStatus(absl::StrCat("connect to ", endpoint));
    return Json::object();
  }

  absl::StatusOr<Json> Do(const Json& command) override {
    const bool echo = command.value("do", "") == "echo";
    const double seconds = command.value("seconds", 0.5);
    LatencySample latencies;
    std::vector<char> answer(data_.size());
    const Clock::time_point start = Clock::now();
    while (SecondsSince(start) < seconds) {
      const Clock::time_point sent = Clock::now();
      if (!SendLent()) return ZmqStatus("send");
      if (!echo) continue;
      if (zmq_recv(socket_, answer.data(), answer.size(), 0) < 0) return ZmqStatus("receive an answer");
      latencies.Add(SecondsSince(sent) * 1e6);
    }
    if (zmq_send(socket_, nullptr, 0, 0) < 0) return ZmqStatus("send the end");
    if (!echo) return Json::object();
    return Json{{"p50_us", Percentile(latencies.values(), 0.5)}, {"p99_us", Percentile(latencies.values(), 0.99)}};
  }

 private:
  // From where it lies, without a copy: the memory outlives the socket.
  bool SendLent() {
    zmq_msg_t message;
    zmq_msg_init_data(
        &message, data_.data(), data_.size(), [](void*, void*) {}, nullptr);
    if (zmq_msg_send(&message, socket_, 0) >= 0) return true;
    zmq_msg_close(&message);
    return false;
  }

  std::vector<char> data_;
};

}  // namespace

std::unique_ptr<Task> MakeZmqRouterTask() { return std::make_unique<ZmqRouterTask>(); }
std::unique_ptr<Task> MakeZmqDealerTask() { return std::make_unique<ZmqDealerTask>(); }

}  // namespace basin::bench
