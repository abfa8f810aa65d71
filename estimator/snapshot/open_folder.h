// A folder's stream that closes itself. Null where it could not be opened: errno says why.
#pragma once

#include <dirent.h>

#include <memory>

namespace basin {

struct CloseFolder {
  void operator()(DIR* folder) const { closedir(folder); }
};
using OpenFolder = std::unique_ptr<DIR, CloseFolder>;

}  // namespace basin
