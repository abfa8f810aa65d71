#include "estimator/agent/node_facts.h"

#include <fcntl.h>
#include <gnu/libc-version.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "estimator/agent/forked_work.h"
#include "estimator/agent/inherited_settings.h"
#include "estimator/agent/steady_now.h"

namespace basin {
namespace {

constexpr absl::Duration kGpuLimit = absl::Seconds(10);
constexpr char kDriver[] = "/proc/driver/nvidia/gpus";

uint32_t UsableCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<uint32_t>(CPU_COUNT(&set));
  return static_cast<uint32_t>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
}

// The machine's, or less where a control group says so.
uint64_t UsableMemoryBytes() {
  struct sysinfo info;
  uint64_t bytes = sysinfo(&info) == 0 ? uint64_t{info.totalram} * info.mem_unit : 0;
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    const absl::StatusOr<std::string> text = ReadFile(path, 64);
    uint64_t limit = 0;
    if (text.ok() && absl::SimpleAtoi(*text, &limit) && limit > 0) bytes = bytes == 0 ? limit : std::min(bytes, limit);
  }
  return bytes;
}

// What `nvidia-smi -L` prints, or why it does not.
std::string ListGpus() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return "";
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(ends[1], 1);
    dup2(ends[1], 2);
    execlp("nvidia-smi", "nvidia-smi", "-L", nullptr);
    dprintf(1, "nvidia-smi cannot be started: errno %d", errno);
    _exit(127);
  }
  close(ends[1]);
  std::string text;
  char bytes[4096];
  for (ssize_t got; (got = read(ends[0], bytes, sizeof bytes)) > 0 && text.size() < (64 << 10);)
    text.append(bytes, got);
  close(ends[0]);
  if (pid > 0) waitpid(pid, nullptr, 0);
  return text;
}

// In a child, for a driver that hangs must not hold the agent.
std::string ListGpusWithin(absl::Duration limit) {
  absl::StatusOr<ForkedWork> work = ForkedWork::Start(ListGpus);
  if (!work.ok()) return std::string(work.status().message());
  const pid_t pid = work->pid();
  const absl::Time deadline = SteadyNow() + limit;
  std::optional<absl::StatusOr<std::string>> result = work->Poll();
  while (!result && SteadyNow() < deadline) {
    pollfd wait = {work->fd(), POLLIN, 0};
    poll(&wait, 1, 100);
    result = work->Poll();
  }
  work = absl::CancelledError("");  // kills the child where it still runs
  waitpid(pid, nullptr, WNOHANG);   // one that does not even die is reaped later
  if (!result) return absl::StrCat("nvidia-smi has not answered within ", absl::ToInt64Seconds(limit), " s");
  return result->ok() ? **result : std::string(result->status().message());
}

void GatherGpus(agent::Welcome* welcome) {
  if (access(kDriver, F_OK) != 0) {
    welcome->set_gpu_problem("no NVIDIA driver is loaded");
    return;
  }
  // "GPU 0: NVIDIA H100 (UUID: GPU-5a...)", for one cut into parts followed by "  MIG 1g.10gb Device 0: (UUID:
  // MIG-...)".
  const std::string text = ListGpusWithin(kGpuLimit);
  bool last_is_whole = false;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const size_t at = line.find("(UUID: ");
    if (at == absl::string_view::npos) continue;
    const std::string uuid(line.substr(at + 7, line.find(')', at) - at - 7));
    const bool is_part = absl::StartsWith(uuid, "MIG-");
    if (is_part && last_is_whole) welcome->mutable_gpus()->RemoveLast();
    welcome->add_gpus(uuid);
    last_is_whole = !is_part;
  }
  if (welcome->gpus_size() == 0) {
    welcome->set_gpu_problem(absl::StrCat("no GPU that can be used: ", text.substr(0, text.find('\n')).substr(0, 200)));
  }
}

}  // namespace

void GatherNodeFacts(agent::Welcome* welcome) {
  utsname names;
  if (uname(&names) == 0) {
    welcome->set_machine(names.machine);
    welcome->set_host_name(names.nodename);
  }
  welcome->set_libc(absl::StrCat("glibc ", gnu_get_libc_version()));
  welcome->set_cores(UsableCores());
  welcome->set_memory_bytes(UsableMemoryBytes());
  struct statvfs shm;
  if (statvfs("/dev/shm", &shm) == 0) welcome->set_shm_bytes(uint64_t{shm.f_blocks} * shm.f_frsize);
  welcome->set_open_files_limit(InheritedOpenFilesLimit().rlim_cur);
  GatherGpus(welcome);
}

}  // namespace basin
