#include "bench/harness/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

namespace basin::bench {
namespace {

Result Push() {
  Result result;
  result.name = "tcp_push/bytes:1048576";
  result.value = 3.6;
  result.unit = "GB/s";
  result.limit_name = "tcp_stream/bytes:1048576";
  result.limit = 3.0;
  result.p50_us = 100.5;
  result.p99_us = 210;
  result.cpu_s_per_gb = 0.25;
  result.peak_rss_bytes = 123456;
  result.goal = Goal{.ratio = 1.1};
  return result;
}

Result Limit() {
  Result result;
  result.name = "memcpy/bytes:1048576/threads:1";
  result.value = 31.25;
  result.unit = "GB/s";
  return result;
}

TEST(ReportTest, JsonHasTheDocumentedKeysAndNoOthers) {
  const nlohmann::json json = ToJson({{"cpu", "x"}}, {Push(), Limit()});
  EXPECT_EQ(json["machine"]["cpu"], "x");
  ASSERT_EQ(json["results"].size(), 2u);
  for (const auto& result : json["results"]) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : result.items()) keys.push_back(key);
    EXPECT_EQ(keys, (std::vector<std::string>{"cpu_s_per_gb", "limit", "limit_name", "name", "p50_us", "p99_us",
                                              "peak_rss_bytes", "ratio", "unit", "value"}));
  }
  const auto& push = json["results"][0];
  EXPECT_EQ(push["name"], "tcp_push/bytes:1048576");
  EXPECT_EQ(push["limit_name"], "tcp_stream/bytes:1048576");
  EXPECT_DOUBLE_EQ(push["ratio"].get<double>(), 1.2);
  EXPECT_EQ(push["peak_rss_bytes"], 123456);
}

TEST(ReportTest, JsonHasNullForWhatDoesNotApply) {
  const nlohmann::json limit = ToJson({}, {Limit()})["results"][0];
  for (const char* key : {"limit_name", "limit", "ratio", "p50_us", "p99_us", "cpu_s_per_gb", "peak_rss_bytes"})
    EXPECT_TRUE(limit[key].is_null()) << key;
  Result broken = Push();
  broken.p99_us = NAN;
  EXPECT_TRUE(ToJson({}, {broken})["results"][0]["p99_us"].is_null());
}

TEST(ReportTest, GoalsAreMetFromBelowAndFromAbove) {
  Result result = Push();
  EXPECT_EQ(result.met(), true);
  result.goal = Goal{.ratio = 1.2};
  EXPECT_EQ(result.met(), true);  // exactly the goal
  result.goal = Goal{.ratio = 1.1};
  result.value = 3.2;  // 1.07
  EXPECT_EQ(result.met(), false);
  result.goal = Goal{.ratio = 1.1, .at_most = true};
  EXPECT_EQ(result.met(), true);
  result.limit = 1;  // 3.2
  EXPECT_EQ(result.met(), false);
  EXPECT_EQ(Limit().met(), std::nullopt);
  result.limit = 0;  // a limit that was not measured proves nothing
  EXPECT_EQ(result.met(), std::nullopt);
}

TEST(ReportTest, TableHasOneLineAResultAndAlignedColumns) {
  Result missed = Push();
  missed.name = "a";
  missed.value = 0.012345;
  std::istringstream table(Table({Push(), Limit(), missed}));
  std::vector<std::string> lines;
  for (std::string line; std::getline(table, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 4u);
  for (const char* word : {"name", "value", "unit", "limit", "ratio", "goal", "met"})
    EXPECT_NE(lines[0].find(word), std::string::npos) << word;
  EXPECT_NE(lines[1].find("yes"), std::string::npos);
  EXPECT_NE(lines[1].find(">= 1.10"), std::string::npos);
  EXPECT_NE(lines[2].find("31.2"), std::string::npos);
  EXPECT_NE(lines[3].find("0.0123"), std::string::npos);
  EXPECT_NE(lines[3].find("NO"), std::string::npos);
  EXPECT_EQ(lines[1].find("GB/s"), lines[0].find("unit"));
  EXPECT_EQ(lines[3].find("GB/s"), lines[0].find("unit"));
}

}  // namespace
}  // namespace basin::bench
