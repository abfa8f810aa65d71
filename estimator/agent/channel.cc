#include "estimator/agent/channel.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr size_t kLengthBytes = 4;
constexpr size_t kMostReadAtOnce = size_t{256} << 10;
// Bytes that control may wait behind: data leaves in steps of this, and no larger batch is begun.
constexpr size_t kBatchBytes = size_t{64} << 10;
constexpr size_t kMostQueuedData = 4;  // messages
constexpr size_t kCreditStep = kDataWindowBytes / 4;
constexpr size_t kMostVersionBytes = 128;
constexpr size_t kShownBytes = 2000;
constexpr char kMagicWord[] = "BASIN-AGENT ";
constexpr size_t kMagicWordBytes = sizeof(kMagicWord) - 1;
constexpr size_t kMagicBytes = sizeof(kAgentMagic) - 1;

uint32_t LengthAt(absl::string_view text) {
  uint32_t length = 0;
  for (int i = 3; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(text[i]);
  return length;
}

void AppendFrame(const std::string& message, std::string* to) {
  const uint32_t length = static_cast<uint32_t>(message.size());
  for (int shift = 0; shift < 32; shift += 8) to->push_back(static_cast<char>(length >> shift & 0xff));
  to->append(message);
}

absl::Status CheckOutgoing(const std::string& message) {
  if (message.size() <= kMostFrameBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a message of ", message.size(), " bytes is longer than a frame may be (", kMostFrameBytes, ")"));
}

}  // namespace

absl::Status FrameReader::CheckLength() const {
  const absl::string_view rest = absl::string_view(text_).substr(at_);
  if (rest.size() < kLengthBytes || LengthAt(rest) <= kMostFrameBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a frame says that it is ", LengthAt(rest), " bytes long, at most ",
                                                 kMostFrameBytes,
                                                 " are allowed; the peer does not speak this protocol"));
}

absl::Status FrameReader::Take(absl::string_view bytes) {
  if (!broken_.ok()) return broken_;
  if (at_ > 0 && at_ >= text_.size() / 2) {
    text_.erase(0, at_);
    at_ = 0;
  }
  text_.append(bytes.data(), bytes.size());
  return broken_ = CheckLength();
}

bool FrameReader::Next(std::string* message) {
  const absl::string_view rest = absl::string_view(text_).substr(at_);
  if (!broken_.ok() || rest.size() < kLengthBytes) return false;
  const size_t length = LengthAt(rest);
  if (rest.size() - kLengthBytes < length) return false;
  message->assign(rest.data() + kLengthBytes, length);
  at_ += kLengthBytes + length;
  // The following frame's length is judged as soon as it can be seen.
  broken_ = CheckLength();
  return true;
}

Channel::Channel(int read_fd, int write_fd) : read_fd_(read_fd), write_fd_(write_fd) {}

absl::Status Channel::SendControl(std::string message) {
  BASIN_RETURN_IF_ERROR(CheckOutgoing(message));
  if (control_bytes_ + message.size() > kMostQueuedControlBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the peer does not read: ", control_bytes_, " bytes of control wait for it"));
  }
  control_bytes_ += message.size();
  control_.push_back(std::move(message));
  return absl::OkStatus();
}

absl::Status Channel::SendData(std::string message, size_t data_bytes) {
  BASIN_RETURN_IF_ERROR(CheckOutgoing(message));
  BASIN_CHECK(data_bytes <= kMostDataBytes && CanSendData());
  window_ -= data_bytes;
  data_.push_back(std::move(message));
  return absl::OkStatus();
}

bool Channel::CanSendData() const { return window_ >= kMostDataBytes && data_.size() < kMostQueuedData; }

void Channel::AddCredit(uint64_t bytes) { window_ += std::min(bytes, kDataWindowBytes - window_); }

bool Channel::wants_to_write() const { return leaving_at_ < leaving_.size() || !control_.empty() || !data_.empty(); }

