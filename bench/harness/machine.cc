#include "bench/harness/machine.h"

#include <basin/basin.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace basin::bench {

Json MachineFacts() {
  std::string cpu = "unknown";
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!absl::StartsWith(line, "model name")) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) cpu = line.substr(colon + 2);
    break;
  }
  utsname kernel = {};
  uname(&kernel);
  return {
      {"cpu", cpu},
      {"cores", std::thread::hardware_concurrency()},
      {"memory_bytes", static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE))},
      {"kernel", std::string(kernel.sysname) + " " + kernel.release},
      {"version", basin_version()},
      {"date", absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone())}};
}

}  // namespace basin::bench
