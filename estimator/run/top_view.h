// `basin top` as text. Pure.
#pragma once

#include <string>

#include "estimator/run/stats.h"

namespace basin {

// The run, its ps, its clients (workers first to lag stand out by the lag column), its inputs, and who waits for whom.
// Lines end with '\n'; no colour, no cursor movement.
std::string RenderTop(const ClusterStats& stats);

}  // namespace basin
