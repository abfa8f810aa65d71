#include "tests/cuda_on_host/device_memory.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "tests/cuda_on_host/block.h"
#include "tests/cuda_on_host/lock.h"
#include "tests/cuda_on_host/settings.h"

namespace basin::cuda_on_host {
namespace {

constexpr size_t kPage = 4096;
constexpr int kFresh = 0xff, kFreed = 0xfe;
// Freed ranges that are kept closed, so that what still uses them is found.
constexpr size_t kMostFreed = 4096;

struct Allocation {
  size_t size = 0;    // as asked for
  size_t mapped = 0;  // whole pages
  int device = 0;
  bool live = true;
  bool imported = false;
  bool shared = false;
  bool open = false;  // for work under way
  uint64_t at = 0;    // in the device's file
};

struct Device {
  int file = -1;
  uint64_t end = 0;  // of what was ever allocated in the file
  size_t used = 0;
};

struct Memory {
  Lock lock;
  std::map<uintptr_t, Allocation> allocations;
  std::vector<uintptr_t> freed;  // oldest first
  std::vector<Device> devices{static_cast<size_t>(TheSettings().devices)};
  int working = 0;
  std::vector<uintptr_t> open;   // has room for all, as the handler of a signal may not allocate
  struct sigaction before = {};  // of the program
};

// Set while this thread does device work.
thread_local int work_of_this_thread = 0;

void OnFault(int signal, siginfo_t* info, void* context);

Memory& TheMemory() {
  static Memory& memory = []() -> Memory& {
    auto& made = *new Memory;
    struct sigaction action = {};
    action.sa_sigaction = &OnFault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &made.before);
    return made;
  }();
  return memory;
}

// The allocation, live or freed, with `address` in it, its guard page included.
std::map<uintptr_t, Allocation>::iterator Find(Memory& memory, uintptr_t address) {
  auto found = memory.allocations.upper_bound(address);
  if (found == memory.allocations.begin()) return memory.allocations.end();
  --found;
  return address < found->first + found->second.mapped + kPage ? found : memory.allocations.end();
}

void Protect(uintptr_t at, size_t bytes, int protection) {
  if (mprotect(reinterpret_cast<void*>(at), bytes, protection) == 0) return;
  std::perror("cuda_on_host: mprotect");
  std::abort();
}

void ReportFault(uintptr_t address, const Allocation& allocation, uintptr_t base) {
  const std::string kernel = WhatRuns();
  std::string text = "cuda_on_host: ";
  text += work_of_this_thread == 0 ? "host code" : kernel.empty() ? "a copy on the device" : kernel;
  char where[160];
  std::snprintf(where, sizeof where, " touches 0x%zx, byte %zu of %s device memory of %zu bytes",
                static_cast<size_t>(address), static_cast<size_t>(address - base), allocation.live ? "a" : "a freed",
                allocation.size);
  text += where;
  text += allocation.live && work_of_this_thread == 0 ? "; copy it with cudaMemcpyAsync and wait\n" : "\n";
  static_cast<void>(!write(STDERR_FILENO, text.data(), text.size()));
}

// The first touch of an allocation by work of the device opens it; anything else is a mistake, which is told.
void OnFault(int signal, siginfo_t* info, void* context) {
  Memory& memory = TheMemory();
  const int saved_errno = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  memory.lock.lock();
  const auto found = Find(memory, address);
  const bool ours = found != memory.allocations.end();
  bool opened = false;
  if (ours && found->second.live && work_of_this_thread > 0 && address < found->first + found->second.mapped) {
    Protect(found->first, found->second.mapped, PROT_READ | PROT_WRITE);
    if (!found->second.open) memory.open.push_back(found->first);
    found->second.open = true;
    opened = true;
  }
  const Allocation copy = ours ? found->second : Allocation{};
  const uintptr_t base = ours ? found->first : 0;
  memory.lock.unlock();
  errno = saved_errno;
  if (opened) return;
  if (ours) ReportFault(address, copy, base);
  if ((memory.before.sa_flags & SA_SIGINFO) != 0 && memory.before.sa_sigaction != nullptr) {
    memory.before.sa_sigaction(signal, info, context);
    return;
  }
  ::signal(SIGSEGV, SIG_DFL);  // it comes again at once
}

// Reserves closed pages with a guard behind them, and maps `file` over all but that.
void* MapFile(int file, uint64_t at, size_t mapped) {
  void* reserved = mmap(nullptr, mapped + kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return nullptr;
  void* memory = mmap(reserved, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, static_cast<off_t>(at));
  if (memory != MAP_FAILED) return memory;
  munmap(reserved, mapped + kPage);
  return nullptr;
}

size_t WholePages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

}  // namespace

void* AllocateDeviceMemory(int device, size_t bytes) {
  Memory& memory = TheMemory();
  const size_t mapped = WholePages(bytes);
  const std::lock_guard<Lock> hold(memory.lock);
  Device& of = memory.devices[static_cast<size_t>(device)];
  if (mapped < bytes || mapped > TheSettings().memory - of.used) return nullptr;
  if (of.file < 0) of.file = memfd_create("cuda_on_host", MFD_CLOEXEC);
  if (of.file < 0 || ftruncate(of.file, static_cast<off_t>(of.end + mapped)) != 0) return nullptr;
  void* made = MapFile(of.file, of.end, mapped);
  if (made == nullptr) return nullptr;
  Allocation allocation;
  allocation.size = bytes;
  allocation.mapped = mapped;
  allocation.device = device;
  allocation.at = of.end;
  std::memset(made, kFresh, mapped);
  Protect(reinterpret_cast<uintptr_t>(made), mapped, PROT_NONE);
  memory.allocations[reinterpret_cast<uintptr_t>(made)] = allocation;
  memory.open.reserve(memory.allocations.size());
  of.end += mapped;
  of.used += mapped;
  return made;
}

namespace {

// What lies before the guard page is told when it is freed.
void CheckRestOfLastPage(const unsigned char* memory, const Allocation& allocation) {
  for (size_t i = allocation.size; i < allocation.mapped; ++i) {
    if (memory[i] == kFresh) continue;
    std::fprintf(stderr, "cuda_on_host: byte %zu of a device memory of %zu bytes has been written\n", i,
                 allocation.size);
    std::abort();
  }
}

// REQUIRES: the lock. Its addresses stay closed for a while.
void Close(Memory& memory, uintptr_t base, Allocation& allocation) {
  mmap(reinterpret_cast<void*>(base), allocation.mapped, PROT_NONE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  allocation.live = false;
  allocation.open = false;
  std::erase(memory.open, base);
  memory.freed.push_back(base);
  if (memory.freed.size() <= kMostFreed) return;
  const auto oldest = memory.allocations.find(memory.freed.front());
  munmap(reinterpret_cast<void*>(oldest->first), oldest->second.mapped + kPage);
  memory.allocations.erase(oldest);
  memory.freed.erase(memory.freed.begin());
}

}  // namespace

bool FreeDeviceMemory(void* pointer) {
  Memory& memory = TheMemory();
  const std::lock_guard<Lock> hold(memory.lock);
  const auto found = memory.allocations.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == memory.allocations.end() || !found->second.live || found->second.imported) return false;
  Allocation& allocation = found->second;
  Device& device = memory.devices[static_cast<size_t>(allocation.device)];
  device.used -= allocation.mapped;
  Protect(found->first, allocation.mapped, PROT_READ | PROT_WRITE);
  CheckRestOfLastPage(static_cast<const unsigned char*>(pointer), allocation);
  if (allocation.shared) {
    std::memset(pointer, kFreed, allocation.mapped);
  } else {
    fallocate(device.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(allocation.at),
              static_cast<off_t>(allocation.mapped));
  }
  Close(memory, found->first, allocation);
  return true;
}

size_t FreeBytes(int device) {
  Memory& memory = TheMemory();
  const std::lock_guard<Lock> hold(memory.lock);
  return TheSettings().memory - memory.devices[static_cast<size_t>(device)].used;
}

Place PlaceOf(const void* pointer) {
  Memory& memory = TheMemory();
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  const std::lock_guard<Lock> hold(memory.lock);
  const auto found = Find(memory, address);
  if (found == memory.allocations.end()) return {};
  const Allocation& allocation = found->second;
  const size_t offset = address - found->first;
  return {allocation.live ? Region::kDevice : Region::kFreed, allocation.device, reinterpret_cast<void*>(found->first),
          allocation.size, offset < allocation.size ? allocation.size - offset : 0};
}

bool ShareDeviceMemory(void* pointer, MemoryInFile* shared) {
  Memory& memory = TheMemory();
  const std::lock_guard<Lock> hold(memory.lock);
  const auto found = memory.allocations.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == memory.allocations.end() || !found->second.live || found->second.imported) return false;
  Allocation& allocation = found->second;
  allocation.shared = true;
  *shared = {getpid(), memory.devices[static_cast<size_t>(allocation.device)].file, allocation.at, allocation.size,
             allocation.device};
  return true;
}

