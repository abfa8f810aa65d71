// Numbers that every way of supervising a run has in common, over agents on hosts and over pods.
#pragma once

#include <cstdint>

namespace basin {

// An agent takes each connection with a larger epoch only: the supervisor's, then, in so many bits, the connection's.
inline constexpr int kConnectionBits = 24;
// Of all outputs that are collected from a node.
inline constexpr uint64_t kOutputsLimit = uint64_t{100} << 30;
// Of a task that has failed.
inline constexpr int kShownLogLines = 20;

}  // namespace basin
