#include "common/wire/shm_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace basin::wire {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

absl::Status SystemError(absl::string_view what) {
  const int error = errno;
  absl::string_view hint;
  if (error == EMFILE) hint = "; raise the limit of open files (ulimit -n)";
  return absl::UnavailableError(absl::StrCat("shared memory: ", what, ": ", std::strerror(error), hint));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShmMemory>> ShmMemory::MapFd(UniqueFd fd, size_t bytes, Access access) {
  const int protection = access == Access::kRead ? PROT_READ : PROT_READ | PROT_WRITE;
  void* data = mmap(nullptr, bytes, protection, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
  if (data == MAP_FAILED) return SystemError(absl::StrCat("cannot map ", bytes, " bytes"));
  // Helps where the system gives huge pages to shared memory on request; most do not.
  madvise(data, bytes, MADV_HUGEPAGE);
  return std::unique_ptr<ShmMemory>(new ShmMemory(std::move(fd), static_cast<char*>(data), bytes));
}

absl::StatusOr<std::unique_ptr<ShmMemory>> ShmMemory::Make(const char* name, size_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  bytes = (bytes + page - 1) / page * page;
  // Past this limit the system would send SIGXFSZ.
  rlimit most = {};
  if (getrlimit(RLIMIT_FSIZE, &most) == 0 && most.rlim_cur != RLIM_INFINITY && bytes > most.rlim_cur) {
    return absl::UnavailableError(absl::StrCat("shared memory: a segment of ", bytes, " bytes is past the limit of ",
                                               most.rlim_cur, " bytes a file (ulimit -f)"));
  }
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd.get() < 0) return SystemError("cannot make a segment");
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return SystemError(absl::StrCat("cannot make a segment of ", bytes, " bytes"));
  }
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return SystemError("cannot seal a segment");
  return MapFd(std::move(fd), bytes, Access::kReadWrite);
}

absl::StatusOr<std::unique_ptr<ShmMemory>> ShmMemory::Map(UniqueFd fd, size_t bytes, Access access) {
  // Seals exist on memfds alone. Huge-page ones are refused too: touching a page that the pool lacks would be SIGBUS.
  struct statfs system;
  struct stat info;
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || fstatfs(fd.get(), &system) != 0 || system.f_type != TMPFS_MAGIC || fstat(fd.get(), &info) != 0) {
    return absl::InvalidArgumentError("a descriptor came that is not of an ordinary memfd");
  }
  if ((seals & kSeals) != kSeals) {
    return absl::InvalidArgumentError(
        absl::StrCat("a segment came with the seals ", seals, ", expected ", kSeals, " (its size is fixed)"));
  }
  if (info.st_size < 0 || static_cast<size_t>(info.st_size) != bytes || bytes == 0) {
    return absl::InvalidArgumentError(absl::StrCat("a segment of ", info.st_size, " bytes came, expected ", bytes));
  }
  return MapFd(std::move(fd), bytes, access);
}

ShmMemory::~ShmMemory() { munmap(data_, size_); }

}  // namespace basin::wire
