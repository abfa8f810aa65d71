// Lines of agent.log, which a supervisor gets as a stream: one an event, with its time. No secret goes there.
#pragma once

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/log.h"

namespace basin {

inline void AgentLog(absl::string_view line) {
  Info(absl::StrCat(absl::FormatTime("%Y-%m-%d %H:%M:%E3S", absl::Now(), absl::LocalTimeZone()), " ", line));
}

}  // namespace basin
