// The only file that compiles httplib.h, which takes seconds. Debian's library is built with OpenSSL, zlib and brotli
// and this file without: the classes that differ by it are the clients and the end of Request, and neither is touched
// here.
#include "common/telemetry/metrics_server.h"

#include <httplib.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <exception>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/telemetry/metrics.h"

namespace basin::telemetry {
namespace {

constexpr size_t kThreads = 2;
constexpr time_t kSeconds = 5;

}  // namespace

struct MetricsServer::State {
  httplib::Server server;
  std::thread thread;
  uint16_t port = 0;
};

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& host, uint16_t port,
                                                                    const Registry& registry) {
  auto state = std::make_unique<State>();
  httplib::Server& server = state->server;
  server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  // One request a connection, so that idle scrapers do not hold both threads.
  server.set_keep_alive_max_count(1);
  server.set_read_timeout(kSeconds);
  server.set_write_timeout(kSeconds);
  server.set_payload_max_length(1 << 10);
  // httplib's default is SO_REUSEPORT, with which two programs take the same port and neither says so.
  server.set_socket_options([](int socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  server.Get("/metrics", [&registry](const httplib::Request&, httplib::Response& response) {
    response.set_content(registry.Render(), "text/plain; version=0.0.4");
  });
  int bound = -1;
  errno = 0;
  try {
    bound = port == 0 ? server.bind_to_any_port(host) : server.bind_to_port(host, port) ? port : -1;
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", host, ":", port, ": ", error.what()));
  }
  if (bound < 0) {
    return absl::AlreadyExistsError(
        absl::StrCat("cannot serve metrics on ", host, ":", port, ": ",
                     errno != 0 ? std::strerror(errno) : "the port is taken, or the host is not this machine's",
                     "; give another --metrics-port"));
  }
  state->port = static_cast<uint16_t>(bound);
  state->thread = std::thread([&server] { server.listen_after_bind(); });
  // stop() does nothing to a server that does not run yet.
  while (!server.is_running()) std::this_thread::yield();
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(state)));
}

MetricsServer::MetricsServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

MetricsServer::~MetricsServer() {
  state_->server.stop();
  state_->thread.join();
}

uint16_t MetricsServer::port() const { return state_->port; }

}  // namespace basin::telemetry
