// Small whole-file reads and writes that say what failed and where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

// NOT_FOUND when the file is not there; RESOURCE_EXHAUSTED when it is larger than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes = size_t{256} << 20);

// The last `max_bytes` of a file that may be larger (a log). NOT_FOUND when it is not there.
absl::StatusOr<std::string> ReadTail(const std::string& path, size_t max_bytes);

// Writes all of the bytes, where the descriptor is, also to one that does not block (it waits then). `what` is written
// to, for the error: its path.
absl::Status WriteAll(int fd, absl::string_view bytes, absl::string_view what);
// Into a file from `offset` on.
absl::Status WriteAllAt(int fd, absl::string_view bytes, uint64_t offset, absl::string_view what);

// Where a file is written that gets its name, `path`, once it is whole: `.<name>.basin-tmp.<pid>` beside it. A process
// that is killed in between leaves it there; who lists files for users, or collects them, passes over such names.
std::string TemporaryPathFor(const std::string& path);
// Of a file's name without its folders.
bool IsTemporaryName(absl::string_view name);

// Writes beside `path`, syncs, and renames: afterwards the file is whole, or as it was.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view content, int mode = 0644);

// mkdir -p. OK when the folder is already there.
absl::Status MakeFolders(const std::string& path, int mode = 0755);

// "open /x/y: No such file or directory (2)" from errno, with the canonical code that fits.
absl::Status ErrnoStatus(int error, absl::string_view what);

}  // namespace basin
