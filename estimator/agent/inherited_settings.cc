#include "estimator/agent/inherited_settings.h"

#include <sys/stat.h>

#include <algorithm>

namespace basin {
namespace {

// Two pipes for each of kMostTasks, a name and a listener for each port, and what else an agent opens.
constexpr rlim_t kWantedOpenFiles = 16384;

struct Settings {
  rlimit open_files = {RLIM_INFINITY, RLIM_INFINITY};
  mode_t umask = 0;
};

Settings Current() {
  Settings settings;
  getrlimit(RLIMIT_NOFILE, &settings.open_files);
  settings.umask = umask(0077);
  umask(settings.umask);
  return settings;
}

const Settings& Inherited() {
  static const Settings inherited = Current();
  return inherited;
}

}  // namespace

void TightenSettings() {
  rlimit raised = Inherited().open_files;
  raised.rlim_cur = std::max(raised.rlim_cur, std::min(raised.rlim_max, kWantedOpenFiles));
  setrlimit(RLIMIT_NOFILE, &raised);
  umask(0077);
}

rlimit InheritedOpenFilesLimit() { return Inherited().open_files; }
mode_t InheritedUmask() { return Inherited().umask; }

}  // namespace basin
