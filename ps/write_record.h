// What a shard or a bucket remembers of who has written to it, which is what makes a push that comes again harmless.
#pragma once

#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"

namespace basin {

class WriteRecord {
 public:
  struct Write {
    uint32_t worker = 0;  // wire::WorkerKey
    Incarnation incarnation;
    Sequence sequence;
  };
  struct Entry {
    Incarnation incarnation;
    Sequence last;
  };

  // nullptr: this worker has not written yet. Good until the next Note.
  Entry* Find(uint32_t worker) {
    const auto at = entries_.find(worker);
    return at == entries_.end() ? nullptr : &at->second;
  }
  const Entry* Find(uint32_t worker) const {
    const auto at = entries_.find(worker);
    return at == entries_.end() ? nullptr : &at->second;
  }
  // Whether the write was applied before; false: it is the next one. OUT_OF_RANGE: it comes after a gap;
  // INVALID_ARGUMENT: sequence 0; ABORTED: of a life of the task that was replaced. `entry` is the worker's; `place`
  // names the target, for the message.
  absl::StatusOr<bool> IsRepeat(const Write& write, const Entry* entry, absl::FunctionRef<std::string()> place) const;
  // The write was applied.
  void Note(const Write& write, Entry* entry);
  // 0: none. Of another incarnation than the last one that wrote: 0.
  Sequence last(uint32_t worker, Incarnation incarnation) const;
  void Forget(uint32_t worker) { entries_.erase(worker); }  // for mutants

 private:
  absl::flat_hash_map<uint32_t, Entry> entries_;  // by worker; looked up, never gone through
};

}  // namespace basin
