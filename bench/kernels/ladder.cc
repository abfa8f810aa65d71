#include "bench/kernels/ladder.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_memory.h"
#include "common/device/cuda_status.h"

namespace basin {
namespace {

constexpr size_t kMostRepeats = 1000;
constexpr uint64_t kCopyBytes = 1ull << 30;

double Median(const std::vector<double>& ascending) { return ascending[ascending.size() / 2]; }

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

class Event {
 public:
  Event() = default;
  ~Event() {
    if (event_ != nullptr) static_cast<void>(cudaEventDestroy(event_));
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  absl::Status Make() { return CheckCuda(cudaEventCreate(&event_), "make an event"); }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

absl::Status CheckCuda(cudaError_t error, absl::string_view what) { return CudaStatus(error, "cuda", what); }

bool Ladders::Wants(absl::string_view ladder) const { return absl::StrContains(ladder, options_.only); }

absl::Status Ladders::Time(const LadderStep& step, std::vector<double>* seconds) const {
  Event begin, end;
  if (step.on_device) {
    BASIN_RETURN_IF_ERROR(begin.Make());
    BASIN_RETURN_IF_ERROR(end.Make());
  }
  const double stop = Now() + options_.seconds;
  while (seconds->size() < LadderOptions::kRepeats || (Now() < stop && seconds->size() < kMostRepeats)) {
    if (!step.on_device) {
      const double started = Now();
      BASIN_RETURN_IF_ERROR(step.work());
      seconds->push_back(Now() - started);
      continue;
    }
    float milliseconds = 0;
    BASIN_RETURN_IF_ERROR(CheckCuda(cudaEventRecord(begin.get(), stream_), "record an event"));
    BASIN_RETURN_IF_ERROR(step.work());
    BASIN_RETURN_IF_ERROR(CheckCuda(cudaEventRecord(end.get(), stream_), "record an event"));
    BASIN_RETURN_IF_ERROR(CheckCuda(cudaEventSynchronize(end.get()), "wait for a step"));
    BASIN_RETURN_IF_ERROR(CheckCuda(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()), "read a time"));
    seconds->push_back(milliseconds / 1e3);
  }
  std::sort(seconds->begin(), seconds->end());
  return absl::OkStatus();
}

absl::Status Ladders::Run(const LadderStep& step) {
  const auto named = [&step](const absl::Status& status, absl::string_view what) {
    return absl::Status(status.code(), absl::StrCat(step.ladder, ", ", step.name, ": ", what, ": ", status.message()));
  };
  if (absl::Status done = step.work(); !done.ok()) return named(done, "first run");
  if (step.on_device) BASIN_RETURN_IF_ERROR(CheckCuda(cudaStreamSynchronize(stream_), "wait for a step"));
  if (absl::Status same = step.check(); !same.ok()) return named(same, "check");
  Result result{step, {}};
  if (absl::Status timed = Time(step, &result.seconds); !timed.ok()) return named(timed, "timing");
  result.step.work = nullptr;  // what they hold is the ladder's, and gone after it
  result.step.check = nullptr;
  results_.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status Ladders::MeasureCopy() {
  CudaMemory from, to;
  const uint64_t bytes = std::min(kCopyBytes, options_.bytes);
  BASIN_RETURN_IF_ERROR(from.Resize("cuda", bytes));
  BASIN_RETURN_IF_ERROR(to.Resize("cuda", bytes));
  BASIN_RETURN_IF_ERROR(CheckCuda(cudaMemsetAsync(from.data(), 1, bytes, stream_), "fill memory"));
  LadderStep copy;
  copy.work = [&] {
    return CheckCuda(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, stream_), "copy");
  };
  std::vector<double> seconds;
  BASIN_RETURN_IF_ERROR(copy.work());
  BASIN_RETURN_IF_ERROR(Time(copy, &seconds));
  copies_.push_back(2.0 * static_cast<double>(bytes) / Median(seconds));
  return absl::OkStatus();
}

double Ladders::CopyBandwidth() const {
  if (copies_.empty()) return 0;
  std::vector<double> ascending = copies_;
  std::sort(ascending.begin(), ascending.end());
  return Median(ascending);
}

std::string Ladders::Text() const {
  std::string text = absl::StrFormat("%-44s %-6s %12s %10s %8s\n", "ladder", "step", "median ms", "GB/s", "of copy");
  const double copy = CopyBandwidth();
  for (const Result& result : results_) {
    const double seconds = Median(result.seconds), rate = result.step.bytes / seconds;
    const std::string ratio = result.step.on_device && copy > 0 ? absl::StrFormat("%.2f", rate / copy) : "";
    absl::StrAppendFormat(&text, "%-44s %-6s %12.4f %10.1f %8s\n", result.step.ladder, result.step.name, seconds * 1e3,
                          rate / 1e9, ratio);
  }
  if (copy > 0)
    absl::StrAppendFormat(&text, "copy from device memory to device memory: %.1f GB/s read and written\n", copy / 1e9);
  for (const std::string& what : not_measured_) absl::StrAppend(&text, "not measured: ", what, "\n");
  return text;
}

nlohmann::json Ladders::Json() const {
  nlohmann::json steps = nlohmann::json::array();
  const double copy = CopyBandwidth();
  for (const Result& result : results_) {
    const LadderStep& step = result.step;
    const double median = Median(result.seconds), best = result.seconds.front();
    nlohmann::json entry = {{"ladder", step.ladder},
                            {"step", step.name},
                            {"gain", step.gain},
                            {"checked", true},
                            {"repeats", result.seconds.size()},
                            {"seconds_median", median},
                            {"seconds_best", best},
                            {"bytes", step.bytes},
                            {"gigabytes_per_second_median", step.bytes / median / 1e9},
                            {"gigabytes_per_second_best", step.bytes / best / 1e9},
                            {"items", step.items},
                            {"items_per_second_median", step.items / median}};
    if (step.on_device && copy > 0) entry["ratio_to_copy_median"] = step.bytes / median / copy;
    steps.push_back(std::move(entry));
  }
  nlohmann::json json = {{"steps", steps}, {"not_measured", not_measured_}};
  if (copy > 0) json["device_copy_gigabytes_per_second_median"] = copy / 1e9;
  return json;
}

}  // namespace basin
