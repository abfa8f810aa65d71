#include "worker/client/narrowed_push.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/codec/half.h"
#include "common/wire/registered_memory.h"
#include "worker/client/half_overflow.h"

namespace basin {
namespace {

// Memory is taken in powers of two from here on, so that calls of about one size share it.
constexpr size_t kLeastBytes = size_t{4} << 10;
constexpr size_t kAlignment = 64;

size_t NarrowBytes(const UpdateItem& item) {
  const size_t bytes = item.push.size() / sizeof(float) * 2;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

SpareMemory::~SpareMemory() {
  MutexLock lock(mutex_);
  for (const auto& [bytes, memory] : kept_) wire::DeallocateRegistered(memory);
}

std::shared_ptr<char> SpareMemory::Take(size_t bytes) {
  const size_t size = std::bit_ceil(std::max(bytes, kLeastBytes));
  char* memory = nullptr;
  {
    MutexLock lock(mutex_);
    const auto at = std::find_if(kept_.rbegin(), kept_.rend(), [size](const auto& one) { return one.first == size; });
    if (at != kept_.rend()) {
      memory = at->second;
      kept_.erase(std::next(at).base());
      kept_bytes_ -= size;
    }
  }
  if (memory == nullptr) memory = static_cast<char*>(wire::AllocateRegistered(size));
  if (memory == nullptr) return nullptr;
  return std::shared_ptr<char>(memory, [self = shared_from_this(), size](char* back) { self->Return(back, size); });
}

void SpareMemory::Return(char* memory, size_t bytes) {
  {
    MutexLock lock(mutex_);
    if (kept_bytes_ + bytes <= most_bytes_) {
      kept_.emplace_back(bytes, memory);
      kept_bytes_ += bytes;
      return;
    }
  }
  wire::DeallocateRegistered(memory);
}

absl::Status NarrowGradients(DType type, ClientSession& session, SpareMemory& spare, absl::Span<UpdateItem> items,
                             std::shared_ptr<char>* memory) {
  std::vector<UpdateItem*> gradients;
  session.Run([&](ClientCore& core, absl::Time) {
    for (UpdateItem& item : items) {
      const bool pushes = item.push.data() != nullptr && item.push_dtype == DType::kF32 && !item.writes_by_pieces;
      if (pushes && core.TrainsFloats(item.variable)) gradients.push_back(&item);
    }
    return true;
  });
  if (gradients.empty()) return absl::OkStatus();
  size_t bytes = 0;
  for (const UpdateItem* item : gradients) bytes += NarrowBytes(*item);
  *memory = spare.Take(bytes);
  if (*memory == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " bytes of gradients in ", Name(type),
                                                     "; nothing of this call was sent"));
  }
  char* out = memory->get();
  for (UpdateItem* item : gradients) {
    const auto values =
        absl::MakeConstSpan(reinterpret_cast<const float*>(item->push.data()), item->push.size() / sizeof(float));
    if (!Narrow(type, values.data(), values.size(), out)) {
      const Unfit unfit = FindUnfit(DType::kF32, type, item->push.data(), values.size());
      return session.Run(
          [&](ClientCore& core, absl::Time) { return CannotHold(type, core.NameOf(item->variable), unfit); });
    }
    const size_t taken = NarrowBytes(*item);
    item->push = absl::MakeConstSpan(out, 2 * values.size());
    item->push_dtype = type;
    out += taken;
  }
  return absl::OkStatus();
}

absl::Status SendHalvesOfDevice(DType type, ClientSession& session, absl::Span<UpdateItem> items,
                                DeviceUpdate& update) {
  bool any = false;
  const absl::Status status = session.Run([&](ClientCore& core, absl::Time) {
    for (size_t i = 0; i < items.size(); ++i) {
      UpdateItem& item = items[i];
      DeviceUpdate::Item& there = update.items[i];
      if (!item.writes_by_pieces || item.push.data() == nullptr) continue;
      there.from = item.push_dtype;
      if (IsHalf(type) && item.push_dtype == DType::kF32 && core.TrainsFloats(item.variable)) {
        item.push = item.push.first(item.push.size() / SizeOf(DType::kF32) * SizeOf(type));
        item.push_dtype = type;
      }
      if (!IsHalf(item.push_dtype)) continue;
      any = true;
      there.half = item.push_dtype;
      there.variable = item.variable;
      there.elements = item.push.size() / SizeOf(item.push_dtype);
      // A kernel that reads at such an address would lose the device. (The core refuses variables that are not there.)
      const auto address = reinterpret_cast<uintptr_t>(there.out);
      if (address % SizeOf(there.from) != 0 && core.Has(item.variable)) {
        return absl::InvalidArgumentError(absl::StrCat(
            "gradient of \"", core.NameOf(item.variable), "\": ", Name(there.from), " in device memory at 0x",
            absl::Hex(address), ", which is no multiple of ", SizeOf(there.from), "; align data and byte_offset"));
      }
    }
    return absl::OkStatus();
  });
  BASIN_RETURN_IF_ERROR(status);
  for (UpdateItem& item : items) item.held = any;
  return absl::OkStatus();
}

}  // namespace basin
