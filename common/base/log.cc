#include "common/base/log.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace basin {
namespace {
struct LogState {
  std::string prefix;
  bool quiet = false;
};
LogState& State() {
  static LogState* state = new LogState;  // never destroyed: threads may log while the process ends
  return *state;
}
}  // namespace

void SetLogPrefix(std::string prefix, bool quiet) { State() = {std::move(prefix), quiet}; }

void Log(LogLevel level, absl::string_view line) {
  const LogState& state = State();
  if (state.quiet && level == LogLevel::kInfo) return;
  const char* mark = level == LogLevel::kInfo ? "" : level == LogLevel::kWarning ? "warning: " : "error: ";
  const std::string text = absl::StrCat(state.prefix, state.prefix.empty() ? "" : ": ", mark, line, "\n");
  // A log that cannot be written (a closed pipe) must not stop training.
  [[maybe_unused]] ssize_t ignored = write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace basin
