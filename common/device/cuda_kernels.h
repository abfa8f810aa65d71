// The kernels of the CUDA twin, as functions that start them on a stream. Each returns cudaGetLastError().
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/device/device.h"

namespace basin {

cudaError_t StartAddBias(cudaStream_t stream, int64_t rows, int64_t columns, const float* bias, float* x);
cudaError_t StartRelu(cudaStream_t stream, int64_t count, float* x);
cudaError_t StartReluBackward(cudaStream_t stream, int64_t count, const float* forward, float* gradient);
cudaError_t StartColumnSums(cudaStream_t stream, int64_t rows, int64_t columns, const float* x, float* out);
cudaError_t StartCopyColumns(cudaStream_t stream, int64_t rows, absl::Span<const Device::ColumnCopy> copies);

// Of one row each: what StartSumLosses adds up.
struct RowLoss {
  double loss;
  uint32_t correct;
};
cudaError_t StartSoftmaxCrossEntropy(cudaStream_t stream, int64_t rows, int64_t classes, const float* logits,
                                     const uint8_t* labels, float* gradient, RowLoss* losses);
cudaError_t StartSigmoidCrossEntropy(cudaStream_t stream, int64_t rows, const float* logits, const uint8_t* labels,
                                     float* gradient, RowLoss* losses);
// In an order that depends on `rows` alone.
cudaError_t StartSumLosses(cudaStream_t stream, int64_t rows, const RowLoss* losses, Device::LossResult* sum);

}  // namespace basin
