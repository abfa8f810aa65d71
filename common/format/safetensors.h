// safetensors files: u64 little-endian length of the header, the header (JSON: name -> dtype, shape, data_offsets;
// "__metadata__" -> strings), then the tensors' bytes, which cover the rest without gap or overlap. Written and read in
// parts, so that a model need not fit in memory.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/dtype.h"

namespace basin {

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
};

class SafetensorsWriter final {
 public:
  // Lays the tensors out in the given order in a temporary file beside `path`. The folder must exist. INVALID_ARGUMENT
  // for a name that is empty, given twice, "__metadata__" or not UTF-8, and for a shape or sum of shapes that no file
  // can hold.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(const std::string& path,
                                                                   std::vector<TensorInfo> tensors,
                                                                   const std::map<std::string, std::string>& metadata);
  // Without Finish nothing is left behind, and `path` is as it was.
  ~SafetensorsWriter();

  // The bytes of tensor number `tensor` from `offset` on. In any order; of bytes written again the last ones count.
  absl::Status Write(size_t tensor, uint64_t offset, absl::Span<const char> bytes);
  // FAILED_PRECONDITION where bytes are missing. Syncs and gives the file its name.
  absl::Status Finish();

 private:
  SafetensorsWriter() = default;
  std::string path_, temporary_;
  int fd_ = -1;
  std::vector<TensorInfo> tensors_;
  std::vector<uint64_t> begins_, sizes_;  // by tensor; begins in the file
  // By tensor: which bytes were written, begin -> end. Bytes written twice must not stand for some that are missing.
  std::vector<std::map<uint64_t, uint64_t>> written_;
};

class SafetensorsReader final {
 public:
  // Checks the whole header: INVALID_ARGUMENT says what is wrong with the file.
  static absl::StatusOr<std::unique_ptr<SafetensorsReader>> Open(const std::string& path);
  ~SafetensorsReader();

  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // in the order of their bytes
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // REQUIRES: the range lies within the tensor.
  absl::Status Read(size_t tensor, uint64_t offset, absl::Span<char> out) const;

 private:
  SafetensorsReader() = default;
  std::string path_;
  int fd_ = -1;
  std::vector<TensorInfo> tensors_;
  std::vector<uint64_t> begins_, sizes_;
  std::map<std::string, std::string> metadata_;
};

// The header's part of Open, for a file of `file_bytes` bytes; apart, so that it can be fuzzed.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;
  std::vector<uint64_t> begins, sizes;  // begins after the header
  std::map<std::string, std::string> metadata;
};
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(const std::string& json, uint64_t data_bytes);

}  // namespace basin
