// How the ranks of `basin exec` find each other: rank 0 leaves a file in a folder that all of them see, with the
// addresses where it listens and the run's token. Neither side sends the token: each proves that it has read the file.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/exec/line_connection.h"

namespace basin {

struct Meeting {
  std::string host;                // where rank 0 runs
  std::vector<std::string> hosts;  // its addresses, loopback not among them
  uint16_t port = 0;
  std::string token;
};

// "FOLDER/.basin-exec-LAUNCH".
std::string MeetingPath(const std::string& folder, const std::string& launch);

// Readable for this user alone; replaces what an earlier launch has left.
absl::Status WriteMeeting(const std::string& path, const Meeting& meeting);
// nullopt: not there. PERMISSION_DENIED: somebody else's, or others may read it. INVALID_ARGUMENT: no such file.
absl::StatusOr<std::optional<Meeting>> ReadMeeting(const std::string& path);

// What a side says to show that it knows the token: a keyed hash of both sides' nonces. `side` keeps one side's answer
// from being used as the other's.
std::string MeetingProof(const std::string& token, absl::string_view side, const std::string& own_nonce,
                         const std::string& other_nonce);

// Calls rank 0 where its file says that it is: tries the file's addresses in turn, says `introduction`, and lets both
// sides prove that they know the token. What rank 0 answers beyond that is still to be read. UNAVAILABLE: nobody
// answers, or somebody else.
absl::StatusOr<LineConnection> CallRankZero(const Meeting& meeting, const nlohmann::json& introduction);

// Whether the rank 0 that wrote the file is there and still gathers. It takes the caller for no rank, and tells its
// user of it. May take seconds.
bool StillGathers(const Meeting& meeting);

// IPv4 addresses of this machine's interfaces that are up, without loopback.
std::vector<std::string> OwnAddresses();

}  // namespace basin
