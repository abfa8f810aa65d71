#include "common/wire/shm_ring.h"

#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin::wire {
namespace {

constexpr size_t AlignUp(size_t bytes) {
  return (bytes + FreeExtents::kAlignment - 1) / FreeExtents::kAlignment * FreeExtents::kAlignment;
}

}  // namespace

RingWriter::RingWriter(char* ring)
    : control_(reinterpret_cast<RingControl*>(ring)), data_(ring + kRingDataOffset), blocks_(kRingBlocks) {
  for (uint32_t block = kRingBlocks; block > 0; --block) free_blocks_.push_back(block - 1);
}

RingWriter::~RingWriter() = default;

bool RingWriter::Write(const Message& message, absl::Span<const SegmentPlace> places, size_t window) {
  if (free_blocks_.empty()) return false;
  const size_t frames = message.frames.size();
  std::array<FrameRef, kMaxFrames> refs;
  size_t head = frames * sizeof(FrameRef);
  size_t placed = 0;
  bool references = false;
  for (size_t i = 0; i < frames; ++i) {
    const Frame& frame = message.frames[i];
    refs[i].bytes = static_cast<uint32_t>(frame.size());
    if (i > 0 && !places.empty() && places[i].segment >= 0) {
      refs[i].kind = FrameRef::kSegment + static_cast<uint32_t>(places[i].segment);
      refs[i].offset = places[i].offset;
      references = true;
    } else if (i > 0 && frame.size() >= kRingPlacedBytes) {
      refs[i].kind = FrameRef::kPlaced;
      refs[i].offset = placed;  // behind the head, whose size is not known yet
      placed += AlignUp(frame.size());
    } else {
      refs[i].kind = FrameRef::kInline;
      refs[i].offset = head;
      head += frame.size();
    }
  }
  const size_t need = AlignUp(head) + placed;
  if (bytes_under_way() > 0 && bytes_under_way() + need > window) return false;
  const std::optional<size_t> offset = data_free_.Take(need);
  if (!offset) return false;
  const uint32_t number = free_blocks_.back();
  free_blocks_.pop_back();
  Block& block = blocks_[number];
  block.offset = *offset;
  block.bytes = need;
  block.taken = true;
  for (size_t i = 0; i < frames; ++i) {
    const Frame& frame = message.frames[i];
    char* to = nullptr;
    if (refs[i].kind == FrameRef::kInline) {
      to = data_ + *offset + refs[i].offset;
    } else if (refs[i].kind == FrameRef::kPlaced) {
      refs[i].offset += *offset + AlignUp(head);
      to = data_ + refs[i].offset;
    }
    if (to != nullptr && !frame.empty()) std::memcpy(to, frame.data(), frame.size());
    if (to == nullptr) block.referenced.push_back(frame);
  }
  if (references) ++referencing_;
  std::memcpy(data_ + *offset, refs.data(), frames * sizeof(FrameRef));
  RingDescriptor& descriptor = control_->descriptors[published_ % kRingBlocks];
  descriptor.head.store(*offset, std::memory_order_relaxed);
  descriptor.sizes.store(head | uint64_t{frames} << 32, std::memory_order_relaxed);
  descriptor.block.store(number, std::memory_order_relaxed);
  // Sequentially consistent, as are the flags: either the reader sees this before it sleeps, or we see that it sleeps.
  control_->published.store(++published_, std::memory_order_seq_cst);
  return true;
}

bool RingWriter::Sweep() {
  const uint64_t completed = control_->completed.load(std::memory_order_acquire);
  const uint64_t count = completed - completed_;
  if (count > blocks_under_way()) return false;
  for (; completed_ != completed; ++completed_) {
    const uint32_t number = control_->given_back[completed_ % kRingBlocks].load(std::memory_order_relaxed);
    if (number >= kRingBlocks || !blocks_[number].taken) return false;
    Block& block = blocks_[number];
    block.taken = false;
    if (!block.referenced.empty()) {
      block.referenced.clear();
      --referencing_;
    }
    data_free_.Give(block.offset, block.bytes);
    free_blocks_.push_back(number);
  }
  return true;
}

