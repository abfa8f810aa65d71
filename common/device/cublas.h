// The part of cuBLAS that is used here, from the shared library of this machine: programs start without it.
#pragma once

#include <cublas_v2.h>

#include "absl/status/statusor.h"

namespace basin {

struct Cublas {
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  decltype(&cublasSgemm_v2) sgemm = nullptr;
  decltype(&cublasGetStatusString) status_string = nullptr;
};

// Loaded at the first call, and kept. FAILED_PRECONDITION: which files were looked for, and what to install.
absl::StatusOr<const Cublas*> LoadCublas();

}  // namespace basin
