// Agents on other machines, by the system's ssh client: its configuration, keys, agents and jump hosts all work.
#pragma once

#include <memory>
#include <string>

#include "estimator/launch/bundle.h"
#include "estimator/launch/launcher.h"

namespace basin {

std::unique_ptr<Launcher> MakeSshLauncher(const Target& target, const std::string& version, const Bundle& bundle);

}  // namespace basin
