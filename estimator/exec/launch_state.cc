#include "estimator/exec/launch_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/exit_code.h"

namespace basin {

void LaunchState::Known(uint32_t rank, std::string host, int pid) {
  ranks_[rank].host = std::move(host);
  ranks_[rank].pid = pid;
}

std::string LaunchState::Described(uint32_t rank) const {
  const Rank& one = ranks_[rank];
  return absl::StrCat(TaskOfRank(layout_, rank).Sentence(), " (rank ", rank,
                      one.pid == 0 ? "" : absl::StrCat(", pid ", one.pid, " on ", one.host), ")");
}

void LaunchState::Fail(std::string reason, int exit_code) {
  if (!reason_.empty()) return;
  reason_ = std::move(reason);
  exit_code_ = exit_code;
}

bool LaunchState::AllEnded(bool ps_too) const {
  for (uint32_t rank = ps_too ? 0 : layout_.ps; rank < layout_.size; ++rank) {
    if (!ranks_[rank].ended) return false;
  }
  return true;
}

void LaunchState::Ended(uint32_t rank, int code, int signal, absl::Time now) {
  ranks_[rank].ended = true;
  const Role role = TaskOfRank(layout_, rank).role;
  const bool trained = trained_ != absl::InfiniteFuture();
  if (!trained && (code != 0 || signal != 0)) {
    Fail(absl::StrCat(Described(rank), signal != 0 ? " was ended by signal " : " exited with code ",
                      signal != 0 ? signal : code),
         signal != 0 ? 128 + signal : code);
  }
  if (!trained) {
    bool all = role != Role::kPs && role != Role::kEvaluator;
    for (uint32_t other = layout_.ps; other < layout_.size && all; ++other) {
      const Role of_other = TaskOfRank(layout_, other).role;
      // With a chief its end is the run's.
      if (of_other == Role::kEvaluator || (layout_.chief && of_other != Role::kChief)) continue;
      all = ranks_[other].ended;
    }
    if (all) trained_ = now;
  }
  if (AllEnded(/*ps_too=*/false)) read_ = std::min(read_, now);
}

void LaunchState::NotStarted(uint32_t rank, const std::string& why) {
  ranks_[rank].ended = true;
  Fail(absl::StrCat(Described(rank), " does not start: ", why), kExitUsage);
}

void LaunchState::Lost(uint32_t rank, absl::Time now) {
  if (!ranks_[rank].ended && trained_ == absl::InfiniteFuture())
    Fail(absl::StrCat(Described(rank), " is gone"), kExitFailed);
  ranks_[rank].ended = true;
  if (AllEnded(/*ps_too=*/false)) read_ = std::min(read_, now);
}

LaunchState::Verdict LaunchState::At(absl::Time now) const {
  if (!reason_.empty()) return Verdict::kFailed;
  if (AllEnded(/*ps_too=*/true)) return Verdict::kSucceeded;
  return now >= NextChange() ? Verdict::kSucceeded : Verdict::kGoesOn;
}

absl::Time LaunchState::NextChange() const { return std::min(trained_ + kOthersGrace, read_ + ps_grace_); }

}  // namespace basin
