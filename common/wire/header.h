// The fixed header that starts every message, and the entries of data messages.
//
//   message  := frame 0, then the payload frames
//   frame 0  := header (80 bytes), body, entries (40 bytes each)
//   body     := control kinds: one protobuf of control.proto;  data kinds: the inline payloads, in entry order
//   payload  := of an entry with kInline: the next `bytes` bytes of the body; with kJoined: the next `bytes` bytes of
//   the
//               payload frame that the entry before it began or went on with; otherwise the start of the next payload
//               frame. Entries cover body and frames without a gap. With kPlaced it is places: device_places.h.
//
// All numbers are little-endian (DESIGN, "Wire"); offsets stand beside the fields.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/wire/frame.h"

namespace basin::wire {

inline constexpr uint32_t kMagic = 0x314e5342;  // "BSN1"
inline constexpr uint16_t kProtocolVersion = 1;

enum class Kind : uint16_t {
  kHello = 1,
  kWelcome = 2,
  kError = 3,
  kDeclare = 4,
  kDeclared = 5,
  kInstall = 6,
  kInstalled = 7,
  kUpdate = 8,   // data: pushes, pulls and assignments of shards
  kUpdated = 9,  // data
  kStep = 10,
  kNextInput = 11,
  kInputPiece = 12,
  kInputDone = 13,
  kBarrier = 14,
  kHeartbeat = 15,
  kRunState = 16,  // answers Step, InputDone, Barrier, Heartbeat, Finish, Goodbye
  kFinish = 17,
  kGoodbye = 18,
  kStats = 19,
  kStatsText = 20,
  kEvicted = 21,
  kEvictedKeys = 22,
  kDeviceBlock = 23,
  kDeviceBlockLent = 24,
};
absl::string_view Name(Kind kind);

struct Header {
  Kind kind = Kind::kError;        // 6: u16, after u32 magic and u16 version
  uint64_t request = 0;            // 8: the client's number for it, dense per channel; answers repeat it
  uint64_t run = 0;                // 16: RunHash of the run id; 0 in a Hello
  uint64_t ps_incarnation = 0;     // 24
  Incarnation incarnation;         // 32: the client's
  View view;                       // 40
  StepClock clock;                 // 48: the client's finished steps
  float learning_rate = kRuleOwn;  // 56: instead of the rule's, when it is not NaN
  // 60: u32 entries; 64: u32 worker (role << 24 | index); 68: u32 reserved, 0; 72: u64 body bytes
  uint32_t worker = 0;

  static constexpr float kRuleOwn = __builtin_nanf("");
};
inline constexpr size_t kHeaderBytes = 4 + 2 + 2 + 8 + 8 + 8 + 8 + 8 + 8 + 4 + 4 + 4 + 4 + 8;
static_assert(kHeaderBytes == 80);

// Flags of an entry.
enum EntryFlags : uint16_t {
  kPush = 1,     // request: payload is a gradient (or a statistic's update) for the whole shard
  kPull = 2,     // request: the answer shall carry the parameters;  answer: it does
  kAssign = 4,   // request: payload is the shard's new value
  kInline = 8,   // the payload lies in frame 0
  kRepeat = 16,  // answer: that sequence had been applied before
  kJoined = 32,  // the payload goes on in the frame of the entry before
  kPlaced = 64,  // request: what is pushed, assigned or pulled lies in the device block that the lane has lent;
                 // answer: what was pulled lies there
};
enum class Codec : uint8_t { kRaw = 0 };

struct Entry {
  ShardId shard;              // 0: u32
  Codec codec = Codec::kRaw;  // 4: u8
  uint8_t dtype = 0;          // 5: u8
  uint16_t flags = 0;         // 6: u16
  Sequence sequence;          // 8: u64; of a push or assignment: last + 1
  Version version;            // 16: u64; request: the version pulled before;  answer: the shard's version now
  uint64_t bytes = 0;         // 24: of the payload
  int32_t code = 0;           // 32: answer: canonical status of this entry
  uint32_t rows = 0;          // 36: u32; of a table's bucket: its number of keys; else 0
};
inline constexpr size_t kEntryBytes = 4 + 1 + 1 + 2 + 8 + 8 + 8 + 4 + 4;
static_assert(kEntryBytes == 40);

// A message as parsed: the spans point into `message`'s frames.
struct Parsed {
  Header header;
  std::vector<Entry> entries;
  std::vector<absl::Span<const char>> payloads;  // one an entry; empty where the entry has none
  absl::string_view body;                        // control kinds: the protobuf
  Message message;                               // keeps the bytes alive
};

// Everything a peer sent is checked here: magic, version, kind, counts, lengths and limits.h. An error says what was
// expected and found; FAILED_PRECONDITION means another protocol version, with both named.
absl::StatusOr<Parsed> Parse(Message message);

// REQUIRES: serialised `body` (of a control message) fits kMaxFrameBytes.
Message MakeControl(const Header& header, absl::string_view body);

// Builds a data message. Small payloads are copied into frame 0; larger ones ride along as frames, and those that lie
// one behind the other in memory (the shards of one variable) as one.
class DataBuilder {
 public:
  // Payloads of fewer bytes are copied into frame 0.
  explicit DataBuilder(size_t inline_below = kInlinePayloadBytes) : inline_below_(inline_below) {}
  // Whether one more entry with `bytes` of payload keeps within limits.h, and the message at about kMessageBytes.
  bool Fits(size_t bytes) const;
  // REQUIRES: Fits(payload.size()). Sets the entry's bytes and the flags that say where the payload is.
  void Add(Entry entry, Frame payload);
  // Adds an entry whose payload goes into frame 0, and returns where its `bytes` bytes are to be written before the
  // next call. REQUIRES: FitsInline(bytes), bytes > 0.
  bool FitsInline(size_t bytes) const;
  char* AddInline(Entry entry, size_t bytes);
  void Reserve(size_t entries) { entries_.reserve(entries); }
  bool empty() const { return entries_.empty(); }
  size_t entries() const { return entries_.size(); }
  size_t payload_bytes() const { return inline_bytes_ + frame_bytes_; }
  Message Build(const Header& header) &&;

 private:
  void Grow(size_t bytes);

  size_t inline_below_;
  std::vector<Entry> entries_;
  // Frame 0 as it grows: room for the header, then the inline payloads.
  std::unique_ptr<char[]> frame0_;
  size_t capacity_ = 0;
  size_t inline_bytes_ = 0;
  std::vector<Frame> frames_;
  size_t frame_bytes_ = 0;
};

// A data message with those entries alone for which `keep` is true, and their payloads. REQUIRES: keep has an element
// an entry.
Message WithEntries(const Parsed& parsed, const std::vector<bool>& keep);

// The 64-bit number that stands for a run id in headers.
uint64_t RunHash(absl::string_view run_id);

constexpr uint32_t WorkerKey(uint32_t role, uint32_t index) { return role << 24 | (index & 0xffffff); }

}  // namespace basin::wire
