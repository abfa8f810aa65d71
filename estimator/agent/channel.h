// One end of the conversation between a supervisor and an agent: frames over two descriptors, without blocking. Control
// overtakes data, data waits for credit. Both sides use it (To = what this side sends).
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

inline constexpr char kAgentMagic[] = "BASIN-AGENT 1 ";  // then the version and a newline
inline constexpr size_t kMostBytesBeforeMagic = size_t{64} << 10;
inline constexpr size_t kMostFrameBytes = (size_t{1} << 20) + (size_t{4} << 10);
inline constexpr size_t kMostDataBytes = size_t{64} << 10;   // of one TreeData or FileChunk
inline constexpr size_t kDataWindowBytes = size_t{4} << 20;  // unacknowledged data a direction
inline constexpr size_t kMostQueuedControlBytes = size_t{16} << 20;

// Cuts a stream into frames: u32 little-endian length, then that many bytes. Pure.
class FrameReader {
 public:
  // INVALID_ARGUMENT for a frame that is longer than kMostFrameBytes, now and ever after: the stream is then lost.
  absl::Status Take(absl::string_view bytes);
  // The next whole frame; false when there is none.
  bool Next(std::string* message);

 private:
  absl::Status CheckLength() const;
  std::string text_;
  size_t at_ = 0;
  absl::Status broken_;
};

// Not thread-safe. Does not own the descriptors, which are non-blocking (and may be one and the same socket).
// REQUIRES: SIGPIPE is ignored.
class Channel {
 public:
  Channel(int read_fd, int write_fd);

  // Queues a serialized message. RESOURCE_EXHAUSTED when the peer has not read for kMostQueuedControlBytes,
  // INVALID_ARGUMENT for one that is longer than a frame may be; nothing is queued then.
  absl::Status SendControl(std::string message);
  // REQUIRES: CanSendData(). `data_bytes` is the payload that counts against the window, at most kMostDataBytes.
  absl::Status SendData(std::string message, size_t data_bytes);
  // Whether the window has room and earlier data has left; ask before reading a file.
  bool CanSendData() const;
  // What the peer gives back. More than was lent counts as what was lent.
  void AddCredit(uint64_t bytes);

  // Writes what the descriptor takes. UNAVAILABLE when the peer is gone.
  absl::Status Flush();
  bool wants_to_write() const;

  // Reads what is there, at most a few frames' worth a call, so that a fast peer does not hold the caller. UNAVAILABLE
  // at the end of the stream (Next still gives the whole frames that came before it), INVALID_ARGUMENT for a frame that
  // is too long.
  absl::Status Fill();
  // Bytes that Fill has read, all calls together.
  uint64_t received() const { return received_; }
  // Takes bytes that were read before the conversation began (MagicReader's rest).
  absl::Status Take(absl::string_view bytes) { return incoming_.Take(bytes); }
  // Next whole frame; false when there is none.
  bool Next(std::string* message) { return incoming_.Next(message); }

 private:
  const int read_fd_;
  const int write_fd_;
  FrameReader incoming_;
  std::string leaving_;  // frames under way
  size_t leaving_at_ = 0;
  std::deque<std::string> control_;
  std::deque<std::string> data_;
  size_t control_bytes_ = 0;
  uint64_t window_ = kDataWindowBytes;
  uint64_t received_ = 0;
};

// The receiver's side of the window: gives credit back in large pieces.
class CreditMeter {
 public:
  // `bytes` of payload have been stored. Returns the credit to send now, or 0.
  uint64_t Stored(uint64_t bytes);

 private:
  uint64_t owed_ = 0;
};

// Reads the agent's first line out of what its process prints: text before it (banners, shell start files, with or
// without a newline at their end) is skipped.
class MagicReader {
 public:
  // Takes bytes as they come. True once the magic line is complete: `rest` holds what follows it. INVALID_ARGUMENT with
  // the skipped text (its last lines) when kMostBytesBeforeMagic have come without it, or the protocol is another.
  absl::StatusOr<bool> Take(const std::string& bytes, std::string* rest);
  const std::string& version() const { return version_; }
  // What came before, for the error of an agent that never said hello.
  const std::string& skipped() const { return text_; }

 private:
  std::string text_;
  std::string version_;
  size_t looked_at_ = 0;  // no magic begins before this
};

// The last lines of what a shell printed, fit for a message: control characters become '?'.
std::string LastLines(const std::string& text);

}  // namespace basin
