#include "bench/harness/server_counts.h"

#include <gtest/gtest.h>

namespace basin::bench {
namespace {

std::string Ps(int applied, int tcp, int shm) {
  return R"({"applied": )" + std::to_string(applied) + R"(, "shards": 2, "rows": 7, "dropped_gradients": 1, )" +
         R"("tcp_connections": )" + std::to_string(tcp) + R"(, "shm_connections": )" + std::to_string(shm) + "}";
}

TEST(ServerCountsTest, CountsAreThoseOfAllServersTogether) {
  const absl::StatusOr<ServerCounts> counts = CountsOf(R"({"ps": [)" + Ps(3, 1, 0) + ", " + Ps(40, 2, 5) + "]}");
  ASSERT_TRUE(counts.ok()) << counts.status();
  EXPECT_EQ(counts->applied, 43u);
  EXPECT_EQ(counts->shards, 4u);
  EXPECT_EQ(counts->rows, 14u);
  EXPECT_EQ(counts->dropped_gradients, 2u);
  EXPECT_EQ(counts->tcp_connections, 3u);
  EXPECT_EQ(counts->shm_connections, 5u);
}

TEST(ServerCountsTest, AMissingCountIsNotTakenForNone) {
  EXPECT_FALSE(CountsOf("").ok());
  EXPECT_FALSE(CountsOf("[]").ok());
  EXPECT_FALSE(CountsOf(R"({"ps": 3})").ok());
  const absl::Status status = CountsOf(R"({"ps": [{"applied": 3}]})").status();
  EXPECT_NE(status.message().find("\"shards\""), std::string::npos) << status;
}

TEST(ServerCountsTest, AFigureIsOfTheTransportThatItIsNamedFor) {
  ServerCounts tcp, shm, both;
  tcp.tcp_connections = both.tcp_connections = 2;
  shm.shm_connections = both.shm_connections = 3;
  EXPECT_TRUE(CheckTransport(tcp, "tcp", true).ok());
  EXPECT_TRUE(CheckTransport(shm, "shm", true).ok());
  EXPECT_FALSE(CheckTransport(tcp, "shm", true).ok());
  EXPECT_FALSE(CheckTransport(shm, "tcp", true).ok());
  EXPECT_FALSE(CheckTransport(tcp, "shm", false).ok());
  // Others may use another way, unless there are no others.
  EXPECT_FALSE(CheckTransport(both, "shm", true).ok());
  EXPECT_TRUE(CheckTransport(both, "shm", false).ok());
  for (const ServerCounts& any : {tcp, shm, both}) EXPECT_TRUE(CheckTransport(any, "auto", true).ok());
  const absl::Status status = CheckTransport(tcp, "shm", true);
  EXPECT_NE(status.message().find("2 connections over TCP and 0 over shared memory"), std::string::npos) << status;
}

}  // namespace
}  // namespace basin::bench
