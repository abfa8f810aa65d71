#include "common/wire/zmq_message.h"

#include <zmq.h>

#include <cstring>
#include <utility>

#include "common/base/limits.h"

namespace basin::wire {
namespace {

// Below this a copy costs less than the bookkeeping of a reference.
constexpr size_t kCopyBytes = 4096;

// What libzmq gives back when it has sent a frame.
struct Hold {
  std::shared_ptr<const void> owner;
  BytesInFlight in_flight;
  size_t bytes = 0;
  // libzmq hands the message to its thread with a fence of its own. This pair says the same where ThreadSanitizer sees
  // it.
  std::atomic<bool> ready{false};
};

// Runs in libzmq's I/O thread (or here, when a send fails).
void LetGo(void*, void* hint) {
  std::unique_ptr<Hold> hold(static_cast<Hold*>(hint));
  (void)hold->ready.load(std::memory_order_acquire);
  hold->owner.reset();
  hold->in_flight->fetch_sub(hold->bytes, std::memory_order_release);
}

bool MakePart(const Frame& frame, const BytesInFlight& in_flight, zmq_msg_t* part) {
  if (frame.size() < kCopyBytes || frame.owner() == nullptr) {
    if (zmq_msg_init_size(part, frame.size()) != 0) return false;
    if (!frame.empty()) std::memcpy(zmq_msg_data(part), frame.data(), frame.size());
    return true;
  }
  auto hold = std::make_unique<Hold>();
  hold->owner = frame.owner();
  hold->in_flight = in_flight;
  hold->bytes = frame.size();
  // libzmq does not write to a message that it sends.
  if (zmq_msg_init_data(part, const_cast<char*>(frame.data()), frame.size(), &LetGo, hold.get()) != 0) return false;
  in_flight->fetch_add(frame.size(), std::memory_order_relaxed);
  hold.release()->ready.store(true, std::memory_order_release);
  return true;
}

int SendPart(void* socket, zmq_msg_t* part, int flags) {
  int rc;
  do {
    rc = zmq_msg_send(part, socket, flags | ZMQ_DONTWAIT);
  } while (rc < 0 && zmq_errno() == EINTR);
  if (rc >= 0) return 0;
  const int error = zmq_errno();
  zmq_msg_close(part);
  return error;
}

// Keeps a received message alive for the frame that shows it.
class ReceivedPart {
 public:
  ReceivedPart() { zmq_msg_init(&part_); }
  ~ReceivedPart() { zmq_msg_close(&part_); }
  ReceivedPart(const ReceivedPart&) = delete;
  ReceivedPart& operator=(const ReceivedPart&) = delete;
  zmq_msg_t* part() { return &part_; }

 private:
  zmq_msg_t part_;
};

int ReceivePart(void* socket, zmq_msg_t* part) {
  int rc;
  do {
    rc = zmq_msg_recv(part, socket, ZMQ_DONTWAIT);
  } while (rc < 0 && zmq_errno() == EINTR);
  return rc >= 0 ? 0 : zmq_errno();
}

}  // namespace

void PutRoutingId(uint64_t peer, char out[kRoutingIdBytes]) {
  out[0] = 0;
  for (int i = 0; i < 4; ++i) out[1 + i] = static_cast<char>(peer >> (24 - 8 * i));
}

Sent SendParts(void* socket, absl::string_view routing_id, const Message& message, const BytesInFlight& in_flight) {
  bool first = true;
  if (!routing_id.empty()) {
    zmq_msg_t part;
    if (zmq_msg_init_size(&part, routing_id.size()) != 0) return Sent::kFull;
    std::memcpy(zmq_msg_data(&part), routing_id.data(), routing_id.size());
    const int error = SendPart(socket, &part, ZMQ_SNDMORE);
    if (error == EAGAIN) return Sent::kFull;
    if (error != 0) return Sent::kGone;
    first = false;
  }
  for (size_t i = 0; i < message.frames.size(); ++i) {
    zmq_msg_t part;
    // Out of memory within a message: an empty part in its place makes the message malformed, and the peer says so.
    if (!MakePart(message.frames[i], in_flight, &part)) zmq_msg_init(&part);
    const int error = SendPart(socket, &part, i + 1 < message.frames.size() ? ZMQ_SNDMORE : 0);
    // libzmq checks for room at the first part alone; a later failure means that the peer went away.
    if (error == EAGAIN && first) return Sent::kFull;
    if (error != 0) return Sent::kGone;
    first = false;
  }
  return Sent::kSent;
}

Got ReceiveParts(void* socket, uint64_t* peer, Message& message) {
  message.frames.clear();
  bool foreign = false;
  bool too_many = false;
  bool first = true;
  if (peer != nullptr) {
    ReceivedPart id;
    const int error = ReceivePart(socket, id.part());
    if (error == EAGAIN) return Got::kNothing;
    if (error != 0) return Got::kClosed;
    const auto* bytes = static_cast<const unsigned char*>(zmq_msg_data(id.part()));
    foreign = zmq_msg_size(id.part()) != kRoutingIdBytes || bytes[0] != 0;
    *peer = 0;
    for (size_t i = 1; !foreign && i < kRoutingIdBytes; ++i) *peer = *peer << 8 | bytes[i];
    first = false;
    if (!zmq_msg_more(id.part())) return Got::kForeign;
  }
  for (bool more = true; more;) {
    auto part = std::make_shared<ReceivedPart>();
    const int error = ReceivePart(socket, part->part());
    if (error == EAGAIN && first) return Got::kNothing;
    if (error != 0) return Got::kClosed;
    first = false;
    more = zmq_msg_more(part->part());
    if (foreign || too_many) continue;
    if (message.frames.size() == kMaxFrames) {
      too_many = true;
      message.frames.clear();
      continue;
    }
    const auto* data = static_cast<const char*>(zmq_msg_data(part->part()));
    const size_t size = zmq_msg_size(part->part());
    message.frames.emplace_back(data, size, std::move(part));
  }
  if (foreign) return Got::kForeign;
  return too_many ? Got::kTooManyFrames : Got::kMessage;
}

}  // namespace basin::wire
