#include "common/wire/port_owner.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace basin::wire {
namespace {

constexpr size_t kCommandChars = 100;

// The link texts ("socket:[123]") of the sockets that listen on `port`. A line of /proc/net/tcp is
//   sl: local_ip:port remote_ip:port state tx:rx tr:when retransmits uid timeout inode ...
std::vector<std::string> ListeningSockets(uint16_t port) {
  constexpr absl::string_view kListen = "0A";
  std::vector<std::string> result;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream in(table);
    std::string line;
    while (std::getline(in, line)) {
      std::istringstream fields(line);
      std::string slot, local, remote, state, queues, timer, retransmits, uid, timeout, inode;
      if (!(fields >> slot >> local >> remote >> state >> queues >> timer >> retransmits >> uid >> timeout >> inode))
        continue;
      const size_t colon = local.rfind(':');
      if (state != kListen || colon == std::string::npos) continue;
      if (std::strtoul(local.c_str() + colon + 1, nullptr, 16) == port)
        result.push_back(absl::StrCat("socket:[", inode, "]"));
    }
  }
  return result;
}

std::string Command(const std::filesystem::path& process) {
  std::ifstream in(process / "cmdline", std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  while (!text.empty() && text.back() == '\0') text.pop_back();
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < ' ' || c == '"'; }, ' ');
  if (text.size() > kCommandChars) text = absl::StrCat(text.substr(0, kCommandChars), "...");
  return text;
}

}  // namespace

bool IsListenedOn(uint16_t port) { return !ListeningSockets(port).empty(); }

std::string DescribePortOwner(uint16_t port) {
  const std::vector<std::string> sockets = ListeningSockets(port);
  if (sockets.empty()) return "another process (not seen from this network namespace)";
  std::error_code error;
  const auto kSkip = std::filesystem::directory_options::skip_permission_denied;
  for (std::filesystem::directory_iterator process("/proc", error), end; !error && process != end;
       process.increment(error)) {
    const std::string pid = process->path().filename().string();
    int number = 0;
    if (!absl::SimpleAtoi(pid, &number)) continue;
    std::error_code gone;
    for (std::filesystem::directory_iterator fd(process->path() / "fd", kSkip, gone), last; !gone && fd != last;
         fd.increment(gone)) {
      std::error_code unreadable;
      const std::string link = std::filesystem::read_symlink(fd->path(), unreadable).string();
      if (unreadable || std::find(sockets.begin(), sockets.end(), link) == sockets.end()) continue;
      return absl::StrCat("pid ", pid, " (\"", Command(process->path()), "\")");
    }
  }
  return "another user's process (its pid shows to root: ss -ltnp)";
}

}  // namespace basin::wire
