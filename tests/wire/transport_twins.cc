#include "tests/wire/transport_twins.h"

#include "absl/strings/str_cat.h"
#include "common/base/unique_fd.h"
#include "common/wire/host_transport.h"
#include "common/wire/inproc_transport.h"
#include "common/wire/shm_transport.h"
#include "common/wire/zmq_transport.h"
#include "tests/wire/loopback_socket.h"

namespace basin::wire {

namespace {

class PortWithoutListener {
 public:
  std::string address() const { return absl::StrCat("localhost:", port_); }

 private:
  uint16_t port_ = 0;
  const UniqueFd fd_{BoundSocket(&port_)};
};

}  // namespace

std::unique_ptr<Twin> MakeZmqTwin() {
  class ZmqTwin final : public Twin {
   public:
    std::unique_ptr<Listener> Listen(const TransportOptions& options) override {
      return *ZmqListen({.ip = "127.0.0.1", .port = 0, .host = "localhost"}, options, context_);
    }
    std::unique_ptr<Dialer> MakeDialer(const TransportOptions& options) override {
      return MakeZmqDialer(options, context_);
    }
    std::string RefusedAddress() override { return nobody_.address(); }

   private:
    const PortWithoutListener nobody_;
    std::shared_ptr<ZmqContext> context_ = MakeZmqContext(1);
  };
  return std::make_unique<ZmqTwin>();
}

std::unique_ptr<Twin> MakeInprocTwin() {
  class InprocTwin final : public Twin {
   public:
    std::unique_ptr<Listener> Listen(const TransportOptions& options) override {
      return *network_.Listen("localhost:0", options);
    }
    std::unique_ptr<Dialer> MakeDialer(const TransportOptions& options) override {
      return network_.MakeDialer(options);
    }
    std::string RefusedAddress() override { return Listen({})->address(); }

   private:
    InprocNetwork network_;
  };
  return std::make_unique<InprocTwin>();
}

std::unique_ptr<Twin> MakeHostTwin() {
  class HostTwin final : public Twin {
   public:
    std::unique_ptr<Listener> Listen(const TransportOptions& options) override {
      return *HostListen({.ip = "127.0.0.1", .port = 0, .host = "localhost"}, TransportKind::kAuto, options, context_);
    }
    std::unique_ptr<Dialer> MakeDialer(const TransportOptions& options) override {
      return MakeHostDialer({.transport = options}, context_);
    }
    std::string RefusedAddress() override { return nobody_.address(); }

   private:
    const PortWithoutListener nobody_;
    std::shared_ptr<ZmqContext> context_ = MakeZmqContext(1);
  };
  return std::make_unique<HostTwin>();
}

std::unique_ptr<Twin> MakeShmTwin() {
  class ShmTwin final : public Twin {
   public:
    std::unique_ptr<Listener> Listen(const TransportOptions& options) override {
      return *ShmListen({.ip = "127.0.0.1", .port = 0, .host = "localhost"}, options);
    }
    std::unique_ptr<Dialer> MakeDialer(const TransportOptions& options) override { return MakeShmDialer(options); }
    std::string RefusedAddress() override { return Listen({})->address(); }
  };
  return std::make_unique<ShmTwin>();
}

}  // namespace basin::wire
