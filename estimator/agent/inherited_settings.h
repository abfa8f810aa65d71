// What a process gets from the one that starts it, and an agent changes for itself alone: its tasks get it as it was.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

namespace basin {

// Files made from now on are this user's alone, and as many may be open as many tasks need. REQUIRES: called once,
// before threads start.
void TightenSettings();

// As they were before TightenSettings.
rlimit InheritedOpenFilesLimit();
mode_t InheritedUmask();

}  // namespace basin
