#include "cluster_spec/host_port.h"

#include <gtest/gtest.h>

#include <string>

namespace basin {
namespace {

TEST(HostPortTest, NamesAndAddressesAreAccepted) {
  for (const char* text :
       {"ps0:2222", "a:1", "job-ps-0.ns.svc.cluster.local:65535", "my_host:80", "node1.:22", "10.0.0.4:2222",
        "[::1]:2222", "[fe80::1%eth0]:2222", "cmle-training-workerpool0-ab-0:2222"}) {
    const auto parsed = ParseHostPort(text);
    ASSERT_TRUE(parsed.ok()) << text << ": " << parsed.status();
    EXPECT_EQ(parsed->ToString(), text);
  }
}

TEST(HostPortTest, PartsAreTold) {
  const auto v6 = ParseHostPort("[::1]:2222");
  ASSERT_TRUE(v6.ok());
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->port, 2222);
  EXPECT_EQ(v6->kind, HostPort::Kind::kIpv6);
  EXPECT_EQ(ParseHostPort("10.0.0.4:1")->kind, HostPort::Kind::kIpv4);
  EXPECT_EQ(ParseHostPort("10.0.0.4a:1")->kind, HostPort::Kind::kName);
}

TEST(HostPortTest, SpellingsOfOneEndpointAreEqual) {
  EXPECT_EQ(ParseHostPort("PS0.Example.:02222")->Canonical(), ParseHostPort("ps0.example:2222")->Canonical());
  EXPECT_EQ(ParseHostPort("[0:0::1]:1")->Canonical(), ParseHostPort("[::1]:1")->Canonical());
  EXPECT_NE(ParseHostPort("[fe80::1%a]:1")->Canonical(), ParseHostPort("[fe80::1%b]:1")->Canonical());
}

TEST(HostPortTest, WhatCannotBeAnEndpointIsRefusedWithWhatToWrite) {
  for (const std::string& text : {std::string(),
                                  std::string("ps0"),
                                  std::string(":2222"),
                                  std::string("ps0:"),
                                  std::string("ps0:0"),
                                  std::string("ps0:65536"),
                                  std::string("ps0:-1"),
                                  std::string("ps0:+1"),
                                  std::string("ps0:2222 "),
                                  std::string("p s0:1"),
                                  std::string("grpc://ps0:1"),
                                  std::string("::1:2222"),
                                  std::string("[::1]"),
                                  std::string("[::1:22"),
                                  std::string("[::g]:1"),
                                  std::string("[::1%]:1"),
                                  std::string("10.0.0.256:1"),
                                  std::string("10.0.0:1"),
                                  std::string("a..b:1"),
                                  std::string("-a:1"),
                                  std::string("a-:1"),
                                  std::string(".:1"),
                                  std::string(64, 'a') + ":1",
                                  std::string("a\0b:1", 5),
                                  std::string("\xC3\xA4:1"),
                                  std::string("a/b:1"),
                                  std::string("a:1:2")}) {
    const auto parsed = ParseHostPort(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_NE(parsed.status().message().find("expected"), absl::string_view::npos) << parsed.status();
  }
}

}  // namespace
}  // namespace basin
