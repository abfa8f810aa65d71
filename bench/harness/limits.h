// The limits that this machine sets, by name. They are measured in the same run as what is compared with them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/harness/measurement.h"

namespace basin::bench {

struct StreamOptions {
  uint64_t bytes = 1 << 20;  // of one write, or message
  int buffers = 0;           // of the sockets; 0: the system's defaults
};

// GB/s. Payload: a copied byte counts once. "memcpy/bytes:67108864/threads:1".
std::unique_ptr<Measurement> MemcpyLimit(uint64_t bytes, int threads);
// d[i] += s[i]. GB/s of s. "add/bytes:67108864/threads:1".
std::unique_ptr<Measurement> AddLimit(uint64_t bytes, int threads);
// The same to several arrays in one loop, laid out so that only memory limits it (huge_array.h): what a rule that reads
// and writes as many arrays can do. "add/bytes:67108864/threads:1/targets:2/pages:huge".
std::unique_ptr<Measurement> StreamsLimit(uint64_t bytes, int targets);
// GB/s, a sender and a receiver that only receives. "tcp_stream/bytes:1048576", "…/buffers:4194304".
std::unique_ptr<Measurement> TcpStreamLimit(const StreamOptions& stream, const TwoHosts* hosts = nullptr);
std::unique_ptr<Measurement> ZmqStreamLimit(const StreamOptions& stream, const TwoHosts* hosts = nullptr);
// Microseconds, the median of a round trip of 64 bytes. "tcp_round_trip/bytes:64".
std::unique_ptr<Measurement> TcpRoundTripLimit(const TwoHosts* hosts = nullptr);
std::unique_ptr<Measurement> ZmqRoundTripLimit(const TwoHosts* hosts = nullptr);
// "shm_round_trip/bytes:64/wait:spin", "…/wait:eventfd".
std::unique_ptr<Measurement> SharedMemoryRoundTripLimit(bool spin);

// Processors that this process may use.
int Threads();

// All of them, each a row.
Experiment AllLimits(const TwoHosts* hosts);

}  // namespace basin::bench
