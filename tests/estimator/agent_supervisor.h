// A supervisor as small as a test needs: it starts `basin agent`, and talks to the agent over its pipes.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/time/time.h"
#include "common/base/unique_fd.h"
#include "estimator/agent/channel.h"
#include "estimator/agent/messages.h"

namespace basin::testing {

// Generous: the machine may be loaded. Nothing is measured.
inline constexpr absl::Duration kDeadline = absl::Minutes(5);

// A folder of one test, and a mark in the environment of all processes that it starts.
class Playground {
 public:
  Playground();
  ~Playground();  // kills what is left with the mark
  const std::string& path() const { return path_; }
  std::string base() const { return path_ + "/base"; }
  std::string node_folder(const std::string& run = "run") const { return base() + "/runs/" + run + "/node-0"; }
  // Living processes with the mark: pid and command line.
  std::vector<std::pair<pid_t, std::string>> Marked() const;
  // The pids of those whose command line has `text`.
  std::vector<pid_t> MarkedWith(const std::string& text) const;
  // Waits until each of these programs runs, by its whole command line. (That of whoever starts it has it too, and so
  // for a moment has a second process, which is yet to become the program.) False at the deadline.
  bool WaitUntilRuns(const std::vector<std::string>& commands) const;
  bool WaitUntilNothingIsLeft() const;

 private:
  std::string path_;
  std::string mark_;
};

bool WaitUntil(const std::function<bool()>& condition, absl::Duration deadline = kDeadline);
std::string Content(const std::string& path);
void WriteFile(const std::string& path, const std::string& content);

class TestSupervisor {
 public:
  // Starts the relay. `more` are further variables of its environment, NAME=VALUE.
  explicit TestSupervisor(const Playground& ground, const std::string& run = "run",
                          const std::vector<std::string>& more = {});
  ~TestSupervisor();

  // Reads the magic line. False where it did not come.
  bool MeetAgent();
  void Send(const agent::ToAgent& message);
  void SendRaw(const std::string& bytes);
  agent::Hello HelloOf(uint64_t epoch, uint32_t grace_ms = 0) const;
  // MeetAgent, Hello, and the Welcome.
  agent::Welcome Join(uint64_t epoch, uint32_t grace_ms = 0);

  // Reads and answers with credit until `done` or the deadline; false then. Bytes of streams go to `streams`.
  bool PumpUntil(const std::function<bool()>& done, absl::Duration deadline = kDeadline);
  // The first message of this kind that was not taken yet. Fails the test where none comes.
  agent::FromAgent Next(agent::FromAgent::BodyCase kind);
  bool Has(agent::FromAgent::BodyCase kind) const;
  // For a task: its end, and that nothing is left.
  agent::TaskExited WaitForEnd(uint32_t task);

  void StreamFiles();  // says what `streams` holds
  // Messages of a plain task that runs `script` in bash.
  static agent::ToAgent Bash(uint32_t task, const std::string& script);
  std::string Log(uint32_t task) const { return Stream(agent::LOG, task, ""); }
  size_t LogBytes(uint32_t task) const;
  std::string Stream(agent::StreamKind kind, uint32_t task, const std::string& path) const;

  pid_t relay() const { return relay_; }
  bool ended() const { return ended_; }  // the relay has closed its output
  void CloseInput() { input_.Close(); }
  void KillRelay();
  std::string errors() const;  // what the relay printed as errors
  void set_reads(bool reads) { reads_ = reads; }

  using Key = std::tuple<int, uint32_t, std::string>;
  std::map<Key, std::string> streams;  // kept by a successor that goes on
  std::vector<agent::FileChunk> outputs;
  std::string stream_problem;  // an offset that is not the next byte's
  std::string token = "secret-token-of-the-run";
  uint32_t cancel_grace_ms = 120'000;

 private:
  void TakeMessages();

  const std::string run_;
  std::string errors_path_;
  pid_t relay_ = 0;
  UniqueFd input_, output_;
  std::unique_ptr<Channel> channel_;
  CreditMeter meter_;
  std::vector<agent::FromAgent> messages_;
  bool ended_ = false;
  bool reads_ = true;
};

}  // namespace basin::testing
