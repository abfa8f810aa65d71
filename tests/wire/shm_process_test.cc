// Shared memory between processes: peers that are killed, that write anything, of another user, of another network.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "common/wire/host_transport.h"
#include "common/wire/registered_memory.h"
#include "common/wire/resolve.h"
#include "common/wire/shm_layout.h"
#include "common/wire/shm_ring.h"
#include "common/wire/shm_socket.h"
#include "common/wire/shm_transport.h"
#include "tests/wire/transport_twins.h"

namespace basin::wire {
namespace {

constexpr int kSkip = 77;
constexpr uid_t kNobody = 65534;

BindAddress Loopback() { return {.ip = "127.0.0.1", .port = 0, .host = "127.0.0.1"}; }

// A child process that runs `work` and ends with what it returns; killed with the object.
class Child {
 public:
  explicit Child(const std::function<int()>& work) : pid_(fork()) {
    if (pid_ == 0) _exit(work());
  }
  ~Child() {
    if (!ended_) Kill();
  }
  pid_t pid() const { return pid_; }
  void Kill() {
    kill(pid_, SIGKILL);
    Wait();
  }
  // The exit code, -1 for a signal.
  int Wait() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    ended_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  bool Ended() {
    if (ended_) return true;
    siginfo_t info = {};
    return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_;
  }

 private:
  const pid_t pid_;
  bool ended_ = false;
};

// What this process maps of memfds whose name has this prefix.
int Mapped(absl::string_view prefix) {
  std::FILE* file = std::fopen("/proc/self/maps", "r");
  char line[4096];
  int count = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    count += absl::StrContains(line, absl::StrCat("/memfd:", prefix)) ? 1 : 0;
  }
  std::fclose(file);
  return count;
}

// Other programs have files there too, which come and go beside this test: those of Open MPI's ranks, say.
std::set<std::string> FilesOfSharedMemory() {
  std::set<std::string> names;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", ignored)) {
    if (absl::StrContains(entry.path().string(), "basin") && !entry.is_directory(ignored)) names.insert(entry.path());
  }
  return names;
}

// A client that sends "hello" and gets it back `times` times. The exit code of a child.
int PingPong(const std::string& address, int times) {
  auto dialer = MakeShmDialer({});
  auto channel = dialer->Dial(address);
  for (int i = 0; i < times; ++i) {
    if (!channel->Send(Text(absl::StrCat("hello ", i))).ok()) return 1;
    if (NextText(*dialer, *channel) != absl::StrCat("hello ", i)) return 2;
  }
  return 0;
}

class ShmProcessTest : public ::testing::Test {
 protected:
  // Echoes until `condition`.
  void Serve(Listener& listener, const std::function<bool()>& condition) {
    const absl::Time deadline = Patience();
    while (!condition() && absl::Now() < deadline) {
      if (auto received = listener.Receive(absl::Now() + absl::Milliseconds(1))) {
        listener.Send(received->peer, std::move(received->message)).IgnoreError();
      }
    }
    EXPECT_TRUE(condition());
  }
  const std::set<std::string> before_ = FilesOfSharedMemory();
};

TEST_F(ShmProcessTest, AClientKilledInTheMiddleLeavesNothingBehind) {
  auto listener = *ShmListen(Loopback(), {});
  Child client([address = listener->address()] {
    constexpr size_t kBytes = 1 << 20;
    auto* memory = static_cast<char*>(AllocateRegistered(kBytes));
    std::memset(memory, 'r', kBytes);
    auto dialer = MakeShmDialer({});
    auto channel = dialer->Dial(address);
    while (true) {
      Message message = Text("head");
      message.frames.emplace_back(memory, kBytes, std::make_shared<int>(0));
      message.frames.push_back(Frame::Copy(std::string(kBytes, 'c')));
      channel->Send(std::move(message)).IgnoreError();
      dialer->Wait(absl::InfinitePast());
    }
    return 0;
  });
  std::vector<std::unique_ptr<Received>> held;
  for (int i = 0; i < 100; ++i) {
    auto received = listener->Receive(Patience());
    ASSERT_NE(received, nullptr);
    if (i >= 98) held.push_back(std::move(received));
  }
  client.Kill();
  Serve(*listener, [&] { return listener->counters().connections == 0; });
  EXPECT_EQ(listener->counters().dropped_messages, 0u);
  for (const auto& received : held) {
    EXPECT_EQ(received->message.frames[1].view(), std::string(1 << 20, 'r'));
    EXPECT_EQ(received->message.frames[2].view(), std::string(1 << 20, 'c'));
  }
  held.clear();
  EXPECT_EQ(Mapped("basin-"), 0);
  EXPECT_EQ(FilesOfSharedMemory(), before_);
  // And the lane serves on.
  Child next([address = listener->address()] { return PingPong(address, 20); });
  Serve(*listener, [&] { return next.Ended(); });
  EXPECT_EQ(next.Wait(), 0);
}

