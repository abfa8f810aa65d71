// The conversation of `basin doctor` with one node, over the process that leads there.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "estimator/launch/child_pipes.h"
#include "estimator/launch/doctor_talk.h"
#include "estimator/launch/launcher.h"

namespace basin {

class DoctorConnection final {
 public:
  // Owns the pipe and its process from now on.
  explicit DoctorConnection(const AgentPipe& pipe);
  // Ends the node's part by the end of its input, the process after 5 s by force.
  ~DoctorConnection() { Finish(); }

  // An answer is expected from now on; to `request`, where there is one.
  void Ask(const DoctorMessage& request);
  void AskNothing() { expects_ = true; }
  // nullopt where it was not asked, or there is none (yet).
  const std::optional<DoctorMessage>& answer() const { return answer_; }
  bool ended() const { return ended_; }
  const std::string& errors() const { return child_.errors(); }
  const std::string& printed() const { return printed_; }  // before the first line of the doctor's
  // Waits for the process, which is killed after 5 s. Exit code, 128 + signal where it was killed.
  int Finish();

  // Until each of them has its answer or has ended, or `limit` is over.
  static void WaitForAll(const std::vector<DoctorConnection*>& connections, absl::Duration limit);

 private:
  bool Waits() const { return expects_ && !answer_ && !ended_; }
  void Write();
  void ReadAnswers();

  ChildPipes child_;
  bool expects_ = false;
  bool spoke_ = false;
  bool ended_ = false;
  std::optional<DoctorMessage> answer_;
  std::string unsent_, unread_, printed_;
};

}  // namespace basin
