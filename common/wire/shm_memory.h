// Memory that processes share: memfds sealed against shrinking and growing, so that nobody who holds the descriptor can
// make a reader fault.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace basin::wire {

class ShmMemory final {
 public:
  enum class Access { kRead, kReadWrite };
  // A new memfd of `bytes` (rounded up to pages), sealed, zero, mapped for reading and writing. It takes address space;
  // memory only where it is touched. UNAVAILABLE says what the system lacks.
  static absl::StatusOr<std::unique_ptr<ShmMemory>> Make(const char* name, size_t bytes);
  // A peer's. INVALID_ARGUMENT where it is not such a memfd (another kind of file, not sealed, not of `bytes`).
  static absl::StatusOr<std::unique_ptr<ShmMemory>> Map(UniqueFd fd, size_t bytes, Access access);
  ~ShmMemory();
  ShmMemory(const ShmMemory&) = delete;
  ShmMemory& operator=(const ShmMemory&) = delete;

  char* data() const { return data_; }
  size_t size() const { return size_; }
  // -1 once it was closed; the mapping stays.
  int fd() const { return fd_.get(); }
  void CloseFd() { fd_.Close(); }

 private:
  ShmMemory(UniqueFd fd, char* data, size_t size) : fd_(std::move(fd)), data_(data), size_(size) {}
  static absl::StatusOr<std::unique_ptr<ShmMemory>> MapFd(UniqueFd fd, size_t bytes, Access access);

  UniqueFd fd_;
  char* const data_;
  const size_t size_;
};

}  // namespace basin::wire
