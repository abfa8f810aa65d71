// The supervisor's end of the connection to one node: the launcher's process, the agent's first line, then messages. It
// reads and writes, and decides nothing.
#pragma once

#include <poll.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "estimator/agent/agent.pb.h"
#include "estimator/agent/channel.h"
#include "estimator/launch/child_pipes.h"
#include "estimator/launch/launcher.h"

namespace basin {

struct LinkEvent {
  enum Kind {
    kSpeaks,   // the agent's first line has come: say Hello
    kMessage,  // `message`
    kStored,   // the programs are in place; the link is at its end
    kEnded     // `text`: why. Nothing follows
  };
  Kind kind = kEnded;
  estimator::v1::FromAgent message;
  std::string text;
  bool programs_missing = false;  // of kEnded: the node has no programs of this version
};

class NodeLink {
 public:
  explicit NodeLink(AgentPipe pipe);             // a conversation
  explicit NodeLink(ProgramsTransfer transfer);  // programs on their way
  ~NodeLink();

  // REQUIRES: kSpeaks has come. An end of the connection shows later, by its event.
  void Send(const estimator::v1::ToAgent& message);
  // TreeData of `data_bytes`. REQUIRES: CanSendData().
  void SendData(const estimator::v1::ToAgent& message, size_t data_bytes);
  bool CanSendData() const;
  // The peer's data has been stored; credit goes back.
  void Stored(size_t data_bytes);

  // What to poll for.
  void AddWaits(std::vector<pollfd>* waits) const;
  absl::Time NextDeadline() const { return ending_until_; }
  // Reads and writes what can be; appends what came of it, in order. Whether any byte came from the node.
  bool Service(absl::Time now, std::vector<LinkEvent>* events);

  // After kEnded: how its process ended and what it said. Ends it where it has not.
  PipeEnd Finish();
  const std::string& printed() const { return magic_.skipped(); }
  bool speaks() const { return channel_ != nullptr; }
  bool sends_programs() const { return programs_ != nullptr; }
  uint64_t programs_sent() const { return programs_sent_; }

 private:
  void ServiceConversation(absl::Time now, std::vector<LinkEvent>* events);
  void ServiceTransfer(absl::Time now, std::vector<LinkEvent>* events);
  void TakeMessages(std::vector<LinkEvent>* events);
  void BeginEnd(absl::Time now, const std::string& why);

  ChildPipes child_;
  MagicReader magic_;
  std::unique_ptr<Channel> channel_;  // once the first line has come
  CreditMeter credit_;
  std::unique_ptr<ByteSource> programs_;
  std::string piece_;  // of the programs, on its way
  size_t piece_at_ = 0;
  uint64_t programs_sent_ = 0;
  std::string printed_;  // by the process that stores them
  std::string why_;
  // After the end: for as long the process may still say why.
  absl::Time ending_until_ = absl::InfiniteFuture();
  bool ended_ = false;
};

}  // namespace basin
