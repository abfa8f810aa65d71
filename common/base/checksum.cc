#include "common/base/checksum.h"

#include <isa-l/crc.h>

namespace basin {

uint32_t Crc32c(const void* data, size_t size) {
  // ISA-L takes a non-const pointer and an int, so long buffers go in pieces; it neither inverts the seed nor the
  // result.
  auto* bytes = const_cast<unsigned char*>(static_cast<const unsigned char*>(data));
  unsigned int crc = ~0u;
  while (size > 0) {
    const int piece = size > (1u << 30) ? (1 << 30) : static_cast<int>(size);
    crc = crc32_iscsi(bytes, piece, crc);
    bytes += piece;
    size -= piece;
  }
  return ~crc;
}

}  // namespace basin
