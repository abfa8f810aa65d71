#include "estimator/agent/process_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

namespace basin {
namespace {

struct Stat {
  pid_t parent = 0;
  uint64_t start_time = 0;
};

std::optional<Stat> ReadStat(pid_t pid) {
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/stat", pid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  char text[1024];
  const ssize_t got = read(fd, text, sizeof(text) - 1);
  close(fd);
  if (got <= 0) return std::nullopt;
  text[got] = '\0';
  // "pid (name) state ppid ...": the name may hold spaces and brackets, so count from the last bracket. The start time
  // is field 22, the 20th after the name.
  const char* at = std::strrchr(text, ')');
  if (at == nullptr) return std::nullopt;
  Stat stat;
  if (std::sscanf(at + 1, " %*c %d", &stat.parent) != 1) return std::nullopt;
  ++at;
  for (int field = 0; field < 20; ++field) {
    at = std::strchr(at, ' ');
    if (at == nullptr) return std::nullopt;
    ++at;
  }
  stat.start_time = std::strtoull(at, nullptr, 10);
  return stat;
}

struct Known {
  ProcessRef process;
  pid_t parent;
  bool below = false;
};

std::vector<Known> AllProcesses() {
  std::vector<Known> all;
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return all;
  while (const dirent* entry = readdir(proc)) {
    char* end = nullptr;
    const long pid = std::strtol(entry->d_name, &end, 10);
    if (*end != '\0' || pid <= 0) continue;
    if (const auto stat = ReadStat(static_cast<pid_t>(pid))) {
      all.push_back({{static_cast<pid_t>(pid), stat->start_time}, stat->parent, false});
    }
  }
  closedir(proc);
  return all;
}

}  // namespace

std::vector<ProcessRef> Children(pid_t root) {
  std::vector<ProcessRef> found;
  for (const Known& known : AllProcesses()) {
    if (known.parent == root) found.push_back(known.process);
  }
  return found;
}

std::vector<ProcessRef> Descendants(pid_t root) {
  std::vector<Known> all = AllProcesses();
  std::vector<ProcessRef> found;
  std::vector<pid_t> parents = {root};
  while (!parents.empty()) {
    const pid_t parent = parents.back();
    parents.pop_back();
    for (Known& known : all) {
      if (known.parent != parent || known.below) continue;
      known.below = true;
      found.push_back(known.process);
      parents.push_back(known.process.pid);
    }
  }
  return found;
}

std::optional<ProcessRef> FindProcess(pid_t pid) {
  const auto stat = ReadStat(pid);
  if (!stat) return std::nullopt;
  return ProcessRef{pid, stat->start_time};
}

void SignalProcess(const ProcessRef& process, int signal) {
  // A pidfd holds on to the process, so that a check of its start time stays true until the signal is sent.
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, process.pid, 0));
  if (fd < 0 && errno != ENOSYS) return;
  const auto stat = ReadStat(process.pid);
  if (stat && stat->start_time == process.start_time) {
    if (fd >= 0) {
      syscall(SYS_pidfd_send_signal, fd, signal, nullptr, 0);
    } else {
      kill(process.pid, signal);
    }
  }
  if (fd >= 0) close(fd);
}

void SignalDescendants(pid_t root, int signal) {
  for (const ProcessRef& process : Descendants(root)) SignalProcess(process, signal);
}

}  // namespace basin
