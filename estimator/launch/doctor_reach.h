// Proves that nodes reach each other's ports: one answers on them with a nonce, another connects and compares.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "common/base/unique_fd.h"
#include "estimator/launch/doctor_talk.h"

namespace basin {

// Starts a child that accepts on the listeners and says `nonce` to whoever comes, until it is killed or this process
// ends. Its number, 0 where it cannot be started. The caller reaps it. REQUIRES: no other thread.
pid_t StartAnswering(const std::vector<UniqueFd>& listeners, const std::string& nonce);

// Connects to all of them at once, and waits 3 s for their nonces. One result a port of each peer, in their order.
std::vector<DoctorReached> TryToReach(const std::vector<DoctorPeer>& peers);

}  // namespace basin
