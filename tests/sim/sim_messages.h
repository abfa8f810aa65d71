// What the simulation does to messages under way, and reads from them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/wire/frame.h"

namespace basin::sim {

// A push whose first number has become NaN, so that its lane refuses it; other messages as they are.
wire::Message Poisoned(wire::Message message);

// Of a message and the moment of its delivery.
uint64_t TraceHash(const wire::Message& message, absl::Time at);

// Each apply adds one mark and one version: parameters of one moment have as many marks (at the first `lives` elements
// of a shard) as versions after the first. Returns what is torn in an answer.
std::vector<std::string> TornReads(const wire::Message& message, size_t lives);

}  // namespace basin::sim
