// agent.proto's messages under a short name.
#pragma once

#include "estimator/agent/agent.pb.h"

namespace basin {
namespace agent = estimator::v1;  // NOLINT(misc-unused-alias-decls)
}  // namespace basin
