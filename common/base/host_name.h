// What this machine calls itself, for messages.
#pragma once

#include <unistd.h>

#include <string>

namespace basin {

inline std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "this machine";
}

}  // namespace basin
