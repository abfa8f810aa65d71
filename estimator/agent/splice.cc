#include "estimator/agent/splice.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "absl/time/time.h"
#include "estimator/agent/steady_now.h"

namespace basin {
namespace {

constexpr size_t kBufferBytes = size_t{256} << 10;
constexpr int kPipeBytes = 1 << 20;
constexpr absl::Duration kMostFarewell = absl::Seconds(1);

// One direction.
class Flow {
 public:
  Flow(int from, int to) : from_(from), to_(to), buffer_(kBufferBytes, '\0') {}

  bool wants_to_read() const { return !is_ended_ && size_ < buffer_.size(); }
  bool wants_to_write() const { return begin_ < size_; }
  // No more comes, or nobody takes it.
  bool is_over() const { return is_broken_ || (is_ended_ && !wants_to_write()); }
  bool is_ended() const { return is_ended_ || is_broken_; }

  void Move() {
    if (wants_to_read()) {
      const ssize_t got = read(from_, buffer_.data() + size_, buffer_.size() - size_);
      if (got > 0) size_ += static_cast<size_t>(got);
      if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) is_ended_ = true;
    }
    if (wants_to_write()) {
      const ssize_t wrote = write(to_, buffer_.data() + begin_, size_ - begin_);
      if (wrote > 0) begin_ += static_cast<size_t>(wrote);
      if (wrote < 0 && errno != EAGAIN && errno != EINTR) is_broken_ = true;
    }
    if (begin_ == size_) begin_ = size_ = 0;
  }

 private:
  const int from_;
  const int to_;
  std::string buffer_;
  size_t begin_ = 0;
  size_t size_ = 0;
  bool is_ended_ = false;
  bool is_broken_ = false;
};

}  // namespace

void SpliceUntilEnd(int from, int to, int socket) {
  for (const int fd : {from, to, socket}) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETPIPE_SZ, kPipeBytes);  // of a pipe: fewer turns between the processes
  }
  Flow out(from, socket);
  Flow back(socket, to);
  absl::Time deadline = absl::InfiniteFuture();
  while (!(out.is_over() && back.is_over()) && SteadyNow() < deadline) {
    const bool is_ending = out.is_ended() || back.is_ended();
    if (is_ending && deadline == absl::InfiniteFuture()) deadline = SteadyNow() + kMostFarewell;
    // Once one side has ended nothing new is taken; what is here already still goes.
    if (is_ending && !out.wants_to_write() && !back.wants_to_write()) return;
    const auto events = [&](const Flow& reads, const Flow& writes) {
      return static_cast<short>((!is_ending && reads.wants_to_read() ? POLLIN : 0) |
                                (writes.wants_to_write() ? POLLOUT : 0));
    };
    pollfd waits[] = {{from, static_cast<short>(!is_ending && out.wants_to_read() ? POLLIN : 0), 0},
                      {to, static_cast<short>(back.wants_to_write() ? POLLOUT : 0), 0},
                      {socket, events(back, out), 0}};
    // A reader that is gone shows (POLLERR) also where nothing is to be written.
    poll(waits, 3, is_ending ? 100 : -1);
    if (waits[1].revents & POLLERR) return;
    if (!is_ending || out.wants_to_write()) out.Move();
    if (!is_ending || back.wants_to_write()) back.Move();
  }
}

}  // namespace basin
