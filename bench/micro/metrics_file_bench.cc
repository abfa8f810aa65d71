// What a step pays for the metrics that it reports: two of them, a line of each a second.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "worker/client/metrics_file.h"

namespace basin {
namespace {

void BM_StepMetrics(benchmark::State& state) {
  const std::string path = absl::StrCat("/tmp/basin_metrics_bench.", getpid());
  {
    MetricsFile file(path, nullptr);
    uint64_t step = 0;
    for (auto _ : state) {
      const absl::Time now = absl::Now();
      file.Add("loss", 0.5, ++step, now);
      file.Add("examples_per_s", 1e5, step, now);
    }
  }
  unlink(path.c_str());
}
BENCHMARK(BM_StepMetrics);

}  // namespace
}  // namespace basin
