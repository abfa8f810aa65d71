// Where Basin's own programs, library and Python package lie on a node, seen from the running one.
#pragma once

#include <string>

namespace basin {

struct Programs {
  std::string folder;   // of basin, basin-ps, basin-worker
  std::string library;  // libbasin.so; empty where it is not there
  std::string python;   // the folder to put on PYTHONPATH; empty where it is not there
};

// `self` is the path of the running program: PREFIX/bin/basin, as installed, from a bundle, or in a build folder.
Programs FindPrograms(const std::string& self);
// The same of this process.
Programs OwnPrograms();

}  // namespace basin
