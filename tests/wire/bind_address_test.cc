#include "common/wire/bind_address.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "common/wire/resolve.h"

namespace basin::wire {
namespace {

const std::vector<LocalAddress> kLocal = {
    {"lo", "127.0.0.1"}, {"lo", "::1"}, {"eth0", "fe80::1%eth0"}, {"eth0", "10.0.0.4"}, {"ib0", "10.1.0.4"}};

BindFacts Facts(std::vector<std::string> own_ips, bool every_task_is_loopback = false) {
  return {.own_host = "h1",
          .own_ips = std::move(own_ips),
          .local = kLocal,
          .every_task_is_loopback = every_task_is_loopback};
}

struct Case {
  const char* name;
  std::vector<std::string> own_ips;
  bool every_task_is_loopback;
  std::string interface;
  std::string ip;
  bool noted;
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

class ChooseBindAddressTest : public ::testing::TestWithParam<Case> {};

TEST_P(ChooseBindAddressTest, Chooses) {
  const Case& c = GetParam();
  const auto chosen = ChooseBindAddress(Facts(c.own_ips, c.every_task_is_loopback), c.interface);
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ(chosen->ip, c.ip);
  EXPECT_EQ(chosen->host, "h1");
  EXPECT_EQ(!chosen->note.empty(), c.noted) << chosen->note;
}

INSTANTIATE_TEST_SUITE_P(
    Table, ChooseBindAddressTest,
    ::testing::Values(
        Case{"OwnLocalAddress", {"10.0.0.4"}, false, "", "10.0.0.4", false},
        Case{"SecondOwnAddressIsLocal", {"203.0.113.9", "10.1.0.4"}, false, "", "10.1.0.4", false},
        Case{"LoopbackIsPassedOverForALocalAddress", {"127.0.1.1", "10.0.0.4"}, false, "", "10.0.0.4", false},
        Case{"DebiansHostsLineDoesNotHideAPs", {"127.0.1.1"}, false, "", "0.0.0.0", true},
        Case{"AClusterOnLoopbackStaysThere", {"127.0.0.1"}, true, "", "127.0.0.1", false},
        Case{"AnotherLoopbackAddressIsKept", {"127.0.0.12"}, true, "", "127.0.0.12", false},
        Case{"LoopbackOfVersion6", {"::1"}, true, "", "::1", false},
        Case{"AnAddressOfAService", {"203.0.113.9"}, false, "", "0.0.0.0", true},
        Case{"AServiceOfVersion6", {"2001:db8::9"}, false, "", "::", true},
        Case{"AllByName", {"0.0.0.0"}, false, "", "0.0.0.0", false},
        Case{"ChosenInterface", {"10.0.0.4"}, false, "ib0", "10.1.0.4", false},
        Case{"ChosenInterfacePrefersVersion4", {"127.0.0.1"}, true, "eth0", "10.0.0.4", false},
        Case{"ChosenAddress", {"10.0.0.4"}, false, "10.1.0.4", "10.1.0.4", false}),
    [](const auto& info) { return info.param.name; });

TEST(BindAddressTest, AnUnknownInterfaceListsWhatThereIs) {
  const auto chosen = ChooseBindAddress(Facts({"10.0.0.4"}), "eth7");
  EXPECT_EQ(chosen.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(chosen.status().message(), "--interface eth7")) << chosen.status();
  EXPECT_TRUE(absl::StrContains(chosen.status().message(), "ib0 (10.1.0.4)")) << chosen.status();
}

TEST(BindAddressTest, TheNoteSaysWhyAllInterfaces) {
  EXPECT_EQ(ChooseBindAddress(Facts({"127.0.1.1"}), "")->note,
            "listening on all interfaces, since this task's host \"h1\" resolves to 127.0.1.1, which other machines "
            "cannot reach; "
            "--interface chooses one");
}

TEST(BindAddressTest, AnOwnNameThatDoesNotResolveIsRetriable) {
  const auto facts = CollectBindFacts("no-such-host.invalid", {});
  EXPECT_EQ(facts.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(facts.status().message(), "name does not resolve")) << facts.status();
}

TEST(BindAddressTest, FactsOfALoopbackCluster) {
  const auto facts = CollectBindFacts("127.0.0.1", {"127.0.0.1", "localhost", "127.0.0.7"});
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_TRUE(facts->every_task_is_loopback);
  EXPECT_FALSE(facts->local.empty());
  EXPECT_EQ(ChooseBindAddress(*facts, "")->ip, "127.0.0.1");
}

TEST(BindAddressTest, ATaskElsewhereEndsTheLoopbackRule) {
  const auto facts = CollectBindFacts("127.0.0.1", {"127.0.0.1", "192.0.2.1"});
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_FALSE(facts->every_task_is_loopback);
}

TEST(ResolveTest, SplitsAddresses) {
  EXPECT_EQ(SplitHostPort("h1:2222")->host, "h1");
  EXPECT_EQ(SplitHostPort("h1:2222")->port, 2222);
  EXPECT_EQ(SplitHostPort("[::1]:80")->host, "::1");
  EXPECT_EQ(JoinHostPort("::1", 80), "[::1]:80");
  EXPECT_EQ(JoinHostPort("h1", 80), "h1:80");
  for (const char* wrong : {"", "h1", ":80", "h1:", "h1:x", "h1:65536", "h1:-1", "::1:80", "[::1]80", "[::1"}) {
    EXPECT_EQ(SplitHostPort(wrong).status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
}

TEST(ResolveTest, KnowsLoopback) {
  EXPECT_TRUE(IsLoopback("127.0.1.1"));
  EXPECT_TRUE(IsLoopback("::1"));
  EXPECT_TRUE(IsLoopback("::ffff:127.0.0.1"));
  EXPECT_FALSE(IsLoopback("10.0.0.4"));
  EXPECT_FALSE(IsLoopback("localhost"));
}

}  // namespace
}  // namespace basin::wire
