// The archive of Basin's programs that is sent to nodes: basin-VERSION-linux-x86_64.tar.zst, one folder of that name
// with bin/, lib/ and python/ below it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "estimator/launch/launcher.h"

namespace basin {

struct Bundle {
  std::string path;     // empty: there is none
  std::string machine;  // uname -m that its programs are for
  std::string digest;   // of the archive, first 8 hex digits; names the folder on the nodes
  uint64_t bytes = 0;   // of the archive
};

// `named` where it is not empty (NOT_FOUND if it is not there); else the one of this version beside the folder of
// `self` (BUILD/, PREFIX/share/basin/, PREFIX/). A bundle without a path where none is found: nodes that have Basin
// need none.
absl::StatusOr<Bundle> FindBundle(const std::string& named, const std::string& self, const std::string& version);

// What is sent to the nodes of `target` that lack Basin: by FindBundle, from this program's folder. None where nothing
// is ever sent: the local target, and one that names its programs.
absl::StatusOr<Bundle> BundleFor(const Target& target, const std::string& version);

// Its tar archive, decompressed piece by piece, and kProgramsWhole after it.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenBundle(const Bundle& bundle);

}  // namespace basin
