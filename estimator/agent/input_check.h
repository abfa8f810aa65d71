// Whether this node sees the paths that a job reads.
#pragma once

#include <string>

#include "estimator/agent/messages.h"

namespace basin {

// One problem an input: a path that is relative, is not there, cannot be read, or a pattern that matches nothing.
// Blocks as long as the file system does: run it in a child.
agent::InputsChecked CheckInputsHere(const agent::CheckInputs& request);

// For inputs that could not be looked at: all of them have this problem.
agent::InputsChecked AllInputsFailed(const agent::CheckInputs& request, const std::string& problem);

}  // namespace basin
