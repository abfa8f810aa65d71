// Values in a CUDA device's memory, for tests.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <utility>
#include <vector>

namespace basin {

inline void ExpectCuda(cudaError_t error) { ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

// A copy in device memory, aligned as all cudaMalloc gives.
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values) : count_(values.size()) {
    ExpectCuda(cudaMalloc(reinterpret_cast<void**>(&data_), bytes() + 1));
    if (count_ == 0) return;
    ExpectCuda(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice));
    // A copy from memory that is not pinned may return before it has arrived, and streams do not wait for it.
    ExpectCuda(cudaDeviceSynchronize());
  }
  OnDevice(OnDevice&& other) noexcept : data_(std::exchange(other.data_, nullptr)), count_(other.count_) {}
  ~OnDevice() { static_cast<void>(cudaFree(data_)); }
  T* data() const { return data_; }
  // After all that was asked of the device.
  std::vector<T> Copy() const {
    ExpectCuda(cudaDeviceSynchronize());
    std::vector<T> values(count_);
    if (count_ > 0) ExpectCuda(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  size_t bytes() const { return count_ * sizeof(T); }
  T* data_ = nullptr;
  size_t count_ = 0;
};

// Copies `count` values from device memory that someone else owns, after all that was asked of the device.
template <typename T>
std::vector<T> CopyFromDevice(const T* from, size_t count) {
  ExpectCuda(cudaDeviceSynchronize());
  std::vector<T> values(count);
  if (count > 0) ExpectCuda(cudaMemcpy(values.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}

// Skips its tests, with the reason, where there is no device.
class OnDeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) GTEST_SKIP() << "no GPU: " << cudaGetErrorString(error);
    ExpectCuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  void TearDown() override {
    if (stream_ != nullptr) ExpectCuda(cudaStreamDestroy(stream_));
  }

  cudaStream_t stream_ = nullptr;
};

}  // namespace basin
