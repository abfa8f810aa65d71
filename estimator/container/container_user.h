// Who this process is, as its containers are to be.
#pragma once

#include "estimator/container/in_container.h"

namespace basin {

// `umask` and `open_files` as its containers are to have them.
ContainerUser ThisUser(mode_t umask, const rlimit& open_files);

}  // namespace basin
