#include "common/telemetry/metrics_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/telemetry/metrics.h"

namespace basin::telemetry {
namespace {

std::string Get(uint16_t port, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0) {
    const std::string request = absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    send(fd, request.data(), request.size(), MSG_NOSIGNAL);
    char bytes[4096];
    for (ssize_t got; (got = recv(fd, bytes, sizeof bytes, 0)) > 0;) answer.append(bytes, static_cast<size_t>(got));
  }
  close(fd);
  return answer;
}

TEST(MetricsServerTest, ServesThePageAndNothingElse) {
  Registry registry;
  registry.AddGauge("basin_workers_alive", "Workers heard of lately.").Set(4);
  const auto server = MetricsServer::Start("127.0.0.1", 0, registry);
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string page = Get((*server)->port(), "/metrics");
  EXPECT_TRUE(absl::StartsWith(page, "HTTP/1.1 200")) << page;
  EXPECT_TRUE(absl::StrContains(page, "text/plain; version=0.0.4")) << page;
  EXPECT_TRUE(absl::StrContains(page, "basin_workers_alive 4\n")) << page;
  EXPECT_TRUE(absl::StartsWith(Get((*server)->port(), "/other"), "HTTP/1.1 404"));
}

TEST(MetricsServerTest, SeveralScrapersAreAllAnswered) {
  Registry registry;
  registry.AddGauge("basin_workers_alive", "Workers heard of lately.").Set(4);
  const auto server = MetricsServer::Start("127.0.0.1", 0, registry);
  ASSERT_TRUE(server.ok()) << server.status();
  std::vector<std::thread> scrapers;
  for (int i = 0; i < 8; ++i) {
    scrapers.emplace_back(
        [&] { EXPECT_TRUE(absl::StrContains(Get((*server)->port(), "/metrics"), "basin_workers_alive 4\n")); });
  }
  for (std::thread& scraper : scrapers) scraper.join();
}

TEST(MetricsServerTest, ATakenPortSaysSo) {
  Registry registry;
  const auto first = MetricsServer::Start("127.0.0.1", 0, registry);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = MetricsServer::Start("127.0.0.1", (*first)->port(), registry);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(absl::StrContains(second.status().message(),
                                absl::StrCat("cannot serve metrics on 127.0.0.1:", (*first)->port(),
                                             ": Address already in use; give another --metrics-port")))
      << second.status();
}

TEST(MetricsServerTest, StopsAtOnceWithoutHavingServed) {
  Registry registry;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(MetricsServer::Start("127.0.0.1", 0, registry).ok());
}

}  // namespace
}  // namespace basin::telemetry
