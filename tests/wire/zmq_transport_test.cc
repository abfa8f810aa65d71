// What TCP and foreign peers can do to the ZeroMQ transport beyond the common suite.
#include "common/wire/zmq_transport.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/wire/memory_mapping.h"
#include "common/wire/resolve.h"
#include "tests/wire/loopback_socket.h"
#include "tests/wire/transport_twins.h"

namespace basin::wire {
namespace {

int RawConnect(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  return fd;
}

class ZmqTransportTest : public ::testing::Test {
 protected:
  void SetUp() override { Listen({}); }
  void TearDown() override {
    if (lane_.joinable()) StopLane();
  }
  void Listen(const TransportOptions& options) {
    auto listener = ZmqListen({.ip = "127.0.0.1", .port = 0, .host = "127.0.0.1"}, options, context_);
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
    port_ = SplitHostPort(listener_->address())->port;
  }
  // Echoes until StopLane.
  void StartLane() {
    lane_ = std::thread([this] {
      while (!stop_.load()) {
        auto received = listener_->Receive(absl::InfiniteFuture());
        if (received != nullptr) listener_->Send(received->peer, std::move(received->message)).IgnoreError();
      }
    });
  }
  void StopLane() {
    stop_.store(true);
    listener_->Wake();
    lane_.join();
  }
  void ExpectGoodPeerIsServed() {
    auto channel = dialer_->Dial(listener_->address());
    ASSERT_TRUE(channel->Send(Text("good")).ok());
    EXPECT_EQ(NextText(*dialer_, *channel), "good");
  }
  template <class Condition>
  void Await(Condition condition) {
    const absl::Time deadline = Patience();
    while (!condition() && absl::Now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_TRUE(condition());
  }

  std::shared_ptr<ZmqContext> context_ = MakeZmqContext(1);
  std::unique_ptr<Dialer> dialer_ = MakeZmqDialer({}, context_);
  std::unique_ptr<ZmqListener> listener_;
  uint16_t port_ = 0;
  std::atomic<bool> stop_{false};
  std::thread lane_;
};

// A ZeroMQ client that is not ours.
class Stranger {
 public:
  Stranger(uint16_t port, const char* routing_id = nullptr) {
    const int linger = 0;
    zmq_setsockopt(socket_, ZMQ_LINGER, &linger, sizeof linger);
    const int reconnect = -1;
    zmq_setsockopt(socket_, ZMQ_RECONNECT_IVL, &reconnect, sizeof reconnect);
    if (routing_id != nullptr) zmq_setsockopt(socket_, ZMQ_ROUTING_ID, routing_id, std::strlen(routing_id));
    EXPECT_EQ(zmq_connect(socket_, absl::StrCat("tcp://127.0.0.1:", port).c_str()), 0);
  }
  ~Stranger() {
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }
  void Send(const std::string& part, bool more = false) {
    zmq_send(socket_, part.data(), part.size(), more ? ZMQ_SNDMORE : 0);
  }

