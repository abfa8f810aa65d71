// Child processes of the harness, and what they cost. A child is in a process group of its own, so that ^C reaches the
// harness alone, which ends its children; the kernel ends them where the harness is killed.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace basin::bench {

// SIGINT and SIGTERM make every wait of this file end with CANCELLED. Once, at the start.
void WatchSignals();
// CANCELLED once one of them has come.
absl::Status Interrupted();

struct ProcessOptions {
  std::vector<std::string> argv;                                 // argv[0]: the file, found in no path
  std::vector<std::pair<std::string, std::string>> environment;  // instead of TF_CONFIG, BASIN_RUN_ID and
                                                                 // BASIN_TOKEN_FILE, which are not passed on
  int network = -1;            // descriptor of a network namespace to live in; -1: this one's
  std::string log;             // file for its standard error; empty: this process's
  bool piped = false;          // input and output are pipes to the parent
  std::vector<int> inherited;  // descriptors that it keeps, with the same numbers
};

// A running program. Not for several threads.
class Process final {
 public:
  // NOT_FOUND and the like when the file cannot be run.
  static absl::StatusOr<Process> Start(const ProcessOptions& options);
  Process(Process&& other) noexcept { *this = std::move(other); }
  Process& operator=(Process&& other) noexcept;
  // Ends it (KILL) and waits.
  ~Process();

  pid_t pid() const { return pid_; }
  int input() const { return input_; }    // to write to; -1: not piped
  int output() const { return output_; }  // to read from
  void CloseInput();
  // Whether it still runs. Reaps it where it does not.
  bool Running();
  void Signal(int number);
  // Waits until it has ended, at most so long: false when it has not.
  bool WaitEnd(absl::Duration most);
  // How it ended: "exit code 2", "signal 9". Empty while it runs.
  std::string Ending() const;

  // Processor seconds so far; 0 when it has ended.
  double CpuSeconds() const;
  // The most memory it ever held; 0 when it has ended.
  uint64_t PeakRssBytes() const;

 private:
  Process(pid_t pid, int input, int output) : pid_(pid), input_(input), output_(output) {}
  pid_t pid_ = -1;
  int input_ = -1, output_ = -1;
  std::optional<int> status_;
};

// The last lines of a log, for messages: at most about 1 KiB. Empty where there is none.
std::string TailOf(const std::string& path);

// Path of a program beside this one; NOT_FOUND says what to do.
absl::StatusOr<std::string> BesideThisProgram(const std::string& name);

// A folder of this process in the temporary folder, removed with all it holds.
class TemporaryFolder final {
 public:
  static absl::StatusOr<TemporaryFolder> Make();
  TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::exchange(other.path_, "")) {}
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder();
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace basin::bench
