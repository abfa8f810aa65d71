#include "estimator/local_node.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace basin {
namespace {

constexpr int kFirstPort = 2222;  // where TensorFlow's clusters listen by custom

// The socket that holds the port, or -1 where it is taken.
int HoldPort(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // Bound without the option, so that a port held by another launcher is refused; set after, so that the task is not.
  const int yes = 1;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

bool IsProgram(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) && access(path.c_str(), X_OK) == 0;
}

}  // namespace

HeldPorts::~HeldPorts() {
  for (const int fd : sockets_) close(fd);
}

absl::StatusOr<HeldPorts> HeldPorts::Hold(int count, const PortRange& range) {
  HeldPorts held;
  const auto hold_up_to = [&held, count](int first, int last) {
    for (int port = first; port <= last && static_cast<int>(held.ports_.size()) < count; ++port) {
      const int fd = HoldPort(port);
      if (fd < 0) continue;
      held.ports_.push_back(port);
      held.sockets_.push_back(fd);
    }
  };
  hold_up_to(kFirstPort, kFirstPort + count - 1);
  hold_up_to(range.first, range.last);
  if (static_cast<int>(held.ports_.size()) < count) {
    return absl::ResourceExhaustedError(absl::StrCat("127.0.0.1: ", count, " free ports are needed, ",
                                                     held.ports_.size(), " found (2222 upward, then ", range.first, "-",
                                                     range.last, "); set network.ports in the job file"));
  }
  return held;
}

absl::StatusOr<std::string> FindProgram(const std::string& name, const std::string& folder, const std::string& path) {
  std::vector<std::string> places;
  if (!folder.empty()) {
    places.push_back(folder);
  } else {
    std::error_code error;
    const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
    if (!error) places.push_back(self.parent_path().string());
    for (const auto& place : absl::StrSplit(path, ':', absl::SkipEmpty())) places.emplace_back(place);
  }
  for (const std::string& place : places) {
    const std::filesystem::path candidate = std::filesystem::path(place) / name;
    if (!IsProgram(candidate)) continue;
    std::error_code error;
    const std::filesystem::path absolute = std::filesystem::absolute(candidate, error);
    return error ? candidate.string() : absolute.lexically_normal().string();
  }
  return absl::NotFoundError(
      absl::StrCat("program ", name, " not found ",
                   folder.empty() ? absl::StrCat("beside basin (", places.empty() ? "?" : places[0], ") or on PATH")
                                  : absl::StrCat("in ", folder),
                   "; name its folder with --programs DIR"));
}

}  // namespace basin
