// Two network namespaces with a pair of virtual Ethernet devices between them: two hosts, as far as the network can
// tell. They have no names and belong to this process's descriptors, so that they are gone with it, however it ends.
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace basin::bench {

class TwoHosts final {
 public:
  // PERMISSION_DENIED without the right to make namespaces; NOT_FOUND without the program `ip` (iproute2).
  static absl::StatusOr<TwoHosts> Make();
  TwoHosts(TwoHosts&& other) noexcept
      : first_(std::exchange(other.first_, -1)), second_(std::exchange(other.second_, -1)) {}
  TwoHosts& operator=(TwoHosts&&) = delete;
  ~TwoHosts();

  // Descriptors of the namespaces, for ProcessOptions::network.
  int first() const { return first_; }
  int second() const { return second_; }
  static constexpr char kFirstAddress[] = "10.211.0.1";
  static constexpr char kSecondAddress[] = "10.211.0.2";

 private:
  TwoHosts() = default;
  int first_ = -1, second_ = -1;
};

}  // namespace basin::bench
