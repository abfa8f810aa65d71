#include "worker/client/metrics_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "tests/format/temporary_folder.h"

namespace basin {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1764370000);

class MetricsFileTest : public testing::Test {
 protected:
  std::vector<nlohmann::json> Lines() const {
    std::vector<nlohmann::json> lines;
    const std::string text = ReadFile(path_).value_or("");
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      lines.push_back(nlohmann::json::parse(std::string(line)));
    }
    return lines;
  }
  TemporaryFolder folder_;
  const std::string path_ = folder_ / "metrics.jsonl";
};

TEST_F(MetricsFileTest, ALineASecondHasTheMeanAndTheLastTheNewest) {
  MetricsFile file(path_, nullptr);
  file.Add("loss", 8, 1, kStart);
  file.Add("rate", 100, 1, kStart);
  for (int i = 1; i <= 9; ++i) file.Add("loss", i, 10 * i, kStart + absl::Milliseconds(100 * i));
  EXPECT_EQ(Lines().size(), 2u);
  file.Add("loss", 10, 100, kStart + absl::Seconds(1));
  file.Add("loss", 77, 110, kStart + absl::Milliseconds(1100));
  file.Add("loss", 78, 120, kStart + absl::Milliseconds(1200));
  file.Flush(kStart + absl::Milliseconds(1300));
  file.Flush(kStart + absl::Milliseconds(1400));

  const std::vector<nlohmann::json> lines = Lines();
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0], nlohmann::json({{"name", "loss"}, {"value", 8}, {"step", 1}, {"time", 1764370000.0}}));
  EXPECT_EQ(lines[1]["name"], "rate");
  EXPECT_EQ(lines[2]["value"], 5.5);
  EXPECT_EQ(lines[2]["step"], 100);
  EXPECT_EQ(lines[3]["value"], 78) << "the newest, not a mean: it is what the run ended with";
  EXPECT_EQ(lines[3]["time"], 1764370001.3);
}

TEST_F(MetricsFileTest, WhatIsLeftIsWrittenWhenTheFileIsClosed) {
  {
    MetricsFile file(path_, nullptr);
    file.Add("loss", 1, 1, kStart);
    file.Add("loss", 2, 2, kStart);
  }
  ASSERT_EQ(Lines().size(), 2u);
  EXPECT_EQ(Lines()[1]["value"], 2);
}

TEST_F(MetricsFileTest, HostileNamesAndNumbersStayJson) {
  MetricsFile file(path_, nullptr);
  file.Add("a\"b\\c", std::nan(""), 1, kStart);
  file.Add("d", -INFINITY, 1, kStart);
  file.Add("line\nbreak", 1, 1, kStart);
  file.Add(std::string(300, 'x'), 1, 1, kStart);
  const std::vector<nlohmann::json> lines = Lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["name"], "a\"b\\c");
  EXPECT_EQ(lines[0]["value"], "NaN");
  EXPECT_EQ(lines[1]["value"], "-Infinity");
}

TEST_F(MetricsFileTest, AClockThatIsSetBackSilencesNothing) {
  MetricsFile file(path_, nullptr);
  file.Add("loss", 1, 1, kStart);
  file.Add("loss", 2, 2, kStart - absl::Hours(1));
  EXPECT_EQ(Lines().size(), 2u);
}

TEST_F(MetricsFileTest, AFileThatCannotBeWrittenIsToldOnce) {
  std::vector<std::string> told;
  MetricsFile file(
      folder_ / "not/there.jsonl", [&](const std::string& line) { told.push_back(line); }, absl::ZeroDuration());
  for (int i = 0; i < 3; ++i) file.Add("loss", i, i, kStart);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_TRUE(absl::StrContains(told[0], "training goes on")) << told[0];
  EXPECT_TRUE(absl::StrContains(told[0], "not/there.jsonl")) << told[0];
}

TEST_F(MetricsFileTest, LinesOfSeveralWritersNeverMix) {
  constexpr int kWriters = 4, kLines = 500;
  std::vector<std::thread> threads;
  for (int writer = 0; writer < kWriters; ++writer) {
    threads.emplace_back([&, writer] {
      MetricsFile file(path_, nullptr, absl::ZeroDuration());
      for (int i = 0; i < kLines; ++i) file.Add(absl::StrCat("metric ", writer), i, i, kStart);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Lines().size(), size_t{kWriters * kLines});
}

}  // namespace
}  // namespace basin
