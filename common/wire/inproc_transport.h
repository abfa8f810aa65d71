// The Transport seam within one process, for tests: the same outcomes as over TCP, without sockets.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/wire/transport.h"

namespace basin::wire {

// A network of its own: addresses are names in it. Listeners, dialers and channels may outlive the object. Thread-safe.
class InprocNetwork final {
 public:
  InprocNetwork();
  ~InprocNetwork();

  // `address` is host:port; port 0 takes a free one. ALREADY_EXISTS where someone listens.
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const std::string& address, const TransportOptions& options = {});
  // A host on which nobody has ever listened does not resolve; a port on which nobody listens refuses.
  std::unique_ptr<Dialer> MakeDialer(const TransportOptions& options = {});
  // Cuts all channels to this address as a failed network would: what is under way is lost, both ends notice.
  void Cut(const std::string& address);

 private:
  struct State;
  const std::shared_ptr<State> state_;
};

}  // namespace basin::wire
