// What shared memory and foreign peers can do to the transports of a host, beyond the common suite; in one process.
#include "common/wire/shm_transport.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/wire/host_transport.h"
#include "common/wire/registered_memory.h"
#include "common/wire/resolve.h"
#include "common/wire/shm_layout.h"
#include "common/wire/shm_ring.h"
#include "common/wire/shm_socket.h"
#include "common/wire/spin.h"
#include "tests/wire/loopback_socket.h"
#include "tests/wire/transport_twins.h"

namespace basin::wire {
namespace {

BindAddress Loopback() { return {.ip = "127.0.0.1", .port = 0, .host = "127.0.0.1"}; }

// Receives until `condition`.
void Serve(Listener& listener, const std::function<bool()>& condition) {
  const absl::Time deadline = Patience();
  while (!condition() && absl::Now() < deadline) listener.Receive(absl::Now() + absl::Milliseconds(1));
  EXPECT_TRUE(condition());
}

// ---- Registered memory ----

class Registered {
 public:
  explicit Registered(size_t bytes) : bytes_(bytes), data_(static_cast<char*>(AllocateRegistered(bytes))) {}
  ~Registered() { DeallocateRegistered(data_); }
  char* data() const { return data_; }
  // A message whose second frame is all of it; `lent` lives as long as the transport needs it.
  Message Lend(std::weak_ptr<const void>& lent) const {
    auto owner = std::make_shared<int>(0);
    lent = owner;
    Message message = Text("head");
    message.frames.emplace_back(data_, bytes_, std::move(owner));
    return message;
  }

