// Which gradients travel together in an all-reduce: pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace basin {

struct FusedBuffer {
  struct Part {
    size_t variable = 0;
    uint64_t begin = 0;  // first element in the buffer: a multiple of 16, so that each gradient is 64-byte aligned
  };
  std::vector<Part> parts;  // in the order of the backward pass
  uint64_t elements = 0;
};

// Buffers in the order in which the backward pass fills them: from the last variable to the first, as many to a buffer
// as `bytes_max` holds; a larger variable has one of its own. `elements`: of each variable.
std::vector<FusedBuffer> FuseBackward(const std::vector<uint64_t>& elements, uint64_t bytes_max);

}  // namespace basin