void* MapDeviceMemory(const MemoryInFile& shared) {
  const std::string path = "/proc/" + std::to_string(shared.process) + "/fd/" + std::to_string(shared.file);
  const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) return nullptr;
  Allocation allocation;
  allocation.size = shared.size;
  allocation.mapped = WholePages(shared.size);
  allocation.device = shared.device;
  allocation.imported = true;
  void* made = MapFile(file, shared.at, allocation.mapped);
  close(file);
  if (made == nullptr) return nullptr;
  Memory& memory = TheMemory();
  const std::lock_guard<Lock> hold(memory.lock);
  Protect(reinterpret_cast<uintptr_t>(made), allocation.mapped, PROT_NONE);
  memory.allocations[reinterpret_cast<uintptr_t>(made)] = allocation;
  memory.open.reserve(memory.allocations.size());
  return made;
}

bool UnmapDeviceMemory(void* pointer) {
  Memory& memory = TheMemory();
  const std::lock_guard<Lock> hold(memory.lock);
  const auto found = memory.allocations.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == memory.allocations.end() || !found->second.live || !found->second.imported) return false;
  Close(memory, found->first, found->second);
  return true;
}

DeviceWork::DeviceWork() {
  Memory& memory = TheMemory();
  const std::lock_guard<Lock> hold(memory.lock);
  ++memory.working;
  ++work_of_this_thread;
}

DeviceWork::~DeviceWork() {
  Memory& memory = TheMemory();
  const std::lock_guard<Lock> hold(memory.lock);
  --work_of_this_thread;
  if (--memory.working > 0) return;
  for (const uintptr_t base : memory.open) {
    Allocation& allocation = memory.allocations.at(base);
    Protect(base, allocation.mapped, PROT_NONE);
    allocation.open = false;
  }
  memory.open.clear();
}

}  // namespace basin::cuda_on_host
