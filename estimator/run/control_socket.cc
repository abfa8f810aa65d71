#include "estimator/run/control_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr char kName[] = "supervisor.sock";
constexpr size_t kMostPeers = 16;
constexpr size_t kMostLine = 256;

// A socket's address has room for 107 bytes, and a run's folder may lie deeper: the path goes by the open folder.
sockaddr_un AddressBelow(int folder) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", folder, kName);
  return address;
}

absl::StatusOr<UniqueFd> OpenFolder(const std::string& path) {
  UniqueFd folder(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
  return folder;
}

}  // namespace

absl::StatusOr<ControlSocket> ControlSocket::Listen(const std::string& run_folder) {
  ControlSocket control;
  BASIN_ASSIGN_OR_RETURN(control.folder_, OpenFolder(run_folder));
  const UniqueFd& folder = control.folder_;
  unlinkat(folder.get(), kName, 0);
  control.listener_ = UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_un address = AddressBelow(folder.get());
  if (control.listener_.get() < 0 ||
      bind(control.listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(control.listener_.get(), kMostPeers) != 0) {
    return ErrnoStatus(errno, absl::StrCat("listen on ", run_folder, "/", kName));
  }
  return control;
}

ControlSocket::~ControlSocket() {
  if (folder_.get() >= 0) unlinkat(folder_.get(), kName, 0);
}

void ControlSocket::AddWaits(std::vector<pollfd>* waits) const {
  waits->push_back({listener_.get(), POLLIN, 0});
  for (const Peer& peer : peers_) waits->push_back({peer.fd.get(), POLLIN, 0});
}

std::vector<std::string> ControlSocket::Service() {
  std::vector<std::string> lines;
  while (peers_.size() < kMostPeers) {
    const int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) break;
    peers_.push_back({UniqueFd(fd), ""});
  }
  for (size_t i = 0; i < peers_.size();) {
    char buffer[kMostLine];
    const ssize_t got = read(peers_[i].fd.get(), buffer, sizeof(buffer));
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
      ++i;
      continue;
    }
    if (got > 0) peers_[i].text.append(buffer, static_cast<size_t>(got));
    const size_t end = peers_[i].text.find('\n');
    if (end != std::string::npos) {
      lines.push_back(peers_[i].text.substr(0, end));
      [[maybe_unused]] const ssize_t ignored = send(peers_[i].fd.get(), "ok\n", 3, MSG_NOSIGNAL);
    } else if (got > 0 && peers_[i].text.size() < kMostLine) {
      ++i;
      continue;
    }
    peers_.erase(peers_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return lines;
}

absl::Status TellSupervisor(const std::string& run_folder, const std::string& line, absl::Duration limit) {
  BASIN_ASSIGN_OR_RETURN(const UniqueFd folder, OpenFolder(run_folder));
  const UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = AddressBelow(folder.get());
  if (fd.get() < 0 || connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return absl::UnavailableError(absl::StrCat("no supervisor listens on ", run_folder, "/", kName));
  }
  const std::string text = line + "\n";
  if (send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) {
    return absl::UnavailableError(absl::StrCat("the supervisor of ", run_folder, " does not read"));
  }
  pollfd wait = {fd.get(), POLLIN, 0};
  char answer[16];
  if (poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(limit))) != 1 ||
      read(fd.get(), answer, sizeof(answer)) <= 0) {
    return absl::UnavailableError(
        absl::StrCat("the supervisor of ", run_folder, " has not answered within ", absl::FormatDuration(limit)));
  }
  return absl::OkStatus();
}

}  // namespace basin
