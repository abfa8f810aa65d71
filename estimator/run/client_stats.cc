#include "estimator/run/client_stats.h"

#include <basin/basin.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cluster_spec/host_port.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

// A try to connect, so that Stop is heeded soon.
constexpr double kConnectSeconds = 1;
constexpr absl::Duration kReadEvery = absl::Milliseconds(400);

absl::Status ToStatus(const basin_status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.code), status.message);
}

// The library's calls may block for as long as a ps is silent; whoever shows progress must not. So a thread asks, and
// Read hands out what was heard last.
class ClientStatsSource final : public StatsSource {
 public:
  explicit ClientStatsSource(StatsAddress address) : address_(std::move(address)), thread_([this] { Loop(); }) {}

  ~ClientStatsSource() override {
    Stop();
    thread_.join();
  }

  absl::StatusOr<std::string> Read() override {
    MutexLock lock(mutex_);
    return latest_;
  }

  void Stop() override {
    MutexLock lock(mutex_);
    stop_ = true;
    changed_.NotifyAll();
  }

 private:
  bool Stopped() {
    MutexLock lock(mutex_);
    return stop_;
  }

  // Then waits for the time of the next look.
  void Tell(absl::StatusOr<std::string> latest) {
    MutexLock lock(mutex_);
    latest_ = std::move(latest);
    if (!stop_) changed_.WaitFor(mutex_, kReadEvery);
  }

  void Loop() {
    basin_client* client = nullptr;
    while (!Stopped()) {
      basin_status status = {};
      if (client == nullptr) {
        basin_options options;
        basin_options_init(&options, sizeof(options));
        options.ps_address = address_.ps.c_str();
        options.run_id = address_.run_id.empty() ? nullptr : address_.run_id.c_str();
        options.token_file = address_.token_file.empty() ? nullptr : address_.token_file.c_str();
        options.observer = 1;
        options.start_timeout_s = kConnectSeconds;
        if (basin_connect(&options, &client, &status) != BASIN_OK) {
          client = nullptr;
          Tell(ToStatus(status));
          // A wrong token or another run stays wrong; only absence may pass.
          if (status.code != BASIN_UNAVAILABLE && status.code != BASIN_DEADLINE_EXCEEDED) return;
          continue;
        }
      }
      char* text = nullptr;
      if (basin_stats(client, &text, &status) == BASIN_OK) {
        std::string json = text;
        basin_free_text(text);
        Tell(std::move(json));
      } else {
        basin_close(client);
        client = nullptr;
        Tell(absl::UnavailableError(status.message));
      }
    }
    basin_close(client);
  }

  const StatsAddress address_;
  Mutex mutex_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  absl::StatusOr<std::string> latest_ ABSL_GUARDED_BY(mutex_) = absl::UnavailableError("no answer yet");
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace

absl::StatusOr<std::unique_ptr<StatsSource>> OpenClientStats(const StatsAddress& address) {
  BASIN_RETURN_IF_ERROR(ParseHostPort(address.ps).status());
  return std::make_unique<ClientStatsSource>(address);
}

}  // namespace basin
