// A worker's connection through the public library, with what all workers of the harness do alike.
#pragma once

#include <basin/client.h>

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/harness/server_counts.h"
#include "bench/harness/task.h"
#include "common/rules/rule_spec.h"

namespace basin::bench {

inline absl::Status FromLibrary(int32_t code, const basin_status& status) {
  return code == BASIN_OK ? absl::OkStatus() : absl::Status(static_cast<absl::StatusCode>(code), status.message);
}
inline absl::Status FromLibrary(const Status& status) {
  return status.ok() ? absl::OkStatus() : absl::Status(static_cast<absl::StatusCode>(status.code()), status.message());
}

// As TF_CONFIG of the environment says. spec: "transport", "start_timeout_s", "unreachable_timeout_s",
// "in_flight_bytes", "spin_us".
absl::StatusOr<Client> ConnectAsTold(const Json& spec);

// The library's form of a rule.
Rule ToLibrary(const RuleSpec& rule);

absl::StatusOr<ServerCounts> CountsOf(Client& client);

// Memory of the library's allocator, which the transports know.
class Floats final {
 public:
  Floats() = default;
  // RESOURCE_EXHAUSTED when there is none.
  static absl::StatusOr<Floats> Make(size_t count);
  Floats(Floats&& other) noexcept { *this = std::move(other); }
  Floats& operator=(Floats&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~Floats() { basin_deallocate(data_); }
  float* data() { return data_; }
  size_t size() const { return count_; }

 private:
  float* data_ = nullptr;
  size_t count_ = 0;
};

}  // namespace basin::bench
