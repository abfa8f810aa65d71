// What Basin's programs exit with.
#pragma once

#include "absl/status/status.h"

namespace basin {

inline constexpr int kExitOk = 0;
// The work failed: a peer died, a disk was full, training diverged.
inline constexpr int kExitFailed = 1;
// The user's input is wrong: flags, TF_CONFIG, a job file, a taken port. Trying again without a change is no use.
inline constexpr int kExitUsage = 2;

inline int ExitCodeFor(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kOutOfRange:
      return kExitUsage;
    default:
      return kExitFailed;
  }
}

}  // namespace basin
