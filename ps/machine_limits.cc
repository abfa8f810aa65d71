#include "ps/machine_limits.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"

namespace basin {
namespace {

// The first number of a file; 0 where there is none ("max").
uint64_t NumberIn(const std::string& path, size_t field = 0) {
  const absl::StatusOr<std::string> text = ReadFile(path, 4096);
  if (!text.ok()) return 0;
  const std::vector<std::string> parts = absl::StrSplit(*text, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  uint64_t number = 0;
  return field < parts.size() && absl::SimpleAtoi(parts[field], &number) ? number : 0;
}

}  // namespace

int UsableCores() {
  int cores = 1;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = std::max(1, CPU_COUNT(&set));
  const uint64_t quota = NumberIn("/sys/fs/cgroup/cpu.max"), period = NumberIn("/sys/fs/cgroup/cpu.max", 1);
  if (quota > 0 && period > 0)
    cores = std::min<int>(cores, static_cast<int>(std::max<uint64_t>(1, (quota + period / 2) / period)));
  return cores;
}

size_t UsableMemoryBytes() {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  size_t bytes = pages > 0 && page > 0 ? static_cast<size_t>(pages) * static_cast<size_t>(page) : 0;
  for (const char* limit : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    if (const uint64_t found = NumberIn(limit); found > 0) bytes = bytes == 0 ? found : std::min<size_t>(bytes, found);
  }
  return bytes;
}

}  // namespace basin
