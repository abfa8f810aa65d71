// Which device a rank of an MPI launch computes on, where nobody said its number.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/device/device_list.h"

namespace basin {

// `name` as OpenDevice takes it. For "cuda" and "auto" the ranks of a node, counted by `local_rank`, take the viable
// CUDA devices in turn: one each where there are enough, and where a launcher has hidden all but one from a rank, that
// one. Any other name, and any without a local rank or a viable device, is returned unchanged. Pure.
std::string DeviceOfRank(absl::string_view name, std::optional<int> local_rank, const std::vector<DeviceInfo>& devices);

// The rank's place on its node, as the launcher's variables have it: Basin's, Open MPI's, MPICH's and Intel's, MVAPICH's,
// Slurm's, Cray's. None where no variable holds a number. `variable` returns a variable's value, "" where it is not set.
std::optional<int> LocalRank(const std::function<std::string(const char*)>& variable);

}  // namespace basin
