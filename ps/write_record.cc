#include "ps/write_record.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "ps/mutants.h"

namespace basin {

Sequence WriteRecord::last(uint32_t worker, Incarnation incarnation) const {
  const auto at = entries_.find(worker);
  return at == entries_.end() || at->second.incarnation != incarnation ? Sequence(0) : at->second.last;
}

absl::StatusOr<bool> WriteRecord::IsRepeat(const Write& write, const Entry* entry,
                                           absl::FunctionRef<std::string()> place) const {
  if (write.sequence.value() == 0)
    return absl::InvalidArgumentError(absl::StrCat("push to ", place(), " without a sequence"));
  if (entry != nullptr && write.incarnation < entry->incarnation && !BASIN_MUTANT(kSkipFence)) {
    return absl::AbortedError(absl::StrCat("push to ", place(), " by a life of the task that was replaced"));
  }
  const Sequence last = entry != nullptr && entry->incarnation == write.incarnation ? entry->last : Sequence(0);
  if (write.sequence <= last) return !BASIN_MUTANT(kApplyRepeat);
  if (write.sequence != last.next() && !BASIN_MUTANT(kAcceptGap)) {
    return absl::OutOfRangeError(absl::StrCat("push to ", place(), ": sequence ", write.sequence.value(),
                                              " comes after a gap, expected ", last.value() + 1));
  }
  return false;
}

void WriteRecord::Note(const Write& write, Entry* entry) {
  if (entry == nullptr) entry = &entries_[write.worker];
  entry->last = entry->incarnation == write.incarnation ? std::max(entry->last, write.sequence) : write.sequence;
  entry->incarnation = write.incarnation;
}

}  // namespace basin
