#include "common/telemetry/metrics.h"

#include <gtest/gtest.h>
#include <stdio.h>

#include <cstdlib>
#include <thread>
#include <vector>

#include "absl/strings/match.h"

namespace basin::telemetry {
namespace {

void Fill(Registry& registry) {
  Counter applied = registry.AddCounter("basin_pushes_applied_total", "Pushes that were applied.", {{"lane", "0"}});
  applied.Add();
  applied.Add(2);
  registry.AddGauge("basin_workers_alive", "Workers heard of lately.").Set(4);
  Histogram staleness =
      registry.AddHistogram("basin_staleness_versions", "How old pulled versions were at their push.", {1, 2, 4});
  staleness.Observe(1);
  staleness.Observe(3);
  staleness.Observe(100);
}

TEST(MetricsTest, RendersEachKindWithHelpAndType) {
  Registry registry;
  Fill(registry);
  const std::string page = registry.Render();
  for (const char* line :
       {"# HELP basin_pushes_applied_total Pushes that were applied.\n", "# TYPE basin_pushes_applied_total counter\n",
        "basin_pushes_applied_total{lane=\"0\"} 3\n", "# TYPE basin_workers_alive gauge\n", "basin_workers_alive 4\n",
        "# TYPE basin_staleness_versions histogram\n", "basin_staleness_versions_bucket{le=\"1\"} 1\n",
        "basin_staleness_versions_bucket{le=\"4\"} 2\n", "basin_staleness_versions_bucket{le=\"+Inf\"} 3\n",
        "basin_staleness_versions_count 3\n", "basin_staleness_versions_sum 104\n"}) {
    EXPECT_TRUE(absl::StrContains(page, line)) << line << page;
  }
}

TEST(MetricsTest, LabelValuesAreEscaped) {
  Registry registry;
  registry.AddGauge("basin_gauge", "A gauge.", {{"name", "a \"b\"\\\nc"}}).Set(1);
  EXPECT_TRUE(absl::StrContains(registry.Render(), "basin_gauge{name=\"a \\\"b\\\"\\\\\\nc\"} 1\n"))
      << registry.Render();
}

TEST(MetricsTest, TheSameNameAndLabelsAreOneMetric) {
  Registry registry;
  registry.AddCounter("basin_total", "A total.").Add(1);
  registry.AddCounter("basin_total", "A total.").Add(1);
  EXPECT_TRUE(absl::StrContains(registry.Render(), "basin_total 2\n")) << registry.Render();
}

TEST(MetricsTest, ATotalCountedElsewhereNeverFalls) {
  Registry registry;
  Counter total = registry.AddCounter("basin_total", "A total.");
  total.AdvanceTo(5);
  total.AdvanceTo(3);
  EXPECT_TRUE(absl::StrContains(registry.Render(), "basin_total 5\n")) << registry.Render();
}

TEST(MetricsTest, UpdatesRunBeforeEachRendering) {
  Registry registry;
  Gauge gauge = registry.AddGauge("basin_gauge", "A gauge.");
  int rendered = 0;
  registry.BeforeRendering([&] { gauge.Set(++rendered); });
  registry.Render();
  EXPECT_TRUE(absl::StrContains(registry.Render(), "basin_gauge 2\n")) << registry.Render();
}

TEST(MetricsTest, ThreadsCountWithoutLoss) {
  Registry registry;
  Counter total = registry.AddCounter("basin_total", "A total.");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([total]() mutable {
      for (int n = 0; n < 1000; ++n) total.Add();
    });
  }
  registry.Render();
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(absl::StrContains(registry.Render(), "basin_total 4000\n")) << registry.Render();
}

TEST(MetricsTest, PromtoolFindsNothingToComplainOf) {
  if (std::system("command -v promtool > /dev/null") != 0)
    GTEST_SKIP() << "promtool is not installed (Debian: prometheus)";
  Registry registry;
  Fill(registry);
  const std::string page = registry.Render();
  FILE* promtool = popen("promtool check metrics", "w");
  ASSERT_NE(promtool, nullptr);
  ASSERT_EQ(fwrite(page.data(), 1, page.size(), promtool), page.size());
  EXPECT_EQ(pclose(promtool), 0) << page;
}

}  // namespace
}  // namespace basin::telemetry
