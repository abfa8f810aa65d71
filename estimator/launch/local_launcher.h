// Agents on this machine: this same program, forked.
#pragma once

#include <memory>
#include <string>

#include "estimator/launch/launcher.h"

namespace basin {

// `base`: Basin's folder, absolute. `programs`: where basin-ps lies if not beside this program; may be empty.
std::unique_ptr<Launcher> MakeLocalLauncher(const std::string& base, const std::string& programs);

}  // namespace basin
