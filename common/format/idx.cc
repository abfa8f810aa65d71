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
constexpr uint64_t kFirstBytes = uint64_t{1} << 20;

absl::Status Damaged(gzFile file, const std::string& path) {
  int code = 0;
  return absl::DataLossError(absl::StrCat(path, ": ", gzerror(file, &code), "; the file is damaged, get it again"));
}

absl::Status EndsEarly(const std::string& path, uint64_t missing) {
  return absl::DataLossError(
      absl::StrCat(path, ": ends ", missing, " bytes early; the file is cut short, get it again"));
}

// Fewer bytes than `size` only at the end of the file. gzread reads plain files too.
absl::StatusOr<uint64_t> ReadUpTo(gzFile file, const std::string& path, uint8_t* out, uint64_t size) {
  uint64_t had = 0;
  while (had < size) {
    const int got = gzread(file, out + had, static_cast<unsigned>(std::min<uint64_t>(size - had, 1u << 26)));
    if (got < 0) return Damaged(file, path);
    if (got == 0) break;
    had += static_cast<uint64_t>(got);
  }
  // A gzip stream that ends within is an error that gzread does not return.
  int code = Z_OK;
  gzerror(file, &code);
  if (had < size && code == Z_BUF_ERROR) return Damaged(file, path);
  return had;
}

absl::Status ReadExactly(gzFile file, const std::string& path, uint8_t* out, uint64_t size) {
  BASIN_ASSIGN_OR_RETURN(const uint64_t got, ReadUpTo(file, path, out, size));
  return got == size ? absl::OkStatus() : EndsEarly(path, size - got);
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
    if (bytes > kMaxBytes)
      return absl::InvalidArgumentError(absl::StrCat(path, ": more than ", kMaxBytes, " bytes of data by its header"));
  }
  // Grows with what is really there: a header alone does not take a gigabyte. The last read asks for one byte too many:
  // only a read that wants more makes zlib look at what ends a gzip stream, and a stream cut there passes for whole
  // otherwise.
  uint64_t had = 0;
  do {
    const uint64_t wanted = std::max(kFirstBytes, 2 * had);
    array.data.resize(wanted < bytes ? wanted : bytes + 1);
    BASIN_ASSIGN_OR_RETURN(const uint64_t got, ReadUpTo(file, path, array.data.data() + had, array.data.size() - had));
    had += got;
  } while (had == array.data.size() && had <= bytes);
  if (had < bytes) return EndsEarly(path, bytes - had);
  if (had > bytes)
    return absl::InvalidArgumentError(absl::StrCat(path, ": longer than its header says (", bytes, " bytes of data)"));
  array.data.resize(bytes);
  return array;
}

}  // namespace basin
