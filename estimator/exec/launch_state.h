// What rank 0 of `basin exec` knows of all ranks, and when the launch has come to its end: pure.
//
// The end is the launcher's own (run_state): the chief, or without one all workers, have ended with 0. Then those that
// still run have a while to end by themselves, the ps last, since the others read from them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "estimator/exec/exec_layout.h"

namespace basin {

class LaunchState {
 public:
  static constexpr absl::Duration kOthersGrace = absl::Seconds(60);

  // `ps_grace`: how long the ps may go on when nobody reads from them any more.
  LaunchState(const ExecLayout& layout, absl::Duration ps_grace)
      : layout_(layout), ps_grace_(ps_grace), ranks_(layout.size) {}

  // `host` and `pid` of the rank, for sentences.
  void Known(uint32_t rank, std::string host, int pid);
  // Its task has ended; `signal` 0: by itself, with `code`.
  void Ended(uint32_t rank, int code, int signal, absl::Time now);
  // Its task could not be started.
  void NotStarted(uint32_t rank, const std::string& why);
  // The rank itself is gone.
  void Lost(uint32_t rank, absl::Time now);
  // Whatever else keeps the launch from going on. The first reason counts.
  void Fail(std::string reason, int exit_code);

  enum class Verdict { kGoesOn, kSucceeded, kFailed };
  // kFailed at the first failure; kSucceeded when everybody has ended, or has been waited for.
  Verdict At(absl::Time now) const;
  // When At may change without an event.
  absl::Time NextChange() const;
  // Of kFailed: one sentence, "worker 1 (rank 3, pid 812 on h2) exited with code 3".
  const std::string& reason() const { return reason_; }
  // Of the launch once it is over: 0, or what the first failure gives: a task's own code, or 128 and its signal.
  int exit_code() const { return exit_code_; }

  // "worker 1 (rank 3, pid 812 on h2)".
  std::string Described(uint32_t rank) const;

 private:
  struct Rank {
    std::string host;
    int pid = 0;
    bool ended = false;
  };
  bool AllEnded(bool ps_too) const;

  const ExecLayout layout_;
  const absl::Duration ps_grace_;
  std::vector<Rank> ranks_;
  absl::Time trained_ = absl::InfiniteFuture();  // since when training is over
  absl::Time read_ = absl::InfiniteFuture();     // since when nobody reads from the ps
  std::string reason_;
  int exit_code_ = 0;
};

}  // namespace basin
