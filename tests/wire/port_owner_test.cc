#include "common/wire/port_owner.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "common/base/unique_fd.h"
#include "tests/wire/loopback_socket.h"

namespace basin::wire {
namespace {

TEST(PortOwnerTest, APortIsListenedOnOnceSomebodyListensAndNoLonger) {
  for (const int family : {AF_INET, AF_INET6}) {
    uint16_t port = 0;
    UniqueFd fd(BoundSocket(&port, family));
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
