#include "common/wire/port_owner.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/base/unique_fd.h"

namespace basin::wire {
namespace {

// Bound to a free port of loopback, which goes to *port.
UniqueFd Bound(int family, uint16_t* port) {
  UniqueFd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_storage at = {};
  socklen_t size = sizeof(sockaddr_in);
  at.ss_family = static_cast<sa_family_t>(family);
  if (family == AF_INET) {
    reinterpret_cast<sockaddr_in*>(&at)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  } else {
    size = sizeof(sockaddr_in6);
    reinterpret_cast<sockaddr_in6*>(&at)->sin6_addr = in6addr_loopback;
  }
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&at), size) != 0) return UniqueFd();
  getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &size);
  *port = ntohs(family == AF_INET ? reinterpret_cast<sockaddr_in*>(&at)->sin_port
                                  : reinterpret_cast<sockaddr_in6*>(&at)->sin6_port);
  return fd;
}

TEST(PortOwnerTest, APortIsListenedOnOnceSomebodyListensAndNoLonger) {
  for (const int family : {AF_INET, AF_INET6}) {
    uint16_t port = 0;
    UniqueFd fd = Bound(family, &port);
    if (family == AF_INET6 && fd.get() < 0) continue;  // this machine has no IPv6
    ASSERT_GE(fd.get(), 0);
    EXPECT_FALSE(IsListenedOn(port));  // bound is not enough
    ASSERT_EQ(listen(fd.get(), 1), 0);
    EXPECT_TRUE(IsListenedOn(port));
    fd.Close();
    EXPECT_FALSE(IsListenedOn(port));
  }
}

}  // namespace
}  // namespace basin::wire
