// The runtime's functions about devices, errors and the driver.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <sched.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>

#include "tests/cuda_on_host/calls.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/sanitizers.h"
#include "tests/cuda_on_host/settings.h"
#include "tests/cuda_on_host/streams.h"

namespace basin::cuda_on_host {
namespace {

// What Basin is written for at the least.
constexpr int kVersion = 12000;
// As a device of the architecture that a build for the emulation says it has code for.
constexpr int kMajor = 9, kMinor = 0;

bool IsDevice(int device) { return device >= 0 && device < TheSettings().devices; }

bool Holds(uint64_t found, uint64_t value, unsigned flags) {
  switch (flags & 3u) {
    case CU_STREAM_WAIT_VALUE_GEQ:
      return static_cast<int64_t>(found - value) >= 0;
    case CU_STREAM_WAIT_VALUE_EQ:
      return found == value;
    case CU_STREAM_WAIT_VALUE_AND:
      return (found & value) != 0;
    default:
      return (~(found | value)) != 0;
  }
}

// The stream looks again and again: another process may be who writes.
template <typename T>
CUresult WaitValue(CUstream stream, CUdeviceptr address, T value, unsigned flags) {
  if (!IsStream(stream) || address % sizeof(T) != 0) return CUDA_ERROR_INVALID_VALUE;
  auto* const at = reinterpret_cast<T*>(address);
  Enqueue(stream, [at, value, flags] {
    for (;;) {
      T found = __atomic_load_n(at, __ATOMIC_ACQUIRE);
      if constexpr (sizeof(T) == 4) {
        // Cyclic, in 32 bits.
        if ((flags & 3u) == CU_STREAM_WAIT_VALUE_GEQ ? static_cast<int32_t>(found - value) >= 0
                                                     : Holds(found, value, flags)) {
          break;
        }
      } else if (Holds(found, value, flags)) {
        break;
      }
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    Acquire(at);
  });
  return CUDA_SUCCESS;
}

template <typename T>
CUresult WriteValue(CUstream stream, CUdeviceptr address, T value) {
  if (!IsStream(stream) || address % sizeof(T) != 0) return CUDA_ERROR_INVALID_VALUE;
  auto* const at = reinterpret_cast<T*>(address);
  Enqueue(
      stream,
      [at, value] {
        Release(at);
        __atomic_store_n(at, value, __ATOMIC_RELEASE);
      },
      Seen::kByItself);
  return CUDA_SUCCESS;
}

CUresult WaitValue32(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned flags) {
  return WaitValue<uint32_t>(stream, address, value, flags);
}
CUresult WaitValue64(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned flags) {
  return WaitValue<uint64_t>(stream, address, value, flags);
}
CUresult WriteValue32(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned /*flags*/) {
  return WriteValue<uint32_t>(stream, address, value);
}
CUresult WriteValue64(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned /*flags*/) {
  return WriteValue<uint64_t>(stream, address, value);
}

struct DriverFunction {
  const char* name;
  void* function;
};
const DriverFunction kDriverFunctions[] = {
    {"cuStreamWaitValue32", reinterpret_cast<void*>(&WaitValue32)},
    {"cuStreamWaitValue64", reinterpret_cast<void*>(&WaitValue64)},
    {"cuStreamWriteValue32", reinterpret_cast<void*>(&WriteValue32)},
    {"cuStreamWriteValue64", reinterpret_cast<void*>(&WriteValue64)},
};

cudaError_t FindDriverFunction(const char* symbol, void** function, cudaDriverEntryPointQueryResult* result) {
  *function = nullptr;
  for (const DriverFunction& known : kDriverFunctions) {
    if (std::strcmp(known.name, symbol) == 0) *function = known.function;
  }
  if (result != nullptr) {
    *result = *function != nullptr ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
  }
  return *function != nullptr ? cudaSuccess : cudaErrorSymbolNotFound;
}

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};
const ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorSymbolNotFound, "cudaErrorSymbolNotFound", "named symbol not found"},
    {cudaErrorDeviceUninitialized, "cudaErrorDeviceUninitialized", "invalid device context"},
    {cudaErrorMapBufferObjectFailed, "cudaErrorMapBufferObjectFailed", "mapping of buffer object failed"},
    {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
     "part or all of the requested memory range is already mapped"},
    {cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered",
     "pointer does not correspond to a registered memory region"},
};

}  // namespace
}  // namespace basin::cuda_on_host

