#include "estimator/launch/doctor_connection.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace basin {
namespace {

constexpr absl::Duration kEndLimit = absl::Seconds(5);
constexpr size_t kMostText = size_t{64} << 10;

}  // namespace

DoctorConnection::DoctorConnection(const AgentPipe& pipe) : child_(pipe) {}

void DoctorConnection::Ask(const DoctorMessage& request) {
  answer_.reset();
  expects_ = true;
  absl::StrAppend(&unsent_, DoctorMessageToLine(request), "\n");
}

void DoctorConnection::Write() {
  const ssize_t wrote = write(child_.pipe().to_agent, unsent_.data(), unsent_.size());
  if (wrote > 0) unsent_.erase(0, static_cast<size_t>(wrote));
  if (wrote < 0 && errno != EAGAIN && errno != EINTR) unsent_.clear();  // its end is read
}

void DoctorConnection::ReadAnswers() {
  if (ReadSome(child_.pipe().from_agent, &unread_) == 0) {
    ended_ = true;
    if (!spoke_) absl::StrAppend(&printed_, unread_.substr(0, kMostText));
    return;
  }
  for (size_t end; (end = unread_.find('\n')) != std::string::npos; unread_.erase(0, end + 1)) {
    absl::string_view line(unread_.data(), end);
    // A shell's greeting without a line's end may stand in front.
    const size_t at = line.find(kDoctorMagic);
    if (at == absl::string_view::npos) {
      if (!spoke_ && printed_.size() < kMostText) absl::StrAppend(&printed_, line, "\n");
      continue;
    }
    absl::StatusOr<DoctorMessage> message = ParseDoctorLine(line.substr(at + sizeof(kDoctorMagic) - 1));
    if (!message.ok()) continue;
    spoke_ = true;
    answer_ = *std::move(message);
  }
  if (unread_.size() >= kMostDoctorLine) ended_ = true;
}

void DoctorConnection::WaitForAll(const std::vector<DoctorConnection*>& connections, absl::Duration limit) {
  const absl::Time deadline = absl::Now() + limit;
  while (true) {
    std::vector<pollfd> waits;
    std::vector<DoctorConnection*> waiting;
    for (DoctorConnection* connection : connections) {
      if (!connection->Waits()) continue;
      waiting.push_back(connection);
      waits.push_back({connection->unsent_.empty() ? -1 : connection->child_.pipe().to_agent, POLLOUT, 0});
      waits.push_back({connection->child_.pipe().from_agent, POLLIN, 0});
      waits.push_back({connection->child_.pipe().errors, POLLIN, 0});
    }
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (waiting.empty() || left <= 0) return;
    if (poll(waits.data(), waits.size(), static_cast<int>(left)) <= 0) continue;
    for (size_t i = 0; i < waiting.size(); ++i) {
      if (waits[3 * i].revents != 0) waiting[i]->Write();
      if (waits[3 * i + 2].revents != 0) waiting[i]->child_.ReadErrors();
      if (waits[3 * i + 1].revents != 0) waiting[i]->ReadAnswers();
    }
  }
}

int DoctorConnection::Finish() {
  if (!ended_ && !spoke_) absl::StrAppend(&printed_, unread_.substr(0, kMostText));
  ended_ = true;
  return child_.Finish(kEndLimit);
}

}  // namespace basin
