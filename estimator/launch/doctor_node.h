// The part of `basin doctor` that runs on each node: looks at what only the node itself can see, and says what it sees.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace basin {

// Says hello, then answers each line of standard input until its end. Holds the ports that it was asked to look at, and
// answers on them with the nonce, until then. Changes nothing on the node but the nonce files that it is asked to
// write. INVALID_ARGUMENT for a line that is none of the doctor's.
absl::Status RunDoctorNode(const std::string& version);

}  // namespace basin