bool RingWriter::HasCompletions() const { return control_->completed.load(std::memory_order_seq_cst) != completed_; }

bool RingWriter::TakeReaderSleeps() {
  if (control_->reader_sleeps.load(std::memory_order_seq_cst) == 0) return false;
  return control_->reader_sleeps.exchange(0, std::memory_order_seq_cst) != 0;
}

void RingWriter::SetWaits(bool waits) { control_->writer_waits.store(waits ? 1 : 0, std::memory_order_seq_cst); }

// What the frames that show the ring need; lives until the last of them is gone.
class RingReader::State final {
 public:
  State(std::shared_ptr<const void> memory, RingControl* control, std::function<void()> wake)
      : memory_(std::move(memory)), control_(control), wake_(std::move(wake)), owner_(getpid()) {}

  // Whether a message that shows `bytes` of the sender's memory may be held, beside those that are.
  bool Hold(size_t bytes) {
    MutexLock lock(mutex_);
    if (held_messages_ > 0 && (held_bytes_ + bytes > kRingHeldBytes || held_messages_ >= kRingBlocks / 2)) return false;
    held_bytes_ += bytes;
    ++held_messages_;
    return true;
  }
  void Release(uint32_t block, size_t bytes) {
    if (getpid() != owner_) return;  // a child that was forked holds no blocks
    {
      MutexLock lock(mutex_);
      held_bytes_ -= bytes;
      --held_messages_;
    }
    GiveBack(block);
  }
  void GiveBack(uint32_t block) {
    {
      MutexLock lock(mutex_);
      control_->given_back[completed_ % kRingBlocks].store(block, std::memory_order_relaxed);
      control_->completed.store(++completed_, std::memory_order_seq_cst);
    }
    if (control_->writer_waits.load(std::memory_order_seq_cst) == 0) return;
    if (control_->writer_waits.exchange(0, std::memory_order_seq_cst) != 0) wake_();
  }

