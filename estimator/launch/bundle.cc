#include "estimator/launch/bundle.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zstd.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "estimator/snapshot/digest.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPieceBytes = size_t{256} << 10;
constexpr size_t kShownDigest = 8;
constexpr size_t kTarBlock = 512;

absl::StatusOr<UniqueFd> OpenFile(const std::string& path) {
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
  return file;
}

absl::StatusOr<size_t> ReadPiece(const UniqueFd& file, const std::string& path, std::string* piece) {
  piece->resize(kPieceBytes);
  ssize_t got = -1;
  do {
    got = read(file.get(), piece->data(), piece->size());
  } while (got < 0 && errno == EINTR);
  if (got < 0) return ErrnoStatus(errno, absl::StrCat("read ", path));
  piece->resize(static_cast<size_t>(got));
  return piece->size();
}

// An empty file as a tar archive of its own (POSIX ustar), to follow one of `before` bytes.
std::string WholeMark(uint64_t before) {
  std::string mark((kTarBlock - before % kTarBlock) % kTarBlock, '\0');
  const size_t at = mark.size();
  mark.resize(at + 3 * kTarBlock, '\0');  // its head, and the two empty blocks at the end of an archive
  const auto put = [&mark, at](size_t offset, absl::string_view text) { text.copy(&mark[at + offset], text.size()); };
  put(0, kProgramsWhole);
  put(100, "0000600");      // mode
  put(108, "0000000");      // user
  put(116, "0000000");      // group
  put(124, "00000000000");  // size
  put(136, "00000000000");  // time
  put(148, "        ");     // the sum is made with blanks in its place
  put(156, "0");            // a regular file
  put(257, "ustar");
  put(263, "00");
  unsigned sum = 0;
  for (size_t i = 0; i < kTarBlock; ++i) sum += static_cast<unsigned char>(mark[at + i]);
  put(148, absl::StrFormat("%06o", sum));
  mark[at + 154] = '\0';
  return mark;
}

class Decompressed final : public ByteSource {
 public:
  Decompressed(std::string path, UniqueFd file)
      : path_(std::move(path)), file_(std::move(file)), stream_(ZSTD_createDStream()) {}
  ~Decompressed() override { ZSTD_freeDStream(stream_); }

  absl::StatusOr<std::string> Next() override {
    std::string out(kPieceBytes, '\0');
    ZSTD_outBuffer to = {out.data(), out.size(), 0};
    while (to.pos == 0) {
      if (marked_) return std::string();
      if (from_.pos == from_.size) {
        BASIN_ASSIGN_OR_RETURN(const size_t got, ReadPiece(file_, path_, &piece_));
        if (got == 0) {
          if (within_frame_) return absl::DataLossError(absl::StrCat(path_, ": the archive is cut; make it again"));
          marked_ = true;
          return WholeMark(given_);
        }
        from_ = {piece_.data(), piece_.size(), 0};
      }
      const size_t left = ZSTD_decompressStream(stream_, &to, &from_);
      if (ZSTD_isError(left) != 0) {
        return absl::DataLossError(
            absl::StrCat(path_, ": no archive by zstd (", ZSTD_getErrorName(left), "); make it again"));
      }
      within_frame_ = left != 0;
    }
    out.resize(to.pos);
    given_ += out.size();
    return out;
  }

 private:
  const std::string path_;
  const UniqueFd file_;
  ZSTD_DStream* const stream_;
  std::string piece_;
  ZSTD_inBuffer from_ = {nullptr, 0, 0};
  bool within_frame_ = false;
  uint64_t given_ = 0;
  bool marked_ = false;
};

}  // namespace

absl::StatusOr<Bundle> FindBundle(const std::string& named, const std::string& self, const std::string& version) {
  Bundle bundle;
  utsname system = {};
  uname(&system);
  bundle.machine = system.machine;
  bundle.path = named;
  if (named.empty()) {
    const fs::path prefix = fs::path(self).parent_path().parent_path();
    const std::string name = absl::StrCat("basin-", version, "-linux-", bundle.machine, ".tar.zst");
    for (const fs::path& folder : {prefix, prefix / "share" / "basin", prefix.parent_path()}) {
      std::error_code error;
      if (!fs::is_regular_file(folder / name, error)) continue;
      bundle.path = (folder / name).string();
      break;
    }
    if (bundle.path.empty()) return bundle;
  } else if (const std::string file = fs::path(named).filename().string();
             file.find("-linux-") != std::string::npos && file.find("-linux-" + bundle.machine) == std::string::npos) {
    // The file's name says what it is for: basin-VERSION-linux-MACHINE.tar.zst.
    const size_t from = file.find("-linux-") + 7;
    bundle.machine = file.substr(from, file.find('.', from) - from);
  }
  BASIN_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(bundle.path));
  Digester digester;
  std::string piece;
  while (true) {
    BASIN_ASSIGN_OR_RETURN(const size_t got, ReadPiece(file, bundle.path, &piece));
    if (got == 0) break;
    digester.Add(piece);
    bundle.bytes += got;
  }
  bundle.digest = digester.Finish().substr(0, kShownDigest);
  return bundle;
}

absl::StatusOr<Bundle> BundleFor(const Target& target, const std::string& version) {
  if (target.kind == TargetKind::kLocal || !target.programs.empty()) return Bundle();
  std::error_code error;
  absl::StatusOr<Bundle> bundle =
      FindBundle(target.bundle, fs::read_symlink("/proc/self/exe", error).string(), version);
  if (bundle.ok() || target.bundle.empty()) return bundle;
  return absl::Status(bundle.status().code(),
                      absl::StrCat("bundle of the target ", target.name, ": ", bundle.status().message(),
                                   "; correct it in ", target.source.empty() ? "the targets file" : target.source,
                                   ", or remove it: the archive beside basin is then sent"));
}

absl::StatusOr<std::unique_ptr<ByteSource>> OpenBundle(const Bundle& bundle) {
  BASIN_ASSIGN_OR_RETURN(UniqueFd file, OpenFile(bundle.path));
  return std::make_unique<Decompressed>(bundle.path, std::move(file));
}

}  // namespace basin
