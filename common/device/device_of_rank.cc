#include "common/device/device_of_rank.h"

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

std::optional<int> LocalRank(const std::function<std::string(const char*)>& variable) {
  for (const char* name : {"BASIN_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",
                           "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "PALS_LOCAL_RANKID"}) {
    int rank = 0;
    if (absl::SimpleAtoi(variable(name), &rank) && rank >= 0) return rank;
  }
  return std::nullopt;
}

}  // namespace basin
