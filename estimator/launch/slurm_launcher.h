#pragma once

#include <memory>
#include <string>

#include "estimator/launch/launcher.h"

namespace basin {

// Starts agents by srun in the target's allocation, of `program` (a path on every node). Nothing is ever sent.
std::unique_ptr<Launcher> MakeSlurmLauncher(const Target& target, const std::string& program);

}  // namespace basin
