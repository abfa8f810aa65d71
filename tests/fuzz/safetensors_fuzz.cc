// Input: a buffer's size (u16, little-endian), then a header. What is accepted must cover the buffer exactly.
#include <cstddef>
#include <cstdint>
#include <string>

#include "common/base/status_macros.h"
#include "common/format/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint64_t buffer_bytes = data[0] | static_cast<uint64_t>(data[1]) << 8;
  const auto header =
      basin::ParseSafetensorsHeader(std::string(reinterpret_cast<const char*>(data) + 2, size - 2), buffer_bytes);
  if (!header.ok()) {
    BASIN_CHECK(!header.status().message().empty());
    return 0;
  }
  BASIN_CHECK(header->tensors.size() == header->begins.size() && header->tensors.size() == header->sizes.size());
  uint64_t covered = 0;
  for (size_t i = 0; i < header->tensors.size(); ++i) {
    BASIN_CHECK(header->begins[i] == covered && header->sizes[i] <= buffer_bytes - covered);
    covered += header->sizes[i];
  }
  BASIN_CHECK(covered == buffer_bytes);
  return 0;
}
