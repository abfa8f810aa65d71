#include "bench/harness/limits.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"

namespace basin::bench {
namespace {

constexpr int kLargeBuffers = 4 << 20;

std::string Where(const TwoHosts* hosts) { return hosts == nullptr ? "" : "netns_"; }

std::unique_ptr<Measurement> Stream(const std::string& kind, const StreamOptions& stream, const TwoHosts* hosts) {
  const std::string buffers = stream.buffers > 0 ? absl::StrCat("/buffers:", stream.buffers) : "";
  return MakeLimit({.name = absl::StrCat(Where(hosts), kind, "_stream/bytes:", stream.bytes, buffers),
                    .unit = "GB/s",
                    .kind = kind,
                    .parameters = {{"bytes", stream.bytes}, {"buffers", stream.buffers}},
                    .hosts = hosts});
}

std::unique_ptr<Measurement> RoundTrip(const std::string& kind, const TwoHosts* hosts) {
  return MakeLimit({.name = absl::StrCat(Where(hosts), kind, "_round_trip/bytes:64"),
                    .unit = "us",
                    .kind = kind,
                    .parameters = {{"bytes", 64}},
                    .echo = true,
                    .hosts = hosts});
}

}  // namespace

int Threads() { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

std::unique_ptr<Measurement> MemcpyLimit(uint64_t bytes, int threads) {
  return MakeLimit({.name = absl::StrCat("memcpy/bytes:", bytes, "/threads:", threads),
                    .unit = "GB/s",
                    .kind = "memory",
                    .parameters = {{"op", "copy"}, {"bytes", bytes}, {"threads", threads}}});
}

std::unique_ptr<Measurement> AddLimit(uint64_t bytes, int threads) {
  return MakeLimit({.name = absl::StrCat("add/bytes:", bytes, "/threads:", threads),
                    .unit = "GB/s",
                    .kind = "memory",
                    .parameters = {{"op", "add"}, {"bytes", bytes}, {"threads", threads}}});
}

std::unique_ptr<Measurement> StreamsLimit(uint64_t bytes, int targets) {
  const std::string more = targets > 1 ? absl::StrCat("/targets:", targets) : "";
  return MakeLimit({.name = absl::StrCat("add/bytes:", bytes, "/threads:1", more, "/pages:huge"),
                    .unit = "GB/s",
                    .kind = "memory",
                    .parameters = {{"op", "add"}, {"bytes", bytes}, {"targets", targets}, {"huge", true}}});
}

std::unique_ptr<Measurement> TcpStreamLimit(const StreamOptions& stream, const TwoHosts* hosts) {
  return Stream("tcp", stream, hosts);
}
std::unique_ptr<Measurement> ZmqStreamLimit(const StreamOptions& stream, const TwoHosts* hosts) {
  return Stream("zmq", stream, hosts);
}
std::unique_ptr<Measurement> TcpRoundTripLimit(const TwoHosts* hosts) { return RoundTrip("tcp", hosts); }
std::unique_ptr<Measurement> ZmqRoundTripLimit(const TwoHosts* hosts) { return RoundTrip("zmq", hosts); }

std::unique_ptr<Measurement> SharedMemoryRoundTripLimit(bool spin) {
  return MakeLimit({.name = absl::StrCat("shm_round_trip/bytes:64/wait:", spin ? "spin" : "eventfd"),
                    .unit = "us",
                    .kind = "shared_memory",
                    .parameters = {{"spin", spin}},
                    .echo = true});
}

Experiment AllLimits(const TwoHosts* hosts) {
  Experiment all;
  const auto add = [&](std::unique_ptr<Measurement> limit) {
    all.rows.push_back({.measurement = static_cast<int>(all.measurements.size())});
    all.measurements.push_back(std::move(limit));
  };
  std::vector<int> threads = {1};
  if (Threads() > 1) threads.push_back(Threads());
  for (const uint64_t bytes : {uint64_t{1} << 20, uint64_t{64} << 20}) {
    for (const int count : threads) {
      add(MemcpyLimit(bytes, count));
      add(AddLimit(bytes, count));
    }
  }
  for (const uint64_t bytes : {uint64_t{64} << 10, uint64_t{1} << 20}) {
    for (const int buffers : {0, kLargeBuffers}) {
      add(TcpStreamLimit({bytes, buffers}, hosts));
      add(ZmqStreamLimit({bytes, buffers}, hosts));
    }
  }
  for (const int targets : {1, 2, 3}) add(StreamsLimit(uint64_t{64} << 20, targets));
  add(TcpRoundTripLimit(hosts));
  add(ZmqRoundTripLimit(hosts));
  add(SharedMemoryRoundTripLimit(true));
  add(SharedMemoryRoundTripLimit(false));
  return all;
}

}  // namespace basin::bench
