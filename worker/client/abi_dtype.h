// Between DLPack's element types and Basin's.
#pragma once

#include "absl/status/statusor.h"
#include "basin/basin.h"
#include "common/base/dtype.h"

namespace basin::abi {

absl::StatusOr<DType> FromDLPack(const basin_dtype& type);
basin_dtype ToDLPack(DType dtype);

}  // namespace basin::abi
