// The command of one task of a job: pure.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "cluster_spec/cluster_spec.h"
#include "estimator/job/job.h"

namespace basin {

// The words of the command, with the placeholders of agent/placeholders.h. `shares_node`: other tasks run on its
// machine.
std::vector<std::string> CommandOf(const Job& job, Role role, absl::string_view run_id, bool shares_node);

// Whether tasks of this role run basin-ps.
bool RunsBasinPs(const Job& job, Role role);

// As one would type it: quoted where a shell needs it; the placeholders are left as they are.
std::string QuotedForShell(const std::vector<std::string>& words);

}  // namespace basin
