#include "common/format/idx.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 30;

// gzread reads plain files too.
absl::Status ReadExactly(gzFile file, const std::string& path, uint8_t* out, uint64_t size) {
  while (size > 0) {
    const int got = gzread(file, out, static_cast<unsigned>(std::min<uint64_t>(size, 1u << 26)));
    if (got < 0) {
      int code = 0;
      return absl::DataLossError(absl::StrCat(path, ": ", gzerror(file, &code), "; the file is damaged, get it again"));
    }
    if (got == 0) return absl::DataLossError(absl::StrCat(path, ": ends ", size, " bytes early; the file is cut short, get it again"));
    out += got;
    size -= static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<IdxArray> ReadIdx(const std::string& path) {
  const gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return ErrnoStatus(errno == 0 ? ENOMEM : errno, absl::StrCat("open ", path));
  absl::Cleanup close_file = [file] { gzclose(file); };
  uint8_t magic[4];
  BASIN_RETURN_IF_ERROR(ReadExactly(file, path, magic, sizeof(magic)));
  if (magic[0] != 0 || magic[1] != 0 || magic[2] != 8 || magic[3] < 1 || magic[3] > 4) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not an IDX file of unsigned bytes with 1 to 4 dimensions"));
  }
  IdxArray array;
  uint64_t bytes = 1;
  for (int axis = 0; axis < magic[3]; ++axis) {
    uint8_t dim[4];
    BASIN_RETURN_IF_ERROR(ReadExactly(file, path, dim, sizeof(dim)));
    const uint64_t size = uint64_t{dim[0]} << 24 | uint64_t{dim[1]} << 16 | uint64_t{dim[2]} << 8 | dim[3];
    array.shape.push_back(static_cast<int64_t>(size));
    bytes = size != 0 && bytes > kMaxBytes / size ? kMaxBytes + 1 : bytes * size;
    if (bytes > kMaxBytes) return absl::InvalidArgumentError(absl::StrCat(path, ": more than ", kMaxBytes, " bytes of data by its header"));
  }
  array.data.resize(bytes);
  BASIN_RETURN_IF_ERROR(ReadExactly(file, path, array.data.data(), bytes));
  uint8_t more;
  if (gzread(file, &more, 1) > 0) return absl::InvalidArgumentError(absl::StrCat(path, ": longer than its header says (", bytes, " bytes of data)"));
  return array;
}

}  // namespace basin
