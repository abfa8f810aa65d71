// The time of a row's last push, as tables keep it: sixteenths of a second since the table's first call; 2^32 of them
// are 8.5 years.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

#include "absl/time/time.h"

namespace basin {

class StampClock final {
 public:
  uint32_t Of(absl::Time now) {
    if (!epoch_) epoch_ = now;
    return Stamps(now - *epoch_);
  }
  // How much older than now's the stamp of an unused row is: rows with a stamp below Of(now) - Span(unused) + 1 go,
  // once Of(now) is that large. Rounded up, and at least one: a row may go a sixteenth of a second early, and never in
  // the moment of its push.
  uint32_t Span(absl::Duration unused) const { return std::max(1u, Stamps(unused + absl::Milliseconds(62))); }

 private:
  static uint32_t Stamps(absl::Duration since) {
    constexpr int64_t kPerSecond = 16;
    const int64_t milliseconds = absl::ToInt64Milliseconds(since);
    if (milliseconds <= 0) return 0;
    const int64_t stamp = milliseconds / 1000 * kPerSecond + milliseconds % 1000 * kPerSecond / 1000;
    return static_cast<uint32_t>(std::min<int64_t>(stamp, std::numeric_limits<uint32_t>::max()));
  }

  std::optional<absl::Time> epoch_;
};

}  // namespace basin
