#include "common/device/device_of_rank.h"

#include <cstdlib>

#include "absl/strings/numbers.h"

namespace basin {

std::string DeviceOfRank(absl::string_view name, std::optional<int> local_rank,
                         const std::vector<DeviceInfo>& devices) {
  if (!local_rank || (name != "cuda" && name != "auto")) return std::string(name);
  std::vector<std::string> viable;
  for (const DeviceInfo& device : devices) {
    if (device.viable && device.cuda >= 0) viable.push_back(device.name);
  }
  if (viable.empty()) return std::string(name);
  return viable[static_cast<size_t>(*local_rank) % viable.size()];
}

std::optional<int> LocalRankInEnvironment() {
  for (const char* variable : {"BASIN_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",
                               "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "PALS_LOCAL_RANKID"}) {
    const char* text = std::getenv(variable);
    int rank = 0;
    if (text != nullptr && absl::SimpleAtoi(text, &rank) && rank >= 0) return rank;
  }
  return std::nullopt;
}

}  // namespace basin
