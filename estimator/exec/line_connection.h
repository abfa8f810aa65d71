// A TCP connection on which both sides send lines of JSON, one object each.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/unique_fd.h"

namespace basin {

// One thread.
class LineConnection final {
 public:
  static constexpr size_t kMostLineBytes = 1 << 20;  // a cluster of thousands of addresses
  static constexpr size_t kMostReadBytes = 64 << 10;

  // A socket that is connected; it is made non-blocking.
  explicit LineConnection(UniqueFd fd);

  int fd() const { return fd_.get(); }
  bool open() const { return fd_.get() >= 0; }
  void Close() { fd_.Close(); }

  // Sends at once, or closes: a peer whose buffers stay full for seconds is as good as gone.
  void Send(const nlohmann::json& line);
  // What has come, in whole lines, of at most kMostReadBytes: more is read by the next call, so that nobody who talks
  // without an end keeps this side from the others. Closed afterwards where the peer has gone, or said what is no JSON
  // object.
  std::vector<nlohmann::json> Read();
  // The next line, within the limit. UNAVAILABLE: none came.
  absl::StatusOr<nlohmann::json> Next(absl::Duration limit);

 private:
  UniqueFd fd_;
  std::string partial_;
  std::vector<nlohmann::json> ahead_;  // read by Next beyond what it returns
};

// What a line has under that name; `otherwise` where that is missing or of another type: peers may be of any version.
template <typename T>
T ValueIn(const nlohmann::json& line, const char* name, T otherwise) {
  const auto found = line.find(name);
  if (found == line.end()) return otherwise;
  try {
    return found->get<T>();
  } catch (const nlohmann::json::exception&) {
    return otherwise;
  }
}

struct Listener {
  UniqueFd fd;
  uint16_t port = 0;
};
// On all interfaces, at a port that the kernel chooses.
absl::StatusOr<Listener> ListenAnywhere();

// UNAVAILABLE: nobody answers there within the limit.
absl::StatusOr<LineConnection> ConnectTo(const std::string& ip, uint16_t port, absl::Duration limit);

// The two ends of a connection, as IPv4 literals.
std::string PeerAddress(int fd);
std::string OwnAddress(int fd);

}  // namespace basin
