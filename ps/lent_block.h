// Memory of a device that a lane has lent to a client's process, which has mapped it: the client's gradients lie there
// when they are pushed, and its parameters when it pulls. Lent for the life of the client, over all of its channels:
// what is sent again after a cut lies where it lay.
#pragma once

#include <cstdint>
#include <string>

namespace basin {

// Held while it is used. It is freed when nobody holds it and its client cannot use it any more.
class LentBlock {
 public:
  virtual ~LentBlock() = default;
  // In the device's memory: not to be looked at by the host.
  virtual char* data() const = 0;
  virtual uint64_t bytes() const = 0;
  // What a process of this host opens it by.
  virtual const std::string& handle() const = 0;
  // The client says that it has closed it. Without that, the end of its process is waited for.
  virtual void Closed() = 0;
};

}  // namespace basin
