// The part of cuBLAS that common/device/cublas.h loads. The product is a plain loop: OpenBLAS would hand parts of it to
// threads of its own, which may not touch device memory.
#include <cublas_v2.h>

#include <algorithm>
#include <vector>

#include "tests/cuda_on_host/enqueue.h"
#include "tests/cuda_on_host/sanitizers.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
};

namespace {

// By columns, `stride` apart.
struct Matrix {
  const float* data;
  int rows, columns, stride;
};

void SayRead(const Matrix& matrix) {
  for (int i = 0; i < matrix.columns; ++i) {
    basin::cuda_on_host::SayRead(matrix.data + size_t{1} * i * matrix.stride, matrix.rows * sizeof(float));
  }
}

// A copy without gaps of the matrix, or of its transpose.
std::vector<float> Packed(const Matrix& from, bool transposed) {
  std::vector<float> to(size_t{1} * from.rows * from.columns);
  for (int column = 0; column < from.columns; ++column) {
    for (int row = 0; row < from.rows; ++row) {
      const float value = from.data[size_t{1} * column * from.stride + row];
      to[transposed ? size_t{1} * row * from.columns + column : size_t{1} * column * from.rows + row] = value;
    }
  }
  return to;
}

struct Product {
  int m, n, k;
  float alpha, beta;
  Matrix a, b;
  bool a_transposed, b_transposed;
  float* c;
  int c_stride;
};

void Multiply(const Product& product) {
  SayRead(product.a);
  SayRead(product.b);
  const std::vector<float> a = Packed(product.a, product.a_transposed), b = Packed(product.b, product.b_transposed);
  const auto m = static_cast<size_t>(product.m), k = static_cast<size_t>(product.k);
  std::vector<float> sum(m);
  for (int column = 0; column < product.n; ++column) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (size_t i = 0; i < k; ++i) {
      const float factor = b[static_cast<size_t>(column) * k + i];
      for (size_t row = 0; row < m; ++row) sum[row] += factor * a[i * m + row];
    }
    float* const c = product.c + size_t{1} * column * product.c_stride;
    basin::cuda_on_host::SayWritten(c, m * sizeof(float));
    for (size_t row = 0; row < m; ++row) {
      // What is there counts not at all at 0: it may be a NaN.
      c[row] = product.alpha * sum[row] + (product.beta == 0 ? 0 : product.beta * c[row]);
    }
  }
}

}  // namespace

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  *handle = new cublasContext;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t a_operation, cublasOperation_t b_operation,
                              int m, int n, int k, const float* alpha, const float* a, int a_stride, const float* b,
                              int b_stride, const float* beta, float* c, int c_stride) {
  if (m < 0 || n < 0 || k < 0) return CUBLAS_STATUS_INVALID_VALUE;
  Product product = {m, n,       k, *alpha, *beta, {}, {}, a_operation != CUBLAS_OP_N, b_operation != CUBLAS_OP_N,
                     c, c_stride};
  product.a = product.a_transposed ? Matrix{a, k, m, a_stride} : Matrix{a, m, k, a_stride};
  product.b = product.b_transposed ? Matrix{b, n, k, b_stride} : Matrix{b, k, n, b_stride};
  // Which of its kernels it takes depends on the shape.
  uint64_t code = 2 * product.a_transposed + product.b_transposed + 1;
  for (const int extent : {m, n, k}) code = code * 0x9e3779b97f4a7c15 + static_cast<uint64_t>(extent);
  const cudaError_t error = basin::cuda_on_host::RunInStream(
      handle->stream, [product] { Multiply(product); }, code);
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

const char* cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "the operation completed successfully" : "the operation failed";
}
