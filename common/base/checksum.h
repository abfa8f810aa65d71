// CRC32C (Castagnoli), the checksum of TensorBoard's records and of checkpoint blocks.
#pragma once

#include <cstddef>
#include <cstdint>

namespace basin {

uint32_t Crc32c(const void* data, size_t size);

}  // namespace basin
