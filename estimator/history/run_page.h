// The page of a run: index.html in its folder, which needs no network and no server. What users and scripts wrote is
// shown as text, whatever it holds.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "estimator/history/run_folder.h"
#include "estimator/history/run_record.h"
#include "estimator/history/series.h"

namespace basin {

struct PageLog {
  std::string path;  // below the run's folder
  uint64_t bytes = 0;
  std::vector<std::string> tail;
};

struct PageContent {
  RunRecord record;
  std::string job_json;
  std::vector<PageLog> logs;
  std::vector<PageLog> outputs;  // without tails
  bool outputs_cut = false;      // there are more
  const SeriesMap* series = nullptr;
  absl::Time written;
  std::string nonce;  // hex; scripts of the page carry it, others do not run
};

// Pure.
std::string RenderRunPage(const PageContent& content);

// Gathers what the folder holds, and writes index.html and chart.js into it, the former atomically.
absl::Status WriteRunPage(const RunFolder& folder, const RunRecord& record, const SeriesMap& series, absl::Time now);

// Chart.js as it is distributed by Debian.
absl::string_view ChartScript();

// `text` as HTML that shows it, in elements and in quoted attributes.
std::string EscapeHtml(absl::string_view text);

}  // namespace basin