absl::Status Channel::Flush() {
  while (wants_to_write()) {
    if (leaving_at_ == leaving_.size()) {
      leaving_.clear();
      leaving_at_ = 0;
      while (!control_.empty() && leaving_.size() < kBatchBytes) {
        AppendFrame(control_.front(), &leaving_);
        control_bytes_ -= control_.front().size();
        control_.pop_front();
      }
      if (leaving_.empty()) {
        AppendFrame(data_.front(), &leaving_);
        data_.pop_front();
      }
    }
    const ssize_t wrote = write(write_fd_, leaving_.data() + leaving_at_, leaving_.size() - leaving_at_);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return absl::OkStatus();
    if (wrote < 0) return absl::UnavailableError(absl::StrCat("the peer is gone: ", std::strerror(errno)));
    leaving_at_ += static_cast<size_t>(wrote);
  }
  return absl::OkStatus();
}

absl::Status Channel::Fill() {
  char bytes[64 << 10];
  for (size_t total = 0; total < kMostReadAtOnce;) {
    const ssize_t got = read(read_fd_, bytes, sizeof bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return absl::OkStatus();
    if (got < 0) return absl::UnavailableError(absl::StrCat("the peer is gone: ", std::strerror(errno)));
    if (got == 0) return absl::UnavailableError("the peer is gone: the stream has ended");
    received_ += static_cast<uint64_t>(got);
    BASIN_RETURN_IF_ERROR(incoming_.Take(absl::string_view(bytes, static_cast<size_t>(got))));
    total += static_cast<size_t>(got);
    if (static_cast<size_t>(got) < sizeof bytes) return absl::OkStatus();
  }
  return absl::OkStatus();
}

uint64_t CreditMeter::Stored(uint64_t bytes) {
  owed_ += bytes;
  if (owed_ < kCreditStep) return 0;
  return std::exchange(owed_, 0);
}

absl::StatusOr<bool> MagicReader::Take(const std::string& bytes, std::string* rest) {
  rest->clear();
  text_ += bytes;
  while (true) {
    const size_t at = text_.find(kMagicWord, looked_at_);
    // The word may be cut at the end of what has come.
    const size_t before = at != std::string::npos ? at : text_.size() - std::min(text_.size(), kMagicWordBytes - 1);
    if (before > kMostBytesBeforeMagic) {
      return absl::InvalidArgumentError(absl::StrCat("the node printed more than ", kMostBytesBeforeMagic >> 10,
                                                     " KiB before the agent's first line; the last of it:\n",
                                                     LastLines(text_.substr(0, before))));
    }
    looked_at_ = before;
    if (at == std::string::npos) return false;
    const size_t number_end = text_.find_first_not_of("0123456789", at + kMagicWordBytes);
    if (number_end == std::string::npos && text_.size() - at < kMostVersionBytes) return false;
    if (number_end == std::string::npos || number_end == at + kMagicWordBytes || text_[number_end] != ' ') {
      looked_at_ = at + kMagicWordBytes;  // somebody's text that only looks like it
      continue;
    }
    if (text_.compare(at, kMagicBytes, kAgentMagic) != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the agent on the node speaks protocol ",
                       text_.substr(at + kMagicWordBytes, number_end - at - kMagicWordBytes),
                       ", this program protocol 1; install the same version of Basin on both"));
    }
    const size_t end = text_.find('\n', at);
    if (end == std::string::npos && text_.size() - at <= kMagicBytes + kMostVersionBytes) return false;
    if (end == std::string::npos || end - at > kMagicBytes + kMostVersionBytes) {
      return absl::InvalidArgumentError("the agent's first line does not end; it is no agent of Basin");
    }
    version_ = text_.substr(at + kMagicBytes, end - at - kMagicBytes);
    *rest = text_.substr(end + 1);
    text_.resize(at);
    return true;
  }
}

std::string LastLines(const std::string& text) {
  std::string shown = text.size() > kShownBytes ? text.substr(text.size() - kShownBytes) : text;
  if (shown.size() < text.size()) {
    const size_t line = shown.find('\n');
    if (line != std::string::npos) shown.erase(0, line + 1);
  }
  // ssh ends its lines as a terminal wants them.
  shown = absl::StrReplaceAll(shown, {{"\r\n", "\n"}});
  absl::StripTrailingAsciiWhitespace(&shown);
  for (char& c : shown) {
    const auto code = static_cast<unsigned char>(c);
    if ((code < 0x20 && c != '\n' && c != '\t') || code == 0x7f) c = '?';
  }
  return shown;
}

}  // namespace basin
