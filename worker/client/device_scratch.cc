#include "worker/client/device_scratch.h"

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/codec/cuda_half.h"
#include "common/device/cuda_status.h"

namespace basin {
namespace {

// An Unfit, then a piece, which begins up to 3 elements later: with the rest on division by 4 that its floats have.
constexpr size_t kHalvesAt = 64;
constexpr size_t kRoomBytes = kHalvesAt + kMaxShardBytes + 3 * sizeof(uint16_t);
static_assert(sizeof(Unfit) <= kHalvesAt);

uint16_t* HalvesFor(const CudaMemory& room, const float* from) {
  return room.as<uint16_t>() + kHalvesAt / sizeof(uint16_t) + reinterpret_cast<uintptr_t>(from) / sizeof(float) % 4;
}

cudaError_t RunEach(const CudaMemory& room, cudaStream_t stream) {
  const auto* const floats = room.as<const float>() + 2 * kHalvesAt / sizeof(float);
  cudaError_t error = cudaMemsetAsync(room.data(), 0, 4 * kHalvesAt, stream);
  for (const DType type : {DType::kF16, DType::kBF16}) {
    if (error == cudaSuccess) error = StartNarrow(stream, type, floats, 4, HalvesFor(room, floats), nullptr);
    for (const DType from : {DType::kF32, type}) {
      if (error == cudaSuccess) error = StartFindUnfit(stream, from, type, floats, 4, room.as<Unfit>());
    }
  }
  return error != cudaSuccess ? error : cudaStreamSynchronize(stream);
}

}  // namespace

absl::Status DeviceScratch::Prepare(int device) {
  MutexLock preparing(preparing_);  // two rooms of one device would do harm
  if (Of(device) != nullptr) return absl::OkStatus();
  const std::string name = absl::StrCat("cuda:", device);
  const auto check = [&](cudaError_t error, absl::string_view what) {
    if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
    return CudaStatus(error, name, what);
  };
  auto room = std::make_unique<CudaMemory>();
  BASIN_RETURN_IF_ERROR(room->Resize(name, kRoomBytes));
  cudaStream_t stream = nullptr;
  BASIN_RETURN_IF_ERROR(check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream"));
  const absl::Cleanup destroy = [stream] { static_cast<void>(cudaStreamDestroy(stream)); };
  BASIN_RETURN_IF_ERROR(check(RunEach(*room, stream), "round gradients to 16 bits"));
  MutexLock lock(mutex_);
  rooms_[device] = std::move(room);
  return absl::OkStatus();
}

CudaMemory* DeviceScratch::Of(int device) {
  MutexLock lock(mutex_);
  const auto at = rooms_.find(device);
  return at == rooms_.end() ? nullptr : at->second.get();
}

cudaError_t DeviceScratch::NarrowOut(int device, cudaStream_t stream, DType type, void* to, const float* from,
                                     uint64_t n) {
  const CudaMemory* const room = Of(device);
  const size_t bytes = n * sizeof(uint16_t);
  if (room == nullptr || bytes > kMaxShardBytes) return cudaErrorInvalidValue;
  uint16_t* const halves = HalvesFor(*room, from);
  const cudaError_t error = StartNarrow(stream, type, from, n, halves, nullptr);
  return error != cudaSuccess ? error : cudaMemcpyAsync(to, halves, bytes, cudaMemcpyDefault, stream);
}

cudaError_t DeviceScratch::FindUnfit(int device, cudaStream_t stream, DType from, DType type, const void* values,
                                     uint64_t n, Unfit* unfit) {
  const CudaMemory* const room = Of(device);
  if (room == nullptr) return cudaErrorInvalidValue;
  const cudaError_t error = StartFindUnfit(stream, from, type, values, n, room->as<Unfit>());
  return error != cudaSuccess ? error
                              : cudaMemcpyAsync(unfit, room->data(), sizeof(Unfit), cudaMemcpyDeviceToHost, stream);
}

}  // namespace basin