TEST_F(ShmProcessTest, TheEndOfAPeersProcessIsToldAndThatOfItsChannelIsNot) {
  auto listener = *ShmListen(Loopback(), {});
  Child client([address = listener->address()] {
    {
      auto dialer = MakeShmDialer({});
      auto channel = dialer->Dial(address);
      channel->Send(Text("hello")).IgnoreError();
      if (NextText(*dialer, *channel) != "hello") return 1;
    }
    for (;;) pause();
  });
  auto received = listener->Receive(Patience());
  ASSERT_NE(received, nullptr);
  const absl::StatusOr<UniqueFd> process = listener->PeerProcess(received->peer);
  ASSERT_TRUE(process.ok()) << process.status();
  listener->Send(received->peer, std::move(received->message)).IgnoreError();
  Serve(*listener, [&] { return listener->counters().connections == 0; });
  pollfd item = {.fd = process->get(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&item, 1, 0), 0);
  EXPECT_EQ(listener->PeerProcess(received->peer).status().code(), absl::StatusCode::kUnavailable);
  client.Kill();
  EXPECT_EQ(poll(&item, 1, -1), 1);
}

TEST_F(ShmProcessTest, AKilledLaneIsACutAndLeavesNothingBehind) {
  int to_parent[2];
  ASSERT_EQ(pipe(to_parent), 0);
  Child lane([&] {
    Echo echo(*ShmListen(Loopback(), {}));
    const std::string address = echo.address();
    if (write(to_parent[1], address.data(), address.size()) < 0) return 1;
    while (true) pause();
    return 0;
  });
  char text[64] = {};
  ASSERT_GT(read(to_parent[0], text, sizeof text - 1), 0);
  auto dialer = MakeShmDialer({});
  auto channel = dialer->Dial(text);
  ASSERT_TRUE(channel->Send(Text("hello")).ok());
  EXPECT_EQ(NextText(*dialer, *channel), "hello");
  EXPECT_EQ(Mapped("basin-channel"), 1);
  lane.Kill();
  const auto got = Next(*dialer, *channel);
  EXPECT_EQ(got.status().message(), absl::StrCat(text, ": closed by the peer"));
  auto again = dialer->Dial(text);
  EXPECT_EQ(Next(*dialer, *again).status().message(), absl::StrCat(text, ": connection refused"));
  channel.reset();
  EXPECT_EQ(Mapped("basin-channel"), 0);
  EXPECT_EQ(FilesOfSharedMemory(), before_);
  close(to_parent[0]);
  close(to_parent[1]);
}

