#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

TEST(StatsTest, HasWhatTopShows) {
  LaneCoreOptions options = LaneHarness::DefaultOptions();
  options.address = "h0:2222";
  options.started = absl::FromUnixSeconds(990);
  LaneHarness lane(options);
  lane.Join(1, 0);
  lane.Join(2, 1, "a \"quoted\" n\u00e4me");
  wire::v1::Model model = OneVariable(4);
  AddInput(model, 10, 2);
  lane.SetUpModel(1, model);
  lane.NextInput(1, 1);
  EXPECT_EQ(lane.Push(1, 1, {1, 1, 1, 1}), absl::StatusCode::kOk);
  lane.now += absl::Seconds(2);
  wire::v1::Step step;
  step.set_clock(4);
  auto* loss = step.add_metrics();
  loss->set_name("loss");
  loss->set_value(0.5);
  auto* nan = step.add_metrics();
  nan->set_name("bad");
  nan->set_value(std::nan(""));
  lane.Ask(1, wire::Kind::kStep, step);
  const auto heard = lane.Ask(2, wire::Kind::kStats, wire::v1::Stats());
  const auto json = nlohmann::json::parse(heard.at(0).As<wire::v1::StatsText>().json());
  EXPECT_EQ(json["run"], "run");
  EXPECT_EQ(json["state"], "training");
  EXPECT_EQ(json["global_step"], 4);
  EXPECT_EQ(json["min_clock"], 0);
  EXPECT_EQ(json["uptime_s"], 12);
  EXPECT_EQ(json["model"]["bytes"], 16);
  EXPECT_EQ(json["ps"][0]["address"], "h0:2222");
  EXPECT_EQ(json["ps"][0]["applied"], 1);
  EXPECT_EQ(json["clients"].size(), 2u);
  EXPECT_EQ(json["clients"][0]["role"], "worker");
  EXPECT_EQ(json["clients"][0]["clock"], 4);
  EXPECT_EQ(json["clients"][0]["lag"], 4);
  EXPECT_EQ(json["clients"][0]["metrics"]["loss"], 0.5);
  EXPECT_TRUE(json["clients"][0]["metrics"]["bad"].is_null());
  EXPECT_DOUBLE_EQ(json["clients"][0]["steps_per_s"], 2.0);
  EXPECT_EQ(json["inputs"][0]["pieces_total"], 5);
  EXPECT_EQ(json["inputs"][0]["pieces_leased"], 1);
}

}  // namespace
}  // namespace basin