 private:
  const std::shared_ptr<const void> memory_;
  RingControl* const control_;
  const std::function<void()> wake_;
  const pid_t owner_;
  Mutex mutex_;
  uint64_t completed_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t held_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t held_messages_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Owner of the frames of one message that lie in the sender's memory.
class RingReader::Lease final {
 public:
  Lease(std::shared_ptr<State> state, uint32_t block, size_t bytes, std::vector<std::shared_ptr<ShmMemory>> segments)
      : state_(std::move(state)), block_(block), bytes_(bytes), segments_(std::move(segments)) {}
  ~Lease() { state_->Release(block_, bytes_); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

 private:
  const std::shared_ptr<State> state_;
  const uint32_t block_;
  const size_t bytes_;
  const std::vector<std::shared_ptr<ShmMemory>> segments_;
};

RingReader::RingReader(std::shared_ptr<const void> memory, char* ring, std::function<void()> wake)
    : state_(std::make_shared<State>(std::move(memory), reinterpret_cast<RingControl*>(ring), std::move(wake))),
      control_(reinterpret_cast<RingControl*>(ring)),
      data_(ring + kRingDataOffset) {}

RingReader::~RingReader() = default;

bool RingReader::HasMessage() const { return control_->published.load(std::memory_order_seq_cst) != consumed_; }

void RingReader::SetSleeps(bool sleeps) { control_->reader_sleeps.store(sleeps ? 1 : 0, std::memory_order_seq_cst); }

RingReader::Got RingReader::Read(const Segments& segments, Message& message, bool& uses_segments, std::string& error) {
  message.frames.clear();
  uses_segments = false;
  const uint64_t waiting = control_->published.load(std::memory_order_acquire) - consumed_;
  if (waiting == 0) return Got::kNothing;
  const auto broken = [&error](auto... what) {
    error = absl::StrCat("the peer broke the shared memory's rules: ", what...);
    return Got::kBroken;
  };
  if (waiting > kRingBlocks) return broken(waiting, " messages wait, at most ", kRingBlocks, " can");
  const RingDescriptor& descriptor = control_->descriptors[consumed_ % kRingBlocks];
  const uint64_t head_offset = descriptor.head.load(std::memory_order_relaxed);
  const uint64_t sizes = descriptor.sizes.load(std::memory_order_relaxed);
  const uint64_t block = descriptor.block.load(std::memory_order_relaxed);
  const size_t head_bytes = sizes & 0xffffffff;
  const size_t frames = sizes >> 32;
  if (block >= kRingBlocks) return broken("block ", block, " of ", kRingBlocks);
  if (frames == 0 || frames > kMaxFrames) return broken("a message of ", frames, " frames, at most ", kMaxFrames);
  const size_t refs_bytes = frames * sizeof(FrameRef);
  if (head_bytes < refs_bytes || head_bytes > refs_bytes + kMaxMessageBytes || head_bytes > kRingDataBytes ||
      head_offset > kRingDataBytes - head_bytes) {
    return broken("a head of ", head_bytes, " bytes at ", head_offset);
  }
  // From here on only the copy is looked at: the peer may still write to the original.
  auto head = std::make_shared_for_overwrite<char[]>(head_bytes);
  std::memcpy(head.get(), data_ + head_offset, head_bytes);
  std::array<FrameRef, kMaxFrames> refs;
  std::memcpy(refs.data(), head.get(), refs_bytes);
  size_t total = 0, shown = 0;
  for (size_t i = 0; i < frames; ++i) {
    const FrameRef& ref = refs[i];
    if (ref.bytes > kMaxFrameBytes) return broken("frame ", i, " of ", ref.bytes, " bytes, at most ", kMaxFrameBytes);
    total += ref.bytes;
    size_t room = head_bytes;
    if (ref.kind == FrameRef::kPlaced) room = kRingDataBytes;
    if (ref.kind >= FrameRef::kSegment) {
      const size_t number = ref.kind - FrameRef::kSegment;
      if (number >= kMaxSegments) return broken("segment ", number, " of at most ", kMaxSegments);
      if (number >= segments.size()) return Got::kNeedsSegment;
      room = segments[number]->size();
      uses_segments = true;
    }
    if (ref.kind != FrameRef::kInline) {
      if (i == 0) return broken("a first frame outside the head");
      shown += ref.bytes;
    }
    if (ref.bytes > room || ref.offset > room - ref.bytes) {
      return broken("frame ", i, " of ", ref.bytes, " bytes at ", ref.offset, " of ", room);
    }
  }
  if (total > kMaxMessageBytes) return broken("a message of ", total, " bytes, at most ", kMaxMessageBytes);
  ++consumed_;

  const auto number = static_cast<uint32_t>(block);
  const bool shows = shown > 0 && state_->Hold(shown);
  std::shared_ptr<const void> lease;
  if (shows) {
    std::vector<std::shared_ptr<ShmMemory>> used;
    for (size_t i = 0; uses_segments && i < frames; ++i) {
      if (refs[i].kind < FrameRef::kSegment) continue;
      const auto& segment = segments[refs[i].kind - FrameRef::kSegment];
      if (used.empty() || used.back() != segment) used.push_back(segment);
    }
    lease = std::make_shared<Lease>(state_, number, shown, std::move(used));
  }
  message.frames.reserve(frames);
  for (size_t i = 0; i < frames; ++i) {
    const FrameRef& ref = refs[i];
    if (ref.kind == FrameRef::kInline) {
      message.frames.emplace_back(head.get() + ref.offset, ref.bytes, head);
      continue;
    }
    const char* data =
        (ref.kind == FrameRef::kPlaced ? data_ : segments[ref.kind - FrameRef::kSegment]->data()) + ref.offset;
    if (shows) {
      message.frames.emplace_back(data, ref.bytes, lease);
    } else {
      message.frames.push_back(Frame::Copy({data, ref.bytes}));
    }
  }
  if (!shows) state_->GiveBack(number);
  return Got::kMessage;
}

}  // namespace basin::wire
