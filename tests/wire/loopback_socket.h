// Ports of loopback that are a test's own.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>

namespace basin::wire {

// A socket, the caller's to close, that is bound to a free port of loopback, which goes to *port: while it is open no other program gets that one. Nobody
// listens there. -1: no such address here.
inline int BoundSocket(uint16_t* port, int family = AF_INET) {
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_storage at = {};
  at.ss_family = static_cast<sa_family_t>(family);
  auto* const four = reinterpret_cast<sockaddr_in*>(&at);
  auto* const six = reinterpret_cast<sockaddr_in6*>(&at);
  socklen_t size = family == AF_INET ? sizeof(*four) : sizeof(*six);
  if (family == AF_INET) {
    four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  } else {
    six->sin6_addr = in6addr_loopback;
  }
  if (bind(fd, reinterpret_cast<sockaddr*>(&at), size) != 0) {
    close(fd);
    return -1;
  }
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size), 0);
  *port = ntohs(family == AF_INET ? four->sin_port : six->sin6_port);
  return fd;
}

// The same, where connections wait in the socket until somebody accepts them.
inline int ListeningSocket(uint16_t* port) {
  const int fd = BoundSocket(port);
  EXPECT_EQ(listen(fd, SOMAXCONN), 0);
  return fd;
}

}  // namespace basin::wire
