#include "estimator/run/send_programs.h"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/log.h"
#include "estimator/agent/steady_now.h"
#include "estimator/run/node_link.h"

namespace basin {
namespace {

// Connecting takes ssh up to 15 s, and a node's disk may be slow.
constexpr absl::Duration kStillLimit = absl::Seconds(60);
// Connections being opened at once: sshd drops some of more than ten (MaxStartups).
constexpr size_t kMostTransfers = 8;

struct Transfer {
  size_t receiver = 0;
  std::unique_ptr<NodeLink> link;
  uint64_t sent = 0;
  absl::Time moved;  // when it last took bytes
};

class Sending {
 public:
  Sending(Launcher& launcher, const std::vector<ProgramsReceiver>& receivers) : launcher_(launcher) {
    for (const ProgramsReceiver& receiver : receivers) receivers_.push_back(&receiver);
    results_.resize(receivers.size());
  }

  std::vector<absl::Status> Run() {
    size_t next = 0;
    while (next < receivers_.size() || !transfers_.empty()) {
      while (next < receivers_.size() && transfers_.size() < kMostTransfers) Begin(next++);
      if (transfers_.empty()) continue;
      Wait();
      for (Transfer& transfer : transfers_) Service(&transfer);
      transfers_.erase(std::remove_if(transfers_.begin(), transfers_.end(),
                                      [](const Transfer& transfer) { return transfer.link == nullptr; }),
                       transfers_.end());
    }
    return std::move(results_);
  }

 private:
  void Begin(size_t index) {
    const ProgramsReceiver& receiver = *receivers_[index];
    absl::StatusOr<ProgramsTransfer> transfer = launcher_.SendPrograms(receiver.request, receiver.printed);
    if (!transfer.ok()) {
      results_[index] = transfer.status();
      return;
    }
    Info(SendingPrograms(receiver.request.host, *transfer));
    transfers_.push_back({index, std::make_unique<NodeLink>(*std::move(transfer)), 0, SteadyNow()});
  }

  void Wait() const {
    std::vector<pollfd> waits;
    absl::Time until = absl::InfiniteFuture();
    for (const Transfer& transfer : transfers_) {
      transfer.link->AddWaits(&waits);
      until = std::min({until, transfer.link->NextDeadline(), transfer.moved + kStillLimit});
    }
    const int64_t left = std::max<int64_t>(0, absl::ToInt64Milliseconds(until - SteadyNow()) + 1);
    poll(waits.data(), waits.size(), static_cast<int>(left));
  }

  void Service(Transfer* transfer) {
    const absl::Time now = SteadyNow();
    std::vector<LinkEvent> events;
    transfer->link->Service(now, &events);
    if (transfer->link->programs_sent() != transfer->sent) {
      transfer->sent = transfer->link->programs_sent();
      transfer->moved = now;
    }
    for (const LinkEvent& event : events) {
      if (event.kind == LinkEvent::kStored) return End(transfer, absl::OkStatus());
      if (event.kind == LinkEvent::kEnded) {
        const PipeEnd end = transfer->link->Finish();
        const std::string why = launcher_.Complaint(receivers_[transfer->receiver]->request, end);
        return End(transfer, absl::UnavailableError(why.empty() ? event.text : why));
      }
    }
    if (now - transfer->moved >= kStillLimit) {
      End(transfer, absl::DeadlineExceededError(absl::StrCat("Basin's programs were not taken: nothing moved for ",
                                                             absl::FormatDuration(kStillLimit),
                                                             "; see the node's disk and the network between")));
    }
  }

  void End(Transfer* transfer, absl::Status result) {
    results_[transfer->receiver] = std::move(result);
    transfer->link.reset();
  }

  Launcher& launcher_;
  std::vector<const ProgramsReceiver*> receivers_;
  std::vector<absl::Status> results_;
  std::vector<Transfer> transfers_;
};

}  // namespace

std::string SendingPrograms(const TargetNode& node, const ProgramsTransfer& transfer) {
  return absl::StrCat("node ", node.name, ": Basin's programs are sent (", transfer.bytes / 1'000'000, " MB)");
}

std::vector<absl::Status> SendProgramsAndWait(Launcher& launcher, const std::vector<ProgramsReceiver>& receivers) {
  // A node whose connection ends while it is written to must not end us.
  const auto before = signal(SIGPIPE, SIG_IGN);
  std::vector<absl::Status> results = Sending(launcher, receivers).Run();
  signal(SIGPIPE, before);
  return results;
}

}  // namespace basin
