#include "worker/train/timeline.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace basin {
namespace {

TEST(TimelineTest, FileIsChromesTraceFormat) {
  Timeline one(0), two(3), silent(4);
  const absl::Time before = absl::Now() - absl::Seconds(1);
  one.StartClock();
  const absl::Time start = absl::Now();
  one.Add("too early", 0, before, start);
  one.Add("compute", 0, start, start + absl::Milliseconds(2));
  two.NameRow(1, "buffer \"0\"");
  two.Add("all-reduce", 1, start + absl::Milliseconds(1), start + absl::Milliseconds(4), 7, 4096);
  const nlohmann::json file = nlohmann::json::parse(
      Timeline::File({one.EventLines("rank 0"), silent.EventLines("rank 4"), two.EventLines("rank 3")}));
  std::vector<nlohmann::json> spans;
  bool named = false;
  for (const nlohmann::json& event : file["traceEvents"]) {
    if (event["ph"] == "X") spans.push_back(event);
    named |= event["ph"] == "M" && event["args"]["name"] == "buffer \"0\"" && event["pid"] == 3 && event["tid"] == 1;
    EXPECT_NE(event["pid"], 4);
  }
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_TRUE(named);
  EXPECT_EQ(spans[0]["name"], "compute");
  EXPECT_EQ(spans[0]["dur"], 2000);
  EXPECT_EQ(spans[1]["pid"], 3);
  EXPECT_EQ(spans[1]["tid"], 1);
  EXPECT_EQ(spans[1]["dur"], 3000);
  EXPECT_EQ(spans[1]["args"]["step"], 7);
  EXPECT_EQ(spans[1]["args"]["bytes"], 4096);
}

TEST(TimelineTest, NoTimelineIsNoFault) {
  const Timeline::Span span(nullptr, "compute");
  EXPECT_TRUE(nlohmann::json::parse(Timeline::File({}))["traceEvents"].empty());
}

TEST(TimelineTest, EventsPastTheLimitAreCounted) {
  Timeline timeline(0);
  const absl::Time now = absl::Now() + absl::Seconds(1);
  for (size_t i = 0; i < Timeline::kMostEvents + 5; ++i) timeline.Add("x", 0, now, now);
  EXPECT_EQ(timeline.left_out(), 5u);
}

}  // namespace
}  // namespace basin