using namespace basin::cuda_on_host;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  return Call(__func__, [&] {
    *count = TheSettings().devices;
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  return Call(__func__, [&] {
    if (!IsDevice(device)) return cudaErrorInvalidDevice;
    CurrentDevice() = device;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDevice(int* device) {
  return Call(__func__, [&] {
    *device = CurrentDevice();
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return Call(__func__, [&] {
    if (!IsDevice(device)) return cudaErrorInvalidDevice;
    std::memset(properties, 0, sizeof *properties);
    std::snprintf(properties->name, sizeof properties->name, "CUDA device emulated on the CPU");
    properties->uuid.bytes[0] = static_cast<char>(device);
    properties->totalGlobalMem = TheSettings().memory;
    properties->major = kMajor;
    properties->minor = kMinor;
    properties->multiProcessorCount = 2;
    properties->maxThreadsPerBlock = 1024;
    properties->warpSize = 32;
    properties->unifiedAddressing = 1;
    properties->canMapHostMemory = 1;
    properties->asyncEngineCount = 2;
    properties->pciBusID = device;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return Call(__func__, [&] {
    if (!IsDevice(device)) return cudaErrorInvalidDevice;
    switch (attribute) {
      case cudaDevAttrComputeCapabilityMajor:
        *value = kMajor;
        break;
      case cudaDevAttrComputeCapabilityMinor:
        *value = kMinor;
        break;
      case cudaDevAttrMultiProcessorCount:
        *value = 2;
        break;
      case cudaDevAttrMaxThreadsPerBlock:
        *value = 1024;
        break;
      case cudaDevAttrWarpSize:
        *value = 32;
        break;
      case cudaDevAttrUnifiedAddressing:
      case cudaDevAttrCanMapHostMemory:
      case cudaDevAttrCanUseHostPointerForRegisteredMem:
      case cudaDevAttrHostRegisterSupported:
      case cudaDevAttrIpcEventSupport:
        *value = 1;
        break;
      default:
        *value = 0;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  return Call(__func__, [&] {
    if (!IsDevice(device)) return cudaErrorInvalidDevice;
    std::snprintf(text, static_cast<size_t>(length), "0000:%02X:00.0", static_cast<unsigned>(device) & 0xffu);
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return Call(__func__, [&] {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
  });
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return Call(__func__, [&] {
    *free = FreeBytes(CurrentDevice());
    *total = TheSettings().memory;
    return cudaSuccess;
  });
}

cudaError_t cudaGetLastError() { return TakeLastError(); }
cudaError_t cudaPeekAtLastError() { return PeekLastError(); }

const char* cudaGetErrorName(cudaError_t error) {
  for (const ErrorText& known : kErrors) {
    if (known.error == error) return known.name;
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  for (const ErrorText& known : kErrors) {
    if (known.error == error) return known.text;
  }
  return "unrecognized error code";
}

#undef cudaGetDriverEntryPoint
#undef cudaGetDriverEntryPointByVersion
cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** function, unsigned long long /*flags*/,
                                    cudaDriverEntryPointQueryResult* result) {
  return Call(__func__, [&] { return FindDriverFunction(symbol, function, result); });
}

#if CUDART_VERSION >= 12050
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned /*version*/,
                                             unsigned long long /*flags*/, cudaDriverEntryPointQueryResult* result) {
  return Call(__func__, [&] { return FindDriverFunction(symbol, function, result); });
}
#endif
