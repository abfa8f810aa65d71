// The Transport seam as programs use it: shared memory where both ends are on one host, TCP otherwise.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/wire/bind_address.h"
#include "common/wire/transport.h"
#include "common/wire/zmq_transport.h"

namespace basin::wire {

enum class TransportKind {
  kAuto,  // shared memory where it can be had, else TCP
  kTcp,
  kShm,  // clients alone: an error where it cannot be had
};
// "auto", "tcp", "shm". INVALID_ARGUMENT names them.
absl::StatusOr<TransportKind> TransportKindFromName(absl::string_view name);

struct HostDialerOptions {
  TransportKind kind = TransportKind::kAuto;
  TransportOptions transport;
  // Takes a line for people, at most once each: shared memory was refused, or is not offered, and TCP is used. From the
  // thread that drives the dialer. May be empty.
  std::function<void(const std::string& line)> tell;
};
// An address is tried over shared memory first when it is of this network namespace; what was sent meanwhile goes over
// whichever transport answers. Where nobody offers shared memory then, but the peer answers over TCP, it is tried once
// more, if no more than one message was sent by then: that one may reach the peer twice, and its first answer is
// dropped. From then on a channel keeps its transport; a cut shows as a cut of that one, and Dial tries anew.
// Wait may also return early with nothing to receive. `context`: as for MakeZmqDialer.
std::unique_ptr<Dialer> MakeHostDialer(const HostDialerOptions& options, std::shared_ptr<ZmqContext> context = nullptr);

class HostListener : public Listener {
 public:
  // Why there is no shared memory though it was wanted; empty where there is.
  virtual const std::string& note() const = 0;
};
// Listens on TCP as ZmqListen, and beside it over shared memory unless `kind` is kTcp. Where the system gives no shared
// memory the listener works over TCP alone, and note() says why. Errors: ZmqListen's; INVALID_ARGUMENT for kShm.
absl::StatusOr<std::unique_ptr<HostListener>> HostListen(const BindAddress& address, TransportKind kind,
                                                         const TransportOptions& options,
                                                         std::shared_ptr<ZmqContext> context = nullptr);

}  // namespace basin::wire
