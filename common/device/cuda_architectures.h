// Which devices code runs on that was built for CMAKE_CUDA_ARCHITECTURES. Pure.
#pragma once

#include "absl/strings/string_view.h"

namespace basin {

// `architectures`: "75-real, 80-real, 90". Machine code ("-real", and plain numbers) runs on devices of the same major
// number and at least the minor one; what is kept as PTX ("-virtual", and plain numbers) is compiled by the driver for
// any later device. (CUDA C++ Programming Guide, 3.1.2 and 3.1.3.)
bool RunsOn(absl::string_view architectures, int major, int minor);

}  // namespace basin
