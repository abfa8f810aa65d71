#include "common/wire/shm_link.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/wire/registered_memory.h"

namespace basin::wire {
namespace {

// Packets taken at once from a socket: a peer that sends without end must not hold the lane.
constexpr int kPacketsAtOnce = 1024;
constexpr char kClosed[] = "closed by the peer";

char* RingOf(const ShmMemory& memory, bool client_to_lane) { return memory.data() + (client_to_lane ? 0 : kRingBytes); }

}  // namespace

ShmLink::ShmLink(std::shared_ptr<ShmSocket> socket, std::shared_ptr<ShmMemory> memory, Side side,
                 const TransportOptions& options)
    : socket_(std::move(socket)),
      side_(side),
      max_bytes_in_flight_(options.max_bytes_in_flight),
      writer_(RingOf(*memory, side == Side::kClient)),
      reader_(memory, RingOf(*memory, side == Side::kLane), [socket = socket_] { socket->Wake(); }),
      memory_(memory) {}

ShmLink::~ShmLink() { socket_->HangUp(); }

absl::Status ShmLink::Send(Message message) {
  BASIN_RETURN_IF_ERROR(CheckLimits(message));
  Pump();
  if (state_ != State::kOpen) return absl::UnavailableError(reason_);
  const size_t bytes = message.bytes();
  const size_t waiting = queued_bytes_ + writer_.bytes_under_way();
  // A message alone may be larger than the bound: refusing it would refuse it for ever.
  if (waiting > 0 && waiting + bytes > max_bytes_in_flight_) {
    return absl::ResourceExhaustedError(absl::StrCat("the peer does not read: ", waiting, " bytes wait for it, ", bytes,
                                                     " more are past ", max_bytes_in_flight_));
  }
  queued_bytes_ += bytes;
  queue_.push_back(std::move(message));
  Pump();
  return absl::OkStatus();
}

void ShmLink::Adopt(std::deque<Message> messages) {
  for (Message& message : messages) {
    queued_bytes_ += message.bytes();
    queue_.push_back(std::move(message));
  }
  Pump();
}

void ShmLink::Pump(size_t window) {
  if (state_ != State::kOpen) return;
  if (!writer_.Sweep()) return Cut("the peer broke the shared memory's rules: it gave back what it did not have");
  while (!queue_.empty()) {
    FindPlaces(queue_.front());
    if (!writer_.Write(queue_.front(), places_, window)) break;
    queued_bytes_ -= queue_.front().bytes();
    queue_.pop_front();
    // At once, so that the peer reads the first while the second is written.
    if (writer_.TakeReaderSleeps()) socket_->Wake();
  }
}

// Which frames lie in registered memory that the lane has mapped, or gets now.
void ShmLink::FindPlaces(const Message& message) {
  places_.clear();
  if (side_ != Side::kClient) return;
  for (size_t i = 1; i < message.frames.size(); ++i) {
    const Frame& frame = message.frames[i];
    if (frame.size() < kRingPlacedBytes || frame.owner() == nullptr) continue;
    const std::optional<RegisteredRange> range = FindRegistered(frame.data(), frame.size());
    if (!range) continue;
    auto known = shown_.find(range->segment);
    if (known == shown_.end()) {
      if (shown_.size() >= kMaxSegments || range->segment_bytes > kMaxSegmentBytes - segment_bytes_) continue;
      const auto number = static_cast<uint32_t>(shown_.size());
      // Where it does not leave, the frame is copied this time.
      if (!socket_->Send({.kind = ShmPacket::kSegment, .number = number, .value = range->segment_bytes}, range->fd)) {
        continue;
      }
      known = shown_.emplace(range->segment, static_cast<int>(number)).first;
      segment_bytes_ += range->segment_bytes;
    }
    if (places_.empty()) places_.resize(message.frames.size());
    places_[i] = {.segment = known->second, .offset = range->offset};
  }
}

std::unique_ptr<Message> ShmLink::Receive() {
  if (state_ == State::kCut) return nullptr;
  auto message = std::make_unique<Message>();
  bool uses_segments = false;
  std::string error;
  RingReader::Got got = reader_.Read(segments_, *message, uses_segments, error);
  if (got == RingReader::Got::kNeedsSegment) {
    // Its packet left before the message did.
    OnSocket();
    if (state_ == State::kCut) return nullptr;
    got = reader_.Read(segments_, *message, uses_segments, error);
  }
  switch (got) {
    case RingReader::Got::kMessage:
      // A client that has left may use its memory for something else.
      if (uses_segments && state_ == State::kHungUp) {
        Cut(kClosed);
        return nullptr;
      }
      // What this message answers may be memory that was lent: whoever waits for both gets both.
      if (writer_.referencing() > 0) Pump();
      return message;
    case RingReader::Got::kNothing:
      if (state_ == State::kHungUp) Cut(kClosed);
      return nullptr;
    case RingReader::Got::kNeedsSegment:
      Cut("the peer broke the shared memory's rules: it named a segment that it did not send");
      return nullptr;
    case RingReader::Got::kBroken:
      Cut(std::move(error));
      return nullptr;
  }
  return nullptr;
}

bool ShmLink::HasWork() const {
  return state_ != State::kOpen || reader_.HasMessage() ||
         ((!queue_.empty() || writer_.referencing() > 0) && writer_.HasCompletions());
}

void ShmLink::Sleep() {
  reader_.SetSleeps(true);
  // Lent memory comes back before the message that answers it, which wakes.
  if (!queue_.empty()) writer_.SetWaits(true);
}

void ShmLink::WakeUp() {
  reader_.SetSleeps(false);
  writer_.SetWaits(false);
}

void ShmLink::OnSocket() {
  ShmPacket packet;
  UniqueFd fd;
  for (int i = 0; i < kPacketsAtOnce && state_ == State::kOpen; ++i) {
    switch (socket_->Receive(packet, fd)) {
      case ShmSocket::Got::kNothing:
        return;
      case ShmSocket::Got::kHungUp:
        // What was sent before is in the ring, and is received first.
        state_ = State::kHungUp;
        reason_ = kClosed;
        queue_.clear();
        queued_bytes_ = 0;
        return;
      case ShmSocket::Got::kPacket:
        if (packet.kind == ShmPacket::kWake) break;
        if (packet.kind == ShmPacket::kSegment && side_ == Side::kLane) {
          TakeSegment(packet, std::move(fd));
        } else {
          Cut(absl::StrCat("the peer broke the shared memory's rules: a packet of kind ", packet.kind));
        }
    }
  }
}

void ShmLink::TakeSegment(const ShmPacket& packet, UniqueFd fd) {
  if (packet.number != segments_.size() || packet.number >= kMaxSegments ||
      packet.value > kMaxSegmentBytes - segment_bytes_) {
    return Cut(absl::StrCat("the peer broke the shared memory's rules: segment ", packet.number, " of ", packet.value,
                            " bytes, beside ", segments_.size(), " of ", segment_bytes_, " bytes"));
  }
  auto memory = ShmMemory::Map(std::move(fd), packet.value, ShmMemory::Access::kRead);
  if (!memory.ok()) return Cut(std::string(memory.status().message()));
  (*memory)->CloseFd();
  segment_bytes_ += packet.value;
  segments_.push_back(*std::move(memory));
}

void ShmLink::Cut(std::string reason) {
  reason_ = std::move(reason);
  state_ = State::kCut;
  socket_->HangUp();
  queue_.clear();
  queued_bytes_ = 0;
}

}  // namespace basin::wire
