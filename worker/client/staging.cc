#include "worker/client/staging.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/wire/registered_memory.h"

namespace basin {
namespace {
constexpr size_t kPage = 4096;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }
}  // namespace

Staging::Staging(size_t bytes) : bytes_(bytes), free_(bytes) {}

absl::StatusOr<std::shared_ptr<Staging>> Staging::Make(size_t bytes, DeviceCopies& copies, int device) {
  std::shared_ptr<Staging> staging(new Staging(RoundUp(bytes, kPage)));
  staging->memory_ = wire::AllocateRegistered(staging->bytes_ + kPage);
  if (staging->memory_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", bytes, " bytes through which device memory goes"));
  }
  char* const begin = static_cast<char*>(staging->memory_);
  staging->begin_ = begin + (RoundUp(reinterpret_cast<uintptr_t>(begin), kPage) - reinterpret_cast<uintptr_t>(begin));
  staging->pinned_ = copies.Pin(device, staging->begin_, staging->bytes_);
  return staging;
}

std::shared_ptr<Staging> Staging::In(std::shared_ptr<char> block, size_t bytes) {
  std::shared_ptr<Staging> staging(new Staging(bytes / kPage * kPage));
  staging->begin_ = block.get();
  staging->block_ = std::move(block);
  return staging;
}

Staging::~Staging() {
  pinned_.reset();
  if (memory_ != nullptr) wire::DeallocateRegistered(memory_);
}

std::shared_ptr<char> Staging::Take(size_t bytes) {
  MutexLock lock(mutex_);
  const std::optional<size_t> offset = free_.Take(bytes);
  if (!offset) return nullptr;
  return {begin_ + *offset, [self = shared_from_this(), offset = *offset, bytes](char*) {
            MutexLock lock(self->mutex_);
            self->free_.Give(offset, bytes);
          }};
}

}  // namespace basin
