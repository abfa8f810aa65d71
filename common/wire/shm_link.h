// One end of an open shared-memory channel: two rings, the socket beside them, and what waits for room.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/wire/shm_ring.h"
#include "common/wire/shm_socket.h"
#include "common/wire/transport.h"

namespace basin::wire {

// One thread at a time. Frames that it gave out may outlive it.
class ShmLink final {
 public:
  enum class Side { kLane, kClient };
  // `memory`: kShmChannelBytes, zero at first; `socket` is connected.
  ShmLink(std::shared_ptr<ShmSocket> socket, std::shared_ptr<ShmMemory> memory, Side side,
          const TransportOptions& options);
  // The peer sees the end; what was sent before it still reads.
  ~ShmLink();

  // Never blocks: what finds no room waits and leaves with Pump. Errors as Channel::Send.
  absl::Status Send(Message message);
  // What was sent before there was a link, whatever its bytes.
  void Adopt(std::deque<Message> messages);
  // The next message; nullptr where there is none now, or the link is cut.
  std::unique_ptr<Message> Receive();
  // The link ended and everything was received. `reason` says why.
  bool cut() const { return state_ == State::kCut; }
  const std::string& reason() const { return reason_; }
  // Takes back what the peer has read (lent memory is let go of) and sends what waits.
  void Pump() { Pump(kRingWindowBytes); }
  // As Pump, as far as the ring goes: for what the peer shall find when this end is gone.
  void PumpAll() { Pump(kRingDataBytes); }
  // A message, room for what waits, or lent memory that the peer has let go of.
  bool HasWork() const;
  bool has_backlog() const { return !queue_.empty(); }

  // From here on the peer wakes this end (its socket becomes readable) when HasWork turns true. Ask HasWork once more
  // before sleeping.
  void Sleep();
  void WakeUp();
  // The socket is readable, or may be.
  void OnSocket();
  int fd() const { return socket_->fd(); }

 private:
  enum class State { kOpen, kHungUp, kCut };
  void Pump(size_t window);
  void TakeSegment(const ShmPacket& packet, UniqueFd fd);
  void FindPlaces(const Message& message);
  void Cut(std::string reason);

  const std::shared_ptr<ShmSocket> socket_;
  const Side side_;
  const size_t max_bytes_in_flight_;
  State state_ = State::kOpen;
  std::string reason_;
  RingWriter writer_;
  RingReader reader_;
  std::deque<Message> queue_;
  size_t queued_bytes_ = 0;
  Segments segments_;  // the client's, at the lane
  size_t segment_bytes_ = 0;
  std::unordered_map<uint64_t, int> shown_;  // at the client: registered segment -> number at the lane
  std::vector<SegmentPlace> places_;
  const std::shared_ptr<ShmMemory> memory_;
};

}  // namespace basin::wire
