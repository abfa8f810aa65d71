#include "worker/train/fusion.h"

namespace basin {
namespace {

constexpr uint64_t kAlignedElements = 16;  // floats: 64 bytes

uint64_t Aligned(uint64_t elements) { return (elements + kAlignedElements - 1) / kAlignedElements * kAlignedElements; }

}  // namespace

std::vector<FusedBuffer> FuseBackward(const std::vector<uint64_t>& elements, uint64_t bytes_max) {
  std::vector<FusedBuffer> buffers;
  for (size_t variable = elements.size(); variable-- > 0;) {
    if (buffers.empty() || (buffers.back().elements + elements[variable]) * sizeof(float) > bytes_max) {
      buffers.emplace_back();
    }
    FusedBuffer& buffer = buffers.back();
    buffer.parts.push_back({variable, buffer.elements});
    buffer.elements += Aligned(elements[variable]);
  }
  return buffers;
}

}  // namespace basin