// Writes anything anywhere in the memory of channels, one after another: at the control words small numbers too, which
// come further than large ones.
int Scribble(uint16_t port, uint64_t seed, int channels) {
  Random random(seed);
  for (int i = 0; i < channels; ++i) {
    auto fd = ConnectShm("127.0.0.1", port);
    if (!fd.ok()) return 1;
    ShmSocket socket(*std::move(fd));
    ShmPacket packet;
    UniqueFd memory_fd;
    ShmSocket::Got got;
    while ((got = socket.Receive(packet, memory_fd)) == ShmSocket::Got::kNothing) sched_yield();
    if (got != ShmSocket::Got::kPacket || packet.kind != ShmPacket::kWelcome) return 2;
    auto memory = ShmMemory::Map(std::move(memory_fd), packet.value, ShmMemory::Access::kReadWrite);
    if (!memory.ok()) return 3;
    RingWriter writer((*memory)->data());
    for (int step = 0; step < 400; ++step) {
      if (random.Below(4) == 0) {
        // A sound message, so that there is something to change while it is read.
        Message message = Text(std::string(random.Below(300), 'x'));
        for (uint64_t frames = random.Below(4); frames > 0; --frames) {
          message.frames.push_back(Frame::Copy(std::string(random.Below(20'000), 'y')));
        }
        writer.Write(message, {});
      }
      const bool ring = random.Below(2) == 0;
      char* const base = (*memory)->data() + (ring ? kRingBytes : 0);
      const size_t range = random.Below(3) == 0 ? size_t{1} << 16 : kRingDataOffset;
      const uint64_t value = random.Below(2) == 0 ? random.Below(2000) : random.Next();
      std::memcpy(base + random.Below(range / 8) * 8, &value, sizeof value);
      if (random.Below(64) == 0) {
        reinterpret_cast<RingControl*>(base)->published = random.Below(600);
        reinterpret_cast<RingControl*>(base)->completed = random.Below(600);
      }
      socket.Wake();
    }
    while ((got = socket.Receive(packet, memory_fd)) == ShmSocket::Got::kPacket) {
    }
  }
  return 0;
}

TEST_F(ShmProcessTest, APeerThatWritesAnythingIsCutAndOthersAreServed) {
  auto listener = *ShmListen(Loopback(), {});
  const uint16_t port = SplitHostPort(listener->address())->port;
  Child first([port] { return Scribble(port, 1, 150); });
  Child second([port] { return Scribble(port, 2, 150); });
  Child good([address = listener->address()] { return PingPong(address, 2000); });
  size_t bytes = 0;
  uint64_t sum = 0;
  const absl::Time deadline = Patience();
  while (!(first.Ended() && second.Ended() && good.Ended()) && absl::Now() < deadline) {
    auto received = listener->Receive(absl::Now() + absl::Milliseconds(1));
    if (received == nullptr) continue;
    for (const Frame& frame : received->message.frames) {
      bytes += frame.size();
      for (const char c : frame.view()) sum += static_cast<unsigned char>(c);
    }
    listener->Send(received->peer, std::move(received->message)).IgnoreError();
  }
  EXPECT_EQ(first.Wait(), 0);
  EXPECT_EQ(second.Wait(), 0);
  EXPECT_EQ(good.Wait(), 0);
  EXPECT_GT(sum + bytes, 0u);
  EXPECT_GT(listener->counters().dropped_messages, 100u);
  Serve(*listener, [&] { return listener->counters().connections == 0; });
}

// The same from the other side: what a lane writes cannot harm a client.
TEST_F(ShmProcessTest, ALaneThatWritesAnythingIsCut) {
  auto fd = ListenShm("127.0.0.1", 1);
  for (uint16_t port = 2; !fd.ok() && port < 1000; ++port) fd = ListenShm("127.0.0.1", port);
  ASSERT_TRUE(fd.ok()) << fd.status();
  sockaddr_storage name = {};
  socklen_t size = sizeof name;
  ASSERT_EQ(getsockname(fd->get(), reinterpret_cast<sockaddr*>(&name), &size), 0);
  const std::string text(reinterpret_cast<char*>(&name) + 3, size - 3);
  const std::string address = text.substr(text.find('/') + 1);
  Child lane([&] {
    Random random(3);
    for (int i = 0; i < 100;) {
      UniqueFd accepted = AcceptShm(fd->get());
      if (accepted.get() < 0) {
        sched_yield();
        continue;
      }
      ++i;
      ShmSocket socket(std::move(accepted));
      auto memory = *ShmMemory::Make("basin-channel", kShmChannelBytes);
      socket.Send({.kind = ShmPacket::kWelcome, .value = kShmChannelBytes}, memory->fd());
      for (int step = 0; step < 2000; ++step) {
        const uint64_t value = random.Below(2) == 0 ? random.Below(600) : random.Next();
        std::memcpy(memory->data() + random.Below(2) * kRingBytes + random.Below(kRingDataOffset / 8) * 8, &value,
                    sizeof value);
        if (step % 100 == 0) socket.Wake();
      }
    }
    return 0;
  });
  auto dialer = MakeShmDialer({});
  int cuts = 0;
  const absl::Time deadline = Patience();
  while (!lane.Ended() && absl::Now() < deadline) {
    auto channel = dialer->Dial(address);
    while (absl::Now() < deadline) {
      Message message = Text("hello");
      message.frames.push_back(Frame::Copy(std::string(10'000, 'x')));
      channel->Send(std::move(message)).IgnoreError();
      if (!channel->Receive().ok()) {
        ++cuts;
        break;
      }
      dialer->Wait(absl::Now() + absl::Milliseconds(1));
      if (lane.Ended()) break;
    }
  }
  EXPECT_EQ(lane.Wait(), 0);
  EXPECT_GT(cuts, 50);
}

TEST_F(ShmProcessTest, APeerOfAnotherUserIsRefusedAndUsesTcp) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  auto listener = *HostListen(Loopback(), TransportKind::kAuto, {});
  Child child([address = listener->address()] {
    if (setuid(kNobody) != 0) return kSkip;
    std::vector<std::string> lines;
    auto dialer = MakeHostDialer({.tell = [&lines](const std::string& line) { lines.push_back(line); }});
    for (int i = 0; i < 2; ++i) {
      auto channel = dialer->Dial(address);
      if (!channel->Send(Text("hello")).ok() || NextText(*dialer, *channel) != "hello") return 1;
    }
    if (lines.size() != 1 ||
        lines[0] != absl::StrCat("shared memory is refused by ", address,
                                 ": it runs as user 0, and this process as user 65534: using TCP")) {
      std::fprintf(stderr, "%zu lines: %s\n", lines.size(), lines.empty() ? "" : lines[0].c_str());
      return 2;
    }
    auto strict = MakeHostDialer({.kind = TransportKind::kShm});
    auto channel = strict->Dial(address);
    return absl::StrContains(NextText(*strict, *channel), "no shared memory: it runs as user 0") ? 0 : 3;
  });
  Serve(*listener, [&] { return child.Ended(); });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(listener->counts().shm_bytes_in, 0u);
}

// The lane looks at the peer's user too: a client could leave the check out.
TEST_F(ShmProcessTest, ALaneRefusesAClientOfAnotherUser) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  auto listener = *ShmListen(Loopback(), {});
  Child child([&] {
    const UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_storage name = {};
    socklen_t size = sizeof name;
    auto own = ConnectShm("127.0.0.1", SplitHostPort(listener->address())->port);
    if (!own.ok() || getpeername(own->get(), reinterpret_cast<sockaddr*>(&name), &size) != 0) return 1;
    own->Close();
    if (setuid(kNobody) != 0) return 2;
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&name), size) != 0) return 3;
    ShmPacket packet;
    if (recv(fd.get(), &packet, sizeof packet, 0) != sizeof packet || packet.kind != ShmPacket::kRefused) return 4;
    return absl::StrContains(packet.text, "this process as user 65534") ? 0 : 5;
  });
  Serve(*listener, [&] { return child.Ended(); });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(listener->counters().refused_connections, 1u);
}

TEST_F(ShmProcessTest, NetworkNamespacesDoNotSeeEachOther) {
  auto listener = *ShmListen(Loopback(), {});
  Child child([address = listener->address()] {
    if (unshare(CLONE_NEWNET) != 0) return kSkip;
    const UniqueFd any(socket(AF_INET, SOCK_DGRAM, 0));
    ifreq request = {};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    if (ioctl(any.get(), SIOCSIFFLAGS, &request) != 0) return kSkip;
    auto dialer = MakeShmDialer({});
    auto channel = dialer->Dial(address);
    if (NextText(*dialer, *channel) != absl::StrCat(address, ": connection refused")) return 1;
    // A host of its own: the same name is free here.
    return ListenShm("127.0.0.1", SplitHostPort(address)->port).ok() ? 0 : 2;
  });
  Serve(*listener, [&] { return child.Ended(); });
  const int code = child.Wait();
  if (code == kSkip) GTEST_SKIP() << "no permission for a network namespace";
  EXPECT_EQ(code, 0);
}

TEST_F(ShmProcessTest, AForkedChildThatEndsDoesNotCutItsParent) {
  // Without spinning: what wakes this process must be left alone as well.
  Echo echo(*ShmListen(Loopback(), {.spin = absl::ZeroDuration()}));
  auto dialer = MakeShmDialer({.spin = absl::ZeroDuration()});
  auto channel = dialer->Dial(echo.address());
  ASSERT_TRUE(channel->Send(Text("before")).ok());
  EXPECT_EQ(NextText(*dialer, *channel), "before");
  Child child([&] {
    channel.reset();
    dialer.reset();
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  ASSERT_TRUE(channel->Send(Text("after")).ok());
  EXPECT_EQ(NextText(*dialer, *channel), "after");
}

}  // namespace
}  // namespace basin::wire
