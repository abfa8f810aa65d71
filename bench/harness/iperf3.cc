#include "bench/harness/iperf3.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "bench/harness/limits.h"
#include "bench/harness/statistics.h"
#include "common/base/files.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

constexpr int kRounds = 3;

// All that it prints until it ends.
absl::StatusOr<std::string> OutputOf(Process& process, absl::Duration most) {
  std::string text;
  const absl::Time deadline = absl::Now() + most;
  while (absl::Now() < deadline) {
    BASIN_RETURN_IF_ERROR(Interrupted());
    pollfd entry = {.fd = process.output(), .events = POLLIN, .revents = 0};
    if (poll(&entry, 1, 200) <= 0) continue;
    char buffer[65536];
    const ssize_t got = read(process.output(), buffer, sizeof(buffer));
    if (got > 0) text.append(buffer, static_cast<size_t>(got));
    if (got == 0) return text;
  }
  return absl::DeadlineExceededError("iperf3 does not end");
}

absl::StatusOr<double> Iperf3Round(const std::string& program, double seconds) {
  const std::string port = absl::StrCat(20000 + SecretU64() % 10000);
  ProcessOptions options;
  options.argv = {program, "-s", "-1", "-B", "127.0.0.1", "-p", port};
  options.piped = true;
  BASIN_ASSIGN_OR_RETURN(Process server, Process::Start(options));
  options.argv = {program, "-c", "127.0.0.1", "-p", port, "-t", absl::StrCat(std::max(1, static_cast<int>(seconds))),
                  "-l",    "1M", "-J"};
  Json report;
  // Its server says nowhere in time that it listens: a client that comes too early is started again.
  for (int tries = 0; tries < 20; ++tries) {
    BASIN_ASSIGN_OR_RETURN(Process client, Process::Start(options));
    BASIN_ASSIGN_OR_RETURN(const std::string text, OutputOf(client, absl::Seconds(seconds + 20)));
    report = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (report.is_object() && !report.contains("error")) break;
    absl::SleepFor(absl::Milliseconds(50));
  }
  const Json::json_pointer received("/end/sum_received/bits_per_second");
  if (!report.is_object() || !report.contains(received) || !report[received].is_number())
    return absl::UnavailableError(absl::StrCat("iperf3 gave no result: ", report.dump().substr(0, 400)));
  return report[received].get<double>() / 8e9;
}

}  // namespace

absl::Status CompareWithIperf3(double seconds) {
  std::string program;
  for (const char* path : {"/usr/bin/iperf3", "/usr/local/bin/iperf3"}) {
    if (program.empty() && access(path, X_OK) == 0) program = path;
  }
  if (program.empty()) {
    std::printf(
        "iperf3 is not installed (neither in /usr/bin nor in /usr/local/bin), so nothing is compared with it\n");
    return absl::OkStatus();
  }
  const double round = std::max(1.0, seconds / kRounds);
  const std::unique_ptr<Measurement> ours = TcpStreamLimit({.bytes = 1 << 20});
  BASIN_RETURN_IF_ERROR(ours->Start());
  std::vector<double> own, theirs;
  for (int i = 0; i < kRounds; ++i) {
    BASIN_ASSIGN_OR_RETURN(own.emplace_back(), ours->Round(round));
    BASIN_ASSIGN_OR_RETURN(theirs.emplace_back(), Iperf3Round(program, round));
  }
  std::printf("%s %.2f GB/s, iperf3 -l 1M %.2f GB/s, ratio %.2f\n", ours->name().c_str(), Median(own), Median(theirs),
              Median(own) / Median(theirs));
  return ours->Finish();
}

}  // namespace basin::bench
