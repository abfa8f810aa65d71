#include "common/wire/transport.h"

#include "absl/strings/str_cat.h"

namespace basin::wire {

absl::Status CheckLimits(const Message& message) {
  if (message.frames.empty()) return absl::InvalidArgumentError("a message without a frame cannot be sent");
  if (message.frames.size() > kMaxFrames) {
    return absl::InvalidArgumentError(absl::StrCat("a message of ", message.frames.size(), " frames, at most ",
                                                   kMaxFrames, " are allowed; send several"));
  }
  for (const Frame& frame : message.frames) {
    if (frame.size() > kMaxFrameBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("a frame of ", frame.size(), " bytes, at most ", kMaxFrameBytes, " are allowed; split it"));
    }
  }
  if (const size_t bytes = message.bytes(); bytes > kMaxMessageBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a message of ", bytes, " bytes, at most ", kMaxMessageBytes, " are allowed; send several"));
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> Listener::PeerProcess(PeerId) {
  return absl::FailedPreconditionError(
      "the channel does not tell which process is at its other end; use shared memory");
}

}  // namespace basin::wire
