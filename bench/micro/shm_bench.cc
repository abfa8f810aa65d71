// Shared memory as a transport: a channel and a listener in two threads of this process, beside what bounds them.
#include <benchmark/benchmark.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/wire/registered_memory.h"
#include "common/wire/shm_transport.h"

namespace basin::wire {
namespace {

constexpr size_t kWorkingSet = size_t{64} << 20;
constexpr size_t kMessage = size_t{1} << 20;
// Messages sent and not yet answered.
constexpr size_t kUnderWay = 16;

// What bounds a push: the ps reads the gradient and adds it to the variable.
__attribute__((noinline)) void Add(float* to, const float* from, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] += from[i];
}

// A lane that answers every message by `answer`; ends with the object.
class LaneThread {
 public:
  LaneThread(absl::Duration spin, std::function<Message(const Message&)> answer)
      : listener_(*ShmListen({.ip = "127.0.0.1", .port = 0, .host = "127.0.0.1"}, {.spin = spin})),
        address_(listener_->address()),
        thread_([this, answer = std::move(answer)] {
          while (!stop_) {
            std::unique_ptr<Received> received = listener_->Receive(absl::InfiniteFuture());
            if (received == nullptr) continue;
            const PeerId peer = received->peer;
            Message out = answer(received->message);
            received.reset();
            BASIN_CHECK(listener_->Send(peer, std::move(out)).ok());
          }
        }) {}
  ~LaneThread() {
    stop_ = true;
    listener_->Wake();
    thread_.join();
  }
  const std::string& address() const { return address_; }

 private:
  std::atomic<bool> stop_{false};
  std::unique_ptr<ShmListener> listener_;
  const std::string address_;
  std::thread thread_;
};

Message Head(uint64_t value) {
  Message message;
  message.frames.push_back(Frame::Copy({reinterpret_cast<const char*>(&value), sizeof value}));
  return message;
}
uint64_t HeadOf(const Message& message) {
  uint64_t value;
  std::memcpy(&value, message.frames[0].data(), sizeof value);
  return value;
}

std::unique_ptr<Message> Next(Dialer& dialer, Channel& channel) {
  while (true) {
    auto got = channel.Receive();
    BASIN_CHECK(got.ok());
    if (*got != nullptr) return *std::move(got);
    dialer.Wait(absl::InfiniteFuture());
  }
}

// One pass over the working set: `ask` makes the request for a piece, `take` gets its answer.
template <class Ask, class Take>
void Pass(Dialer& dialer, Channel& channel, Ask ask, Take take) {
  size_t sent = 0, answered = 0;
  while (answered < kWorkingSet / kMessage) {
    while (sent < kWorkingSet / kMessage && sent - answered < kUnderWay) {
      BASIN_CHECK(channel.Send(ask(sent++)).ok());
    }
    take(*Next(dialer, channel));
    ++answered;
  }
}

void BM_AddBound(benchmark::State& state) {
  std::vector<float> to(kWorkingSet / sizeof(float)), from(kWorkingSet / sizeof(float), 1.0f);
  for (auto _ : state) Add(to.data(), from.data(), to.size());
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kWorkingSet));
}
BENCHMARK(BM_AddBound)->Name("BM_AddBound/bytes:67108864")->UseRealTime();

void BM_MemcpyBound(benchmark::State& state) {
  std::vector<char> to(kWorkingSet), from(kWorkingSet, 1);
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), to.size());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kWorkingSet));
}
BENCHMARK(BM_MemcpyBound)->Name("BM_MemcpyBound/bytes:67108864")->UseRealTime();

