#include "bench/harness/task_process.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin::bench {

absl::StatusOr<std::unique_ptr<TaskProcess>> TaskProcess::Start(TaskOptions options, const Json& spec) {
  ProcessOptions process;
  BASIN_ASSIGN_OR_RETURN(const std::string self, BesideThisProgram(""));
  process.argv = {self, "task"};
  process.environment = options.environment;
  process.network = options.network;
  process.log = options.log;
  process.inherited = options.inherited;
  process.piped = true;
  BASIN_ASSIGN_OR_RETURN(Process started, Process::Start(process));
  std::unique_ptr<TaskProcess> task(new TaskProcess(std::move(options), std::move(started)));
  BASIN_RETURN_IF_ERROR(task->Tell(spec));
  return task;
}

absl::Status TaskProcess::Tell(const Json& command) {
  const std::string line = command.dump() + "\n";
  for (size_t at = 0; at < line.size();) {
    const ssize_t written = write(process_.input(), line.data() + at, line.size() - at);
    if (written < 0 && errno == EINTR) {
      BASIN_RETURN_IF_ERROR(Interrupted());
      continue;
    }
    if (written <= 0) return Died();
    at += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> TaskProcess::Answer(absl::Duration most, const std::function<absl::Status()>& healthy) {
  const absl::Time deadline = absl::Now() + most;
  size_t end;
  while ((end = unread_.find('\n')) == std::string::npos) {
    BASIN_RETURN_IF_ERROR(Interrupted());
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(absl::StrCat(options_.name, " (pid ", process_.pid(),
                                                      ") did not answer within ", absl::FormatDuration(most), "\n",
                                                      TailOf(options_.log)));
    }
    // Short waits: a signal that comes between the look and the wait is seen soon.
    pollfd entry = {.fd = process_.output(), .events = POLLIN, .revents = 0};
    const int ready =
        poll(&entry, 1, static_cast<int>(absl::ToInt64Milliseconds(std::min(left, absl::Milliseconds(200)))));
    if (ready <= 0) {
      if (healthy) BASIN_RETURN_IF_ERROR(healthy());
      continue;
    }
    char buffer[65536];
    const ssize_t got = read(process_.output(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Died();
    unread_.append(buffer, static_cast<size_t>(got));
  }
  const Json answer = Json::parse(unread_.substr(0, end), nullptr, /*allow_exceptions=*/false);
  unread_.erase(0, end + 1);
  if (!answer.is_object()) return absl::InternalError(absl::StrCat(options_.name, " answered what is no JSON object"));
  if (answer.contains("error")) {
    return absl::Status(static_cast<absl::StatusCode>(answer.value("code", 13)),
                        absl::StrCat(options_.name, ": ", answer.value("error", "failed")));
  }
  return answer;
}

absl::Status TaskProcess::Died() {
  process_.WaitEnd(absl::Seconds(2));
  return absl::UnavailableError(absl::StrCat(options_.name, " (pid ", process_.pid(), ") ended before it answered: ",
                                             process_.Ending(), "\n", TailOf(options_.log)));
}

}  // namespace basin::bench
