// Device memory: pages that only work of a device may touch. Each allocation ends at a guard page.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace basin::cuda_on_host {

// The file that holds an allocation, by which another process maps it.
struct MemoryInFile {
  pid_t process;
  int file;
  uint64_t at;
  uint64_t size;
  int device;
};

// Null where the device has not as much left. What is in it is 0xff, a NaN.
void* AllocateDeviceMemory(int device, size_t bytes);
// Whether it was an allocation's begin. REQUIRES: no work uses it.
bool FreeDeviceMemory(void* memory);
size_t FreeBytes(int device);

enum class Region { kOther, kDevice, kFreed };
// What `memory` points into, and where that begins and how much of it is left from there.
struct Place {
  Region region = Region::kOther;
  int device = 0;
  void* base = nullptr;
  size_t size = 0;
  size_t left = 0;
};
Place PlaceOf(const void* memory);

// From now on its pages stay when it is freed, with 0xfe in them: another process may have them. False: not a begin.
bool ShareDeviceMemory(void* memory, MemoryInFile* shared);
// Null where the file cannot be opened, as when its process has ended.
void* MapDeviceMemory(const MemoryInFile& shared);
bool UnmapDeviceMemory(void* memory);

// While one lives, its thread may touch device memory.
class DeviceWork {
 public:
  DeviceWork();
  ~DeviceWork();
};

}  // namespace basin::cuda_on_host
