// Which rank of which launch this process is, as its launcher's variables say: mpirun, srun, any PMI launcher. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace basin {

struct LaunchedRank {
  uint32_t rank = 0, size = 0;
  // Names the launch, alike in all of its ranks: letters, digits, ".", "_" and "-" alone.
  std::string launch;
};

// What the command line says in their place.
struct RankFlags {
  std::optional<uint32_t> rank, size;
  std::string launch;
};

// `variable` reads the environment. FAILED_PRECONDITION: no launcher's variables are there, and which were looked for.
// INVALID_ARGUMENT: they make no sense.
absl::StatusOr<LaunchedRank> ReadLaunchedRank(
    const std::function<std::optional<std::string>(const std::string& name)>& variable, const RankFlags& flags);

}  // namespace basin