 private:
  const size_t bytes_;
  char* const data_;
};

class RegisteredFrameTest : public ::testing::Test {
 protected:
  std::unique_ptr<Received> Take() {
    const absl::Time deadline = Patience();
    while (absl::Now() < deadline) {
      dialer_->Wait(absl::InfinitePast());
      if (auto received = listener_->Receive(absl::Now() + absl::Milliseconds(1))) return received;
    }
    return nullptr;
  }
  std::unique_ptr<ShmListener> listener_ = *ShmListen(Loopback(), {});
  std::unique_ptr<ShmDialer> dialer_ = MakeShmDialer({});
  std::unique_ptr<Channel> channel_ = dialer_->Dial(listener_->address());
};

TEST_F(RegisteredFrameTest, CrossesWithoutACopyAndStaysLentUntilItIsReleased) {
  Registered memory(1 << 20);
  std::memset(memory.data(), 'a', 1 << 20);
  std::weak_ptr<const void> lent;
  ASSERT_TRUE(channel_->Send(memory.Lend(lent)).ok());
  std::unique_ptr<Received> received = Take();
  ASSERT_NE(received, nullptr);
  ASSERT_EQ(received->message.frames[1].size(), size_t{1} << 20);
  EXPECT_EQ(received->message.frames[1].data()[12'345], 'a');
  // The same memory: what is written here shows there.
  memory.data()[12'345] = 'b';
  EXPECT_EQ(received->message.frames[1].data()[12'345], 'b');
  dialer_->Wait(absl::InfinitePast());
  EXPECT_FALSE(lent.expired());
  received.reset();
  const absl::Time deadline = Patience();
  while (!lent.expired() && absl::Now() < deadline) dialer_->Wait(absl::Now() + absl::Milliseconds(1));
  EXPECT_TRUE(lent.expired());
}

TEST_F(RegisteredFrameTest, IsGivenBackByTheTimeItsAnswerIsReceived) {
  Registered memory(1 << 20);
  std::weak_ptr<const void> lent;
  ASSERT_TRUE(channel_->Send(memory.Lend(lent)).ok());
  std::unique_ptr<Received> received = Take();
  ASSERT_NE(received, nullptr);
  const PeerId peer = received->peer;
  received.reset();
  ASSERT_TRUE(listener_->Send(peer, Text("done")).ok());
  EXPECT_EQ(NextText(*dialer_, *channel_), "done");
  EXPECT_TRUE(lent.expired());
}

TEST_F(RegisteredFrameTest, OfAClientThatHasLeftIsNotReceived) {
  Registered memory(1 << 20);
  std::weak_ptr<const void> lent;
  ASSERT_TRUE(channel_->Send(Text("hello")).ok());
  ASSERT_NE(Take(), nullptr);
  ASSERT_TRUE(channel_->Send(Text("copied")).ok());
  ASSERT_TRUE(channel_->Send(memory.Lend(lent)).ok());
  channel_.reset();
  EXPECT_TRUE(lent.expired());
  // The lane looks at its sockets only now and then while there are messages; this one is past such a look.
  std::unique_ptr<Received> received = listener_->Receive(Patience());
  ASSERT_NE(received, nullptr);
  EXPECT_EQ(received->message.frames[0].view(), "copied");
  Serve(*listener_, [&] { return listener_->counters().connections == 0; });
}

TEST_F(RegisteredFrameTest, SegmentsPastTheLimitAreCopied) {
  // Each as large as an arena, so that each has a segment of its own.
  std::vector<std::unique_ptr<Registered>> memories;
  for (size_t i = 0; i < kMaxSegments + 3; ++i) memories.push_back(std::make_unique<Registered>(size_t{256} << 20));
  for (size_t i = 0; i < memories.size(); ++i) {
    memories[i]->data()[5] = static_cast<char>('a' + i % 26);
    Message message = Text("head");
    message.frames.emplace_back(memories[i]->data(), 8192, std::make_shared<int>(0));
    ASSERT_TRUE(channel_->Send(std::move(message)).ok());
    const std::unique_ptr<Received> received = Take();
    ASSERT_NE(received, nullptr) << i;
    EXPECT_EQ(received->message.frames[1].data()[5], 'a' + i % 26);
    memories[i]->data()[5] = '!';
    EXPECT_EQ(received->message.frames[1].data()[5] == '!', i < kMaxSegments) << i;
  }
}

// ---- Peers that break the rules of the handshake and of segments ----

class ForeignPeerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto fd = ConnectShm("127.0.0.1", SplitHostPort(listener_->address())->port);
    ASSERT_TRUE(fd.ok()) << fd.status();
    socket_ = std::make_unique<ShmSocket>(*std::move(fd));
    Serve(*listener_, [&] { return listener_->counters().connections == 1; });
    ShmPacket packet;
    UniqueFd memory;
    ASSERT_EQ(socket_->Receive(packet, memory), ShmSocket::Got::kPacket);
    ASSERT_EQ(packet.kind, ShmPacket::kWelcome);
    memory_ = *ShmMemory::Map(std::move(memory), packet.value, ShmMemory::Access::kReadWrite);
  }
  void ExpectCut() {
    Serve(*listener_, [&] { return listener_->counters().connections == 0; });
    EXPECT_EQ(listener_->counters().dropped_messages, 1u);
  }
  std::unique_ptr<ShmListener> listener_ = *ShmListen(Loopback(), {});
  std::unique_ptr<ShmSocket> socket_;
  std::unique_ptr<ShmMemory> memory_;
};

TEST_F(ForeignPeerTest, ItsMemoryCannotBeMadeSmaller) {
  auto fd = ConnectShm("127.0.0.1", SplitHostPort(listener_->address())->port);
  ASSERT_TRUE(fd.ok()) << fd.status();
  ShmSocket socket(*std::move(fd));
  Serve(*listener_, [&] { return listener_->counters().connections == 2; });
  ShmPacket packet;
  UniqueFd memory;
  ASSERT_EQ(socket.Receive(packet, memory), ShmSocket::Got::kPacket);
  EXPECT_NE(ftruncate(memory.get(), 0), 0);
  EXPECT_NE(ftruncate(memory.get(), static_cast<off_t>(2 * kShmChannelBytes)), 0);
}

TEST_F(ForeignPeerTest, ASegmentThatIsNotSealedCutsIt) {
  const UniqueFd unsealed(memfd_create("basin-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), 1 << 20), 0);
  ASSERT_TRUE(socket_->Send({.kind = ShmPacket::kSegment, .number = 0, .value = 1 << 20}, unsealed.get()));
  ExpectCut();
}

TEST_F(ForeignPeerTest, ASegmentWithoutMemoryCutsIt) {
  ASSERT_TRUE(socket_->Send({.kind = ShmPacket::kSegment, .number = 0, .value = 1 << 20}));
  ExpectCut();
}

TEST_F(ForeignPeerTest, ASegmentOfAnotherSizeThanToldCutsIt) {
  const auto memory = *ShmMemory::Make("basin-test", 1 << 20);
  ASSERT_TRUE(socket_->Send({.kind = ShmPacket::kSegment, .number = 0, .value = 2 << 20}, memory->fd()));
  ExpectCut();
}

TEST_F(ForeignPeerTest, ASegmentOutOfTurnCutsIt) {
  const auto memory = *ShmMemory::Make("basin-test", 1 << 20);
  ASSERT_TRUE(socket_->Send({.kind = ShmPacket::kSegment, .number = 1, .value = 1 << 20}, memory->fd()));
  ExpectCut();
}

TEST_F(ForeignPeerTest, MoreAddressSpaceThanAPeerMayTakeCutsIt) {
  ASSERT_TRUE(socket_->Send({.kind = ShmPacket::kSegment, .number = 0, .value = kMaxSegmentBytes + 1}));
  ExpectCut();
}

TEST_F(ForeignPeerTest, APacketThatNoClientSendsCutsIt) {
  ASSERT_TRUE(socket_->Send({.kind = ShmPacket::kWelcome}));
  ExpectCut();
}

TEST_F(ForeignPeerTest, AMessageThatNamesAMissingSegmentCutsIt) {
  RingWriter writer(memory_->data());
  Message message = Text("head");
  message.frames.push_back(Frame::Copy(std::string(8192, 'x')));
  ASSERT_TRUE(writer.Write(message, std::vector<SegmentPlace>{{}, {.segment = 0, .offset = 0}}));
  ExpectCut();
}

TEST_F(ForeignPeerTest, AnAnswerGivenBackTwiceCutsIt) {
  RingWriter writer(memory_->data());
  ASSERT_TRUE(writer.Write(Text("hello"), {}));
  socket_->Wake();
  std::unique_ptr<Received> received = listener_->Receive(Patience());
  ASSERT_NE(received, nullptr);
  ASSERT_TRUE(listener_->Send(received->peer, Text("answer")).ok());
  reinterpret_cast<RingControl*>(memory_->data() + kRingBytes)->completed = 2;
  const absl::Time deadline = Patience();
  while (listener_->counters().connections != 0 && absl::Now() < deadline) {
    socket_->Wake();
    listener_->Receive(absl::Now() + absl::Milliseconds(1));
  }
  EXPECT_EQ(listener_->counters().dropped_messages, 1u);
}

// ---- A host's transport: shared memory and TCP together ----

class HostTransportTest : public ::testing::Test {
 protected:
  // As an agent hands a port over: open, and listened on.
  static BindAddress WithOpenSocket() {
    BindAddress address = Loopback();
    address.listening_fd = ListeningSocket(&address.port);  // the listener's to close
    return address;
  }
  void Listen(TransportKind kind, const BindAddress& address = Loopback()) {
    auto listener = HostListen(address, kind, {}, context_);
    ASSERT_TRUE(listener.ok()) << listener.status();
    EXPECT_EQ((*listener)->note(), "");
    listener_ = listener->get();
    echo_ = std::make_unique<Echo>(*std::move(listener));
  }
  std::unique_ptr<Dialer> MakeDialer(TransportKind kind) {
    return MakeHostDialer({.kind = kind, .tell = [this](const std::string& line) { lines_.push_back(line); }},
                          context_);
  }
  // What comes back for "hello".
  std::string Ask(Dialer& dialer, Channel& channel) {
    const absl::Status sent = channel.Send(Text("hello"));
    return sent.ok() ? NextText(dialer, channel) : std::string(sent.message());
  }
  std::shared_ptr<ZmqContext> context_ = MakeZmqContext(1);
  HostListener* listener_ = nullptr;
  std::unique_ptr<Echo> echo_;
  std::vector<std::string> lines_;
};

TEST_F(HostTransportTest, AClientOfThisHostUsesSharedMemory) {
  Listen(TransportKind::kAuto);
  for (const TransportKind kind : {TransportKind::kAuto, TransportKind::kShm}) {
    auto dialer = MakeDialer(kind);
    auto channel = dialer->Dial(echo_->address());
    EXPECT_EQ(Ask(*dialer, *channel), "hello");
  }
  EXPECT_EQ(listener_->counts().tcp_connections, 0u);
  EXPECT_EQ(listener_->counts().shm_bytes_in, 10u);
  EXPECT_EQ(listener_->counts().shm_bytes_out, 10u);
  EXPECT_TRUE(lines_.empty());
}

TEST_F(HostTransportTest, BothKindsOfClientsAreServedAtOnce) {
  Listen(TransportKind::kAuto);
  auto over_tcp = MakeDialer(TransportKind::kTcp), over_shm = MakeDialer(TransportKind::kShm);
  auto tcp = over_tcp->Dial(echo_->address()), shm = over_shm->Dial(echo_->address());
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(tcp->Send(Text(absl::StrCat("tcp ", i))).ok());
    ASSERT_TRUE(shm->Send(Text(absl::StrCat("shm ", i))).ok());
  }
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(NextText(*over_tcp, *tcp), absl::StrCat("tcp ", i));
    EXPECT_EQ(NextText(*over_shm, *shm), absl::StrCat("shm ", i));
  }
  EXPECT_EQ(listener_->counts().tcp_connections, 1u);
  EXPECT_EQ(listener_->counts().shm_connections, 1u);
}

TEST_F(HostTransportTest, WhereSharedMemoryIsNotOfferedTcpIsUsedAndSaidOnce) {
  Listen(TransportKind::kTcp);
  auto dialer = MakeDialer(TransportKind::kAuto);
  for (int i = 0; i < 3; ++i) {
    auto channel = dialer->Dial(echo_->address());
    EXPECT_EQ(Ask(*dialer, *channel), "hello");
  }
  EXPECT_EQ(lines_, std::vector<std::string>{
                        absl::StrCat(echo_->address(), " is on this host and offers no shared memory: using TCP")});
}

TEST_F(HostTransportTest, NobodyListeningIsARefusedConnectionWithoutALine) {
  uint16_t port = 0;
  const int reserved = BoundSocket(&port);
  const std::string address = absl::StrCat("127.0.0.1:", port);
  auto dialer = MakeDialer(TransportKind::kAuto);
  auto channel = dialer->Dial(address);
  EXPECT_EQ(NextText(*dialer, *channel), absl::StrCat(address, ": connection refused"));
  EXPECT_TRUE(lines_.empty());
  close(reserved);
}

TEST_F(HostTransportTest, SharedMemoryAloneIsAnErrorWhereItCannotBeHad) {
  Listen(TransportKind::kTcp);
  auto dialer = MakeDialer(TransportKind::kShm);
  auto channel = dialer->Dial(echo_->address());
  const auto got = Next(*dialer, *channel);
  EXPECT_EQ(got.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(got.status().message(), "no shared memory: connection refused")) << got.status();
  // TEST-NET-1: of no host.
  auto elsewhere = dialer->Dial("192.0.2.1:2222");
  EXPECT_TRUE(absl::StrContains(NextText(*dialer, *elsewhere), "192.0.2.1:2222: no address of this host"));
  EXPECT_EQ(HostListen(Loopback(), TransportKind::kShm, {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(TransportKindFromName("udp").status().message(), "transport \"udp\": expected auto, tcp or shm");
}

TEST_F(HostTransportTest, AListenerWhoseNameIsTakenWorksOverTcp) {
  // Somebody else has the name that the next listener needs; the port itself is this test's all the time.
  const BindAddress address = WithOpenSocket();
  auto squatter = ListenShm("127.0.0.1", address.port);
  ASSERT_TRUE(squatter.ok()) << squatter.status();
  auto listener = HostListen(address, TransportKind::kAuto, {}, context_);
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_TRUE(absl::StrContains((*listener)->note(), "Address already in use: clients on this host use TCP"))
      << (*listener)->note();
}

// A worker that is started before its server's program has come so far.
TEST_F(HostTransportTest, AClientThatComesBeforeTheListenerGoesOverToSharedMemory) {
  const BindAddress address = WithOpenSocket();
  auto dialer = MakeDialer(TransportKind::kAuto);
  auto channel = dialer->Dial(absl::StrCat("127.0.0.1:", address.port));
  ASSERT_TRUE(channel->Send(Text("hello")).ok());
  dialer->Wait(absl::Now());
  EXPECT_EQ(*channel->Receive(), nullptr);
  Listen(TransportKind::kAuto, address);
  EXPECT_EQ(NextText(*dialer, *channel), "hello");
  EXPECT_EQ(Ask(*dialer, *channel), "hello");
  EXPECT_EQ(listener_->counts().shm_connections, 1u);
  EXPECT_EQ(listener_->counts().shm_bytes_in, 10u);
  EXPECT_TRUE(lines_.empty());
}

TEST_F(HostTransportTest, AClientThatHasSentMoreThanOneMessageByThenKeepsItsConnection) {
  const BindAddress address = WithOpenSocket();
  auto dialer = MakeDialer(TransportKind::kAuto);
  auto channel = dialer->Dial(absl::StrCat("127.0.0.1:", address.port));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(channel->Send(Text(absl::StrCat(i))).ok());
  Listen(TransportKind::kAuto, address);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(NextText(*dialer, *channel), absl::StrCat(i));
  EXPECT_EQ(listener_->counts().shm_connections, 0u);
}

TEST_F(HostTransportTest, WhatWasSentBeforeTheFallBackArrivesInOrder) {
  Listen(TransportKind::kTcp);
  auto dialer = MakeDialer(TransportKind::kAuto);
  auto channel = dialer->Dial(echo_->address());
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(channel->Send(Text(absl::StrCat(i))).ok());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(NextText(*dialer, *channel), absl::StrCat(i));
}

// ---- Spinning ----

TEST(SpinBudgetTest, OnlyTheFirstWaitAfterAMessageSpins) {
  SpinBudget budget(absl::Microseconds(50), 2);
  EXPECT_EQ(budget.Allowed(0), 0);
  budget.OnTraffic();
  EXPECT_EQ(budget.Allowed(0), 50'000);
  EXPECT_EQ(budget.Allowed(0), 0);
}

TEST(SpinBudgetTest, NeverOnOneCoreOrWithoutLeave) {
  SpinBudget one_core(absl::Microseconds(50), 1), no_leave(absl::ZeroDuration(), 8);
  one_core.OnTraffic();
  no_leave.OnTraffic();
  EXPECT_EQ(one_core.Allowed(0), 0);
  EXPECT_EQ(no_leave.Allowed(0), 0);
}

TEST(SpinBudgetTest, WhatIsSpentInVainStaysBelowATwentiethOfTheTime) {
  SpinBudget budget(absl::Microseconds(50), 2);
  int64_t now = 0, spent = 0;
  constexpr int64_t kSecond = 1'000'000'000;
  while (now < 10 * kSecond) {
    budget.OnTraffic();
    const int64_t allowed = budget.Allowed(now);
    budget.OnVain(allowed);
    spent += allowed;
    now += allowed + 100'000;  // the next message comes long after
  }
  EXPECT_LE(spent, 10 * kSecond / 20 + 2'000'000);
  EXPECT_GE(spent, 10 * kSecond / 25);
}

}  // namespace
}  // namespace basin::wire
