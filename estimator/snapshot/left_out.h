// Whether one file of a source directory is part of its snapshot: asked before a run starts, without a walk.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace basin {

// `path` is relative to the source directory and has no "..". OK where the rules of ReadTree (tree.h) keep it.
// INVALID_ARGUMENT where they do not: `train.py does not reach the nodes: .basinignore leaves out train.py by its line
// "*.py"; remove that line, or …`.
absl::Status CheckIsKept(const std::string& source_directory, const std::string& path);

}  // namespace basin
