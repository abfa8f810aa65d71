// IDX files, as MNIST and its kin come in: big-endian magic 0x00 0x00 type rank, one u32 a dimension, then the data.
// Only unsigned bytes (type 8). Plain or gzip, told by the first bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace basin {

struct IdxArray {
  std::vector<int64_t> shape;
  std::vector<uint8_t> data;  // row-major
};

// Errors name the path: NOT_FOUND; INVALID_ARGUMENT for another format, a wrong size, or more than 1 GiB of data;
// DATA_LOSS where gzip data is cut short or damaged.
absl::StatusOr<IdxArray> ReadIdx(const std::string& path);

}  // namespace basin