 private:
  void* context_ = zmq_ctx_new();
  void* socket_ = zmq_socket(context_, ZMQ_DEALER);
};

TEST_F(ZmqTransportTest, TenThousandPartsCostTheirSenderTheMessage) {
  StartLane();
  Stranger stranger(port_);
  for (int i = 0; i < 10'000; ++i) stranger.Send("part", i + 1 < 10'000);
  Await([&] { return listener_->counters().dropped_messages == 1; });
  ExpectGoodPeerIsServed();
}

TEST_F(ZmqTransportTest, AnOversizedFrameCostsItsSenderTheConnection) {
  StartLane();
  ExpectGoodPeerIsServed();
  Stranger stranger(port_);
  stranger.Send("small");
  Await([&] { return listener_->counters().bytes_in == 4 + 5; });
  // The good peer has left: the stranger's connection is the only one.
  Await([&] { return listener_->counters().connections == 1; });
  stranger.Send(std::string(kMaxFrameBytes + 1, 'x'));
  Await([&] { return listener_->counters().connections == 0; });
  EXPECT_EQ(listener_->counters().bytes_in, 9u);
  ExpectGoodPeerIsServed();
}

TEST_F(ZmqTransportTest, APeerThatChoosesItsRoutingIdIsNotHeard) {
  StartLane();
  Stranger stranger(port_, "worker-0");
  stranger.Send("hello");
  Await([&] { return listener_->counters().dropped_messages == 1; });
  ExpectGoodPeerIsServed();
}

TEST_F(ZmqTransportTest, GarbageBytesHarmNobody) {
  StartLane();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Random random(seed);
    std::string bytes(1 + random.Below(4096), '\0');
    for (char& byte : bytes) byte = static_cast<char>(random.Below(256));
    // Half of them start as ZMTP does.
    if (seed % 2 == 0)
      bytes.replace(0, std::min<size_t>(bytes.size(), 10), std::string("\xff\0\0\0\0\0\0\0\1\x7f", 10), 0,
                    std::min<size_t>(bytes.size(), 10));
    const int fd = RawConnect(port_);
    send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    char sink[256];
    while (recv(fd, sink, sizeof sink, 0) > 0) {
    }
    close(fd);
  }
  const int fd = RawConnect(port_);
  const std::string http = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
  send(fd, http.data(), http.size(), MSG_NOSIGNAL);
  close(fd);
  ExpectGoodPeerIsServed();
  Await([&] { return listener_->counters().failed_handshakes > 0; });
}

TEST_F(ZmqTransportTest, AServerThatIsNotZeroMqIsNamed) {
  uint16_t port = 0;
  const int server = ListeningSocket(&port);
  std::thread web([&] {
    const int fd = accept(server, nullptr, nullptr);
    const std::string answer = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    char sink[256];
    while (recv(fd, sink, sizeof sink, 0) > 0) {
    }
    close(fd);
  });
  auto channel = dialer_->Dial(absl::StrCat("127.0.0.1:", port));
  const auto got = Next(*dialer_, *channel);
  EXPECT_EQ(got.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(got.status().message(), "another program")) << got.status();
  channel.reset();
  web.join();
  close(server);
}

TEST_F(ZmqTransportTest, CountersCountBytes) {
  StartLane();
  ExpectGoodPeerIsServed();
  EXPECT_EQ(listener_->counters().bytes_in, 4u);
  // Counted when the send has returned, which the peer need not wait for.
  Await([&] { return listener_->counters().bytes_out == 4; });
  Await([&] { return listener_->counters().connections == 0; });
}

TEST_F(ZmqTransportTest, ALaterAddressOfANameIsTriedToo) {
  // "localhost" often resolves to ::1 before 127.0.0.1, where the listener is.
  StartLane();
  auto channel = dialer_->Dial(absl::StrCat("localhost:", port_));
  ASSERT_TRUE(channel->Send(Text("hello")).ok());
  EXPECT_EQ(NextText(*dialer_, *channel), "hello");
}

TEST_F(ZmqTransportTest, ATakenPortNamesItsOwner) {
  const auto again = ZmqListen({.ip = "127.0.0.1", .port = port_, .host = "h1"}, {}, context_);
  ASSERT_EQ(again.status().code(), absl::StatusCode::kAlreadyExists) << again.status();
  EXPECT_TRUE(
      absl::StrContains(again.status().message(),
                        absl::StrCat("cannot bind h1:", port_, " (127.0.0.1): in use by pid ", getpid(), " (\"")))
      << again.status();
}

TEST_F(ZmqTransportTest, AListeningSocketOfSomebodyElseIsTakenOver) {
  uint16_t port = 0;
  const int fd = ListeningSocket(&port);
  // Dialled before there is a listener: the connection waits in the socket.
  auto channel = dialer_->Dial(absl::StrCat("127.0.0.1:", port));
  ASSERT_TRUE(channel->Send(Text("early")).ok());
  auto listener = ZmqListen({.ip = "127.0.0.1", .port = port, .host = "h1", .listening_fd = fd}, {}, context_);
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_EQ((*listener)->address(), absl::StrCat("h1:", port));
  listener_ = *std::move(listener);
  StartLane();
  EXPECT_EQ(NextText(*dialer_, *channel), "early");
  StopLane();
  channel.reset();
  dialer_.reset();
  listener_.reset();
  context_.reset();
  // It was the listener's to close: nobody listens any more.
  Await([&] {
    int is_listening = 0;
    socklen_t size = sizeof is_listening;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &size) != 0 || is_listening == 0;
  });
}

TEST_F(ZmqTransportTest, ADescriptorThatDoesNotListenThereIsRefused) {
  uint16_t port = 0;
  const int fd = ListeningSocket(&port);
  const auto other = ZmqListen({.ip = "127.0.0.1", .port = 1, .host = "h1", .listening_fd = fd}, {}, context_);
  EXPECT_EQ(other.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(other.status().message(), absl::StrCat("listens on port ", port))) << other.status();
  close(fd);
  const int connected = RawConnect(port_);
  for (const int wrong : {connected, 0, 999}) {
    const auto none = ZmqListen({.ip = "127.0.0.1", .port = 1, .host = "h1", .listening_fd = wrong}, {}, context_);
    EXPECT_EQ(none.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(none.status().message(), "is no listening socket")) << none.status();
  }
  close(connected);
}

TEST_F(ZmqTransportTest, AnAddressOfAnotherMachineCannotBeBound) {
  const auto listener = ZmqListen({.ip = "192.0.2.1", .port = 0, .host = "h1"}, {}, context_);
  EXPECT_EQ(listener.status().code(), absl::StatusCode::kInvalidArgument) << listener.status();
  EXPECT_TRUE(absl::StrContains(listener.status().message(), "cannot bind h1:0 (192.0.2.1)")) << listener.status();
}

TEST_F(ZmqTransportTest, TheAddressIsTheNameThatPeersDial) {
  const auto listener = ZmqListen({.ip = "127.0.0.1", .port = 0, .host = "h1"}, {}, context_);
  ASSERT_TRUE(listener.ok());
  EXPECT_TRUE(absl::StartsWith((*listener)->address(), "h1:"));
  EXPECT_FALSE(absl::EndsWith((*listener)->address(), ":0"));
}

TEST_F(ZmqTransportTest, AChildMayDestroyWhatItInheritedWithoutHarm) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer does not follow a fork of a process with threads";
#endif
  StartLane();
  auto channel = dialer_->Dial(listener_->address());
  ASSERT_TRUE(channel->Send(Text("one")).ok());
  EXPECT_EQ(NextText(*dialer_, *channel), "one");
  const pid_t child = fork();
  if (child == 0) {
    channel.reset();
    dialer_.reset();
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  ASSERT_TRUE(channel->Send(Text("two")).ok());
  EXPECT_EQ(NextText(*dialer_, *channel), "two");
}

TEST(MemoryMappingTest, AdviceIsHarmless) {
  KeepMemoryMapped();
  const std::string large(64 << 20, 'x');
  EXPECT_EQ(large.back(), 'x');
}

}  // namespace
}  // namespace basin::wire
