#include "common/rules/cuda_row_layout.h"

#include <cstring>

namespace basin {

CudaRowLayout MakeCudaRowLayout(const RuleSpec& rule, DType storage, uint32_t dim) {
  CudaRowLayout layout;
  layout.dim = dim;
  layout.slots = static_cast<uint32_t>(SlotCount(rule.kind));
  layout.slot_floats = rule.kind == RuleKind::kRowwiseAdagrad ? 1 : dim;
  layout.value_bytes = static_cast<uint32_t>(SizeOf(storage));
  layout.vectors = dim % 4 == 0;
  const uint32_t alignment = layout.vectors ? 16 : 4;
  const auto aligned = [alignment](uint32_t bytes) { return (bytes + alignment - 1) / alignment * alignment; };
  layout.slots_offset = aligned(layout.value_bytes * dim);
  layout.slot_bytes = aligned(4 * layout.slot_floats);
  layout.steps_offset = layout.slots_offset + layout.slots * layout.slot_bytes;
  const bool steps = rule.kind == RuleKind::kAdam || layout.value_bytes == 2;
  layout.stride = aligned(layout.steps_offset + (steps ? 4 : 0));
  return layout;
}

void ToHostRow(const CudaRowLayout& layout, size_t host_row_bytes, const char* device_row, char* host_row) {
  char* to = host_row;
  const auto put = [&to](const char* from, size_t bytes) {
    std::memcpy(to, from, bytes);
    to += bytes;
  };
  put(device_row, size_t{layout.value_bytes} * layout.dim);
  for (uint32_t slot = 0; slot < layout.slots; ++slot) {
    put(device_row + layout.slots_offset + slot * layout.slot_bytes, size_t{4} * layout.slot_floats);
  }
  // Little-endian: where the host has two bytes of steps, they are the lower ones.
  put(device_row + layout.steps_offset, host_row_bytes - static_cast<size_t>(to - host_row));
}

}  // namespace basin
