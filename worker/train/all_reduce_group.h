// The seam between the ranks that train one model together: what they tell each other. Twins: MpiGroup (worker/mpi),
// and threads of one process in tests/train.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace basin {

// One thread a rank. All ranks make the same calls in the same order. An error means that the ranks are no longer
// together: the group can only be left then. UNAVAILABLE: a rank did not take part within the deadline, or ended.
class AllReduceGroup {
 public:
  virtual ~AllReduceGroup() = default;
  virtual uint32_t rank() const = 0;
  virtual uint32_t size() const = 0;

  // Begins to replace `values` by their sums over all ranks; they are lent until Wait. Several may be under way. `what`
  // names them in errors. The ticket is for Wait.
  virtual absl::StatusOr<size_t> StartSum(absl::Span<float> values, std::string what) = 0;
  // A moment between two pieces of other work: what is under way may go on.
  virtual void Progress() = 0;
  // Waits for the sum of this ticket. When it was seen to be there.
  virtual absl::StatusOr<absl::Time> Wait(size_t ticket) = 0;

  // Rank 0's text, on all ranks.
  virtual absl::Status Broadcast(std::string* text) = 0;
  // On rank 0 each rank's text, by rank; elsewhere empty.
  virtual absl::StatusOr<std::vector<std::string>> Gather(absl::string_view text) = 0;
};

// INVALID_ARGUMENT, on all ranks, where one rank's text is not rank 0's: names the rank, and the first line that
// differs. `what` is compared: "the flags".
absl::Status CheckSame(AllReduceGroup& group, absl::string_view what, absl::string_view text);

}  // namespace basin