void BM_ShmPush(benchmark::State& state) {
  const bool registered = state.range(0) != 0;
  std::vector<float> parameters(kWorkingSet / sizeof(float));
  LaneThread lane(absl::Microseconds(50), [&](const Message& message) {
    const Frame& gradient = message.frames[1];
    Add(parameters.data() + HeadOf(message) * (kMessage / sizeof(float)),
        reinterpret_cast<const float*>(gradient.data()), gradient.size() / sizeof(float));
    return Head(0);
  });
  auto dialer = MakeShmDialer({});
  auto channel = dialer->Dial(lane.address());
  std::vector<float> ordinary(registered ? 0 : kWorkingSet / sizeof(float));
  auto* gradients = registered ? static_cast<float*>(AllocateRegistered(kWorkingSet)) : ordinary.data();
  std::fill(gradients, gradients + kWorkingSet / sizeof(float), 1.0f);
  const auto lent = std::make_shared<int>(0);
  for (auto _ : state) {
    Pass(
        *dialer, *channel,
        [&](size_t piece) {
          Message message = Head(piece);
          message.frames.emplace_back(reinterpret_cast<const char*>(gradients) + piece * kMessage, kMessage, lent);
          return message;
        },
        [](const Message&) {});
  }
  BASIN_CHECK(parameters.front() == static_cast<float>(state.iterations()) && parameters.back() == parameters.front());
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kWorkingSet));
  channel.reset();
  if (registered) DeallocateRegistered(gradients);
}
BENCHMARK(BM_ShmPush)->ArgName("registered")->Arg(1)->Arg(0)->UseRealTime();

void BM_ShmPull(benchmark::State& state) {
  const auto parameters = std::make_shared<std::vector<char>>(kWorkingSet, 'p');
  LaneThread lane(absl::Microseconds(50), [&](const Message& message) {
    Message answer = Head(HeadOf(message));
    answer.frames.emplace_back(parameters->data() + HeadOf(message) * kMessage, kMessage, parameters);
    return answer;
  });
  auto dialer = MakeShmDialer({});
  auto channel = dialer->Dial(lane.address());
  std::vector<char> pulled(kWorkingSet);
  for (auto _ : state) {
    Pass(*dialer, *channel, Head, [&](const Message& answer) {
      std::memcpy(pulled.data() + HeadOf(answer) * kMessage, answer.frames[1].data(), kMessage);
    });
  }
  BASIN_CHECK(pulled == *parameters);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kWorkingSet));
}
BENCHMARK(BM_ShmPull)->UseRealTime();

// Median of a round trip, in microseconds.
template <class RoundTrip>
void Median(benchmark::State& state, RoundTrip round_trip) {
  std::vector<double> us;
  for (auto _ : state) {
    const absl::Time start = absl::Now();
    round_trip();
    us.push_back(absl::ToDoubleMicroseconds(absl::Now() - start));
  }
  std::nth_element(us.begin(), us.begin() + static_cast<ptrdiff_t>(us.size() / 2), us.end());
  state.counters["p50_us"] = us[us.size() / 2];
}

void BM_ShmRoundTrip(benchmark::State& state) {
  const absl::Duration spin = absl::Microseconds(state.range(0));
  LaneThread lane(spin, [](const Message& message) { return message; });
  auto dialer = MakeShmDialer({.spin = spin});
  auto channel = dialer->Dial(lane.address());
  Message message;
  message.frames.push_back(Frame::Copy(std::string(64, 'x')));
  Median(state, [&] {
    BASIN_CHECK(channel->Send(message).ok());
    Next(*dialer, *channel);
  });
}
BENCHMARK(BM_ShmRoundTrip)->ArgName("spin_us")->Arg(50)->Arg(0)->UseRealTime();

// What bounds a round trip between two that sleep.
void BM_EventfdRoundTrip(benchmark::State& state) {
  const int there = eventfd(0, EFD_NONBLOCK), back = eventfd(0, EFD_NONBLOCK);
  const auto sleep_on = [](int fd) {
    const int set = epoll_create1(0);
    epoll_event event = {};
    event.events = EPOLLIN;
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
    return [set, fd] {
      epoll_event ready;
      while (epoll_wait(set, &ready, 1, -1) != 1) {
      }
      uint64_t count = 0;
      BASIN_CHECK(read(fd, &count, sizeof count) == sizeof count);
      return count;
    };
  };
  const auto wake = [](int fd, uint64_t count) { BASIN_CHECK(write(fd, &count, sizeof count) == sizeof count); };
  std::thread other([&] {
    const auto wait = sleep_on(there);
    while (wait() == 1) wake(back, 1);
  });
  const auto wait = sleep_on(back);
  Median(state, [&] {
    wake(there, 1);
    wait();
  });
  wake(there, 2);
  other.join();
}
BENCHMARK(BM_EventfdRoundTrip)->UseRealTime();

}  // namespace
}  // namespace basin::wire
