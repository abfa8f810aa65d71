// A text file that only grows, by whole lines. A line that a crash or a full disk has torn is cut off again, so that
// what follows never runs into it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

// One writer a file. Not thread-safe.
class LineFile final {
 public:
  // Makes the file (0600) where it is missing, and cuts off a last line without an end.
  static absl::StatusOr<LineFile> Open(const std::string& path);
  LineFile(LineFile&& other) noexcept;
  LineFile& operator=(LineFile&& other) noexcept;
  ~LineFile();

  // `lines` ends with an end of line. All of it is in the file afterwards, or none of it. `sync`: and on the disk.
  absl::Status Append(absl::string_view lines, bool sync);
  uint64_t bytes() const { return bytes_; }
  // Whether the path still leads to this file. What cannot be looked at now counts as there.
  bool IsThere() const;

 private:
  LineFile(std::string path, int fd, uint64_t bytes) : path_(std::move(path)), fd_(fd), bytes_(bytes) {}
  std::string path_;
  int fd_;
  uint64_t bytes_;
};

}  // namespace basin
