#include "estimator/run/node_link.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "estimator/agent/steady_now.h"

namespace basin {
namespace {

constexpr size_t kMostPrinted = size_t{64} << 10;
// For the process to say on its standard error why its output has ended (something else may hold that pipe open).
constexpr absl::Duration kEndingTime = absl::Seconds(1);

}  // namespace

NodeLink::NodeLink(AgentPipe pipe) : child_(pipe) {}

NodeLink::NodeLink(ProgramsTransfer transfer) : child_(transfer.pipe), programs_(std::move(transfer.programs)) {}

NodeLink::~NodeLink() = default;

PipeEnd NodeLink::Finish() {
  PipeEnd end;
  end.exit_code = child_.Finish(kEndingTime);
  end.errors = child_.errors();
  end.printed = programs_ != nullptr ? printed_ : printed();
  end.sent_programs = programs_ != nullptr;
  return end;
}

void NodeLink::Send(const estimator::v1::ToAgent& message) {
  if (const absl::Status sent = channel_->SendControl(message.SerializeAsString()); !sent.ok()) {
    BeginEnd(SteadyNow(), std::string(sent.message()));
  }
}

void NodeLink::SendData(const estimator::v1::ToAgent& message, size_t data_bytes) {
  if (const absl::Status sent = channel_->SendData(message.SerializeAsString(), data_bytes); !sent.ok()) {
    BeginEnd(SteadyNow(), std::string(sent.message()));
  }
}

bool NodeLink::CanSendData() const { return channel_ != nullptr && !ended_ && why_.empty() && channel_->CanSendData(); }

void NodeLink::Stored(size_t data_bytes) {
  if (channel_ == nullptr) return;
  const uint64_t credit = credit_.Stored(data_bytes);
  if (credit == 0) return;
  estimator::v1::ToAgent message;
  message.mutable_credit()->set_bytes(credit);
  Send(message);
}

void NodeLink::AddWaits(std::vector<pollfd>* waits) const {
  if (ended_) return;
  const AgentPipe& pipe = child_.pipe();
  if (why_.empty()) waits->push_back({pipe.from_agent, POLLIN, 0});
  if (pipe.errors >= 0) waits->push_back({pipe.errors, POLLIN, 0});
  const bool writes = channel_ != nullptr ? channel_->wants_to_write() : programs_ != nullptr;
  if (why_.empty() && writes && pipe.to_agent >= 0) waits->push_back({pipe.to_agent, POLLOUT, 0});
}

void NodeLink::BeginEnd(absl::Time now, const std::string& why) {
  if (!why_.empty()) return;
  why_ = why;
  ending_until_ = now + kEndingTime;
}

bool NodeLink::Service(absl::Time now, std::vector<LinkEvent>* events) {
  if (ended_) return false;
  int waiting = 0;
  if (why_.empty()) ioctl(child_.pipe().from_agent, FIONREAD, &waiting);
  child_.ReadErrors();
  if (why_.empty()) programs_ != nullptr ? ServiceTransfer(now, events) : ServiceConversation(now, events);
  if (why_.empty() || ended_ || !(child_.errors_ended() || now >= ending_until_)) return waiting > 0;
  ended_ = true;
  ending_until_ = absl::InfiniteFuture();
  LinkEvent event;
  event.text = why_;
  event.programs_missing = channel_ == nullptr && absl::StrContains(printed(), kProgramsMissing);
  events->push_back(std::move(event));
  return waiting > 0;
}

void NodeLink::ServiceConversation(absl::Time now, std::vector<LinkEvent>* events) {
  if (channel_ == nullptr) {
    std::string bytes, rest;
    const ssize_t got = ReadSome(child_.pipe().from_agent, &bytes);
    if (got > 0) {
      const absl::StatusOr<bool> complete = magic_.Take(bytes, &rest);
      if (!complete.ok()) return BeginEnd(now, std::string(complete.status().message()));
      if (*complete) {
        channel_ = std::make_unique<Channel>(child_.pipe().from_agent, child_.pipe().to_agent);
        events->push_back({LinkEvent::kSpeaks, {}, "", false});
        if (const absl::Status taken = channel_->Take(rest); !taken.ok()) BeginEnd(now, std::string(taken.message()));
        TakeMessages(events);
      }
    } else if (got == 0) {
      BeginEnd(now, "it ended before the agent's first line");
    }
    return;
  }
  const absl::Status filled = channel_->Fill();
  TakeMessages(events);
  if (!filled.ok()) return BeginEnd(now, std::string(filled.message()));
  if (!channel_->wants_to_write()) return;
  if (const absl::Status flushed = channel_->Flush(); !flushed.ok()) BeginEnd(now, std::string(flushed.message()));
}

void NodeLink::TakeMessages(std::vector<LinkEvent>* events) {
  std::string text;
  while (channel_->Next(&text)) {
    LinkEvent event;
    event.kind = LinkEvent::kMessage;
    if (!event.message.ParseFromString(text)) return BeginEnd(SteadyNow(), "the agent sent a message that is none");
    if (event.message.has_credit()) {
      channel_->AddCredit(event.message.credit().bytes());
      continue;
    }
    events->push_back(std::move(event));
  }
}

void NodeLink::ServiceTransfer(absl::Time now, std::vector<LinkEvent>* events) {
  const ssize_t got = ReadSome(child_.pipe().from_agent, &printed_);
  if (printed_.size() > kMostPrinted) return BeginEnd(now, "the node prints without end");
  if (absl::StrContains(printed_, kProgramsStored)) {
    ended_ = true;
    events->push_back({LinkEvent::kStored, {}, "", false});
    return;
  }
  if (got == 0) {
    return BeginEnd(now, "Basin's programs could not be stored there");
  }
  while (child_.pipe().to_agent >= 0) {
    if (piece_at_ == piece_.size()) {
      absl::StatusOr<std::string> next = programs_->Next();
      if (!next.ok()) return BeginEnd(now, std::string(next.status().message()));
      piece_ = *std::move(next);
      piece_at_ = 0;
      if (piece_.empty()) return child_.CloseInput();
    }
    const ssize_t wrote = write(child_.pipe().to_agent, piece_.data() + piece_at_, piece_.size() - piece_at_);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EAGAIN) return;
    if (wrote < 0) return child_.CloseInput();  // its output tells why
    piece_at_ += static_cast<size_t>(wrote);
    programs_sent_ += static_cast<uint64_t>(wrote);
  }
}

}  // namespace basin
