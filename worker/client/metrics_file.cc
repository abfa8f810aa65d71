#include "worker/client/metrics_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/files.h"

namespace basin {
namespace {

constexpr size_t kNameBytesMax = 256;
// Further ones are not kept: a program that makes up a name a step must not fill the memory.
constexpr size_t kMetricsMax = 1024;

std::string NumberText(double value) {
  if (std::isnan(value)) return "\"NaN\"";
  if (std::isinf(value)) return value > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  return absl::StrFormat("%.9g", value);
}

}  // namespace

MetricsFile::MetricsFile(std::string path, Tell tell, absl::Duration every)
    : path_(std::move(path)), tell_(std::move(tell)), every_(every) {}

MetricsFile::~MetricsFile() {
  Flush(absl::Now());
  if (fd_ >= 0) close(fd_);
}

std::string MetricsFile::LineFor(absl::string_view name, double value, uint64_t step, absl::Time time) {
  if (name.empty() || name.size() > kNameBytesMax) return "";
  std::string quoted;
  for (const char c : name) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) return "";
    if (c == '"' || c == '\\') quoted.push_back('\\');
    quoted.push_back(c);
  }
  return absl::StrFormat("{\"name\": \"%s\", \"value\": %s, \"step\": %d, \"time\": %.3f}\n", quoted, NumberText(value),
                         step, absl::ToDoubleSeconds(time - absl::UnixEpoch()));
}

void MetricsFile::Add(absl::string_view name, double value, uint64_t step, absl::Time now) {
  MutexLock lock(mutex_);
  Metric* metric = nullptr;
  for (Metric& one : metrics_) {
    if (one.name == name) {
      metric = &one;
      break;
    }
  }
  if (metric == nullptr) {
    if (metrics_.size() >= kMetricsMax) return;
    metric = &metrics_.emplace_back();
    metric->name = std::string(name);
  }
  metric->sum += value;
  metric->newest = value;
  metric->step = step;
  ++metric->count;
  // A clock that was set back must not silence the metric.
  if (now < metric->due && metric->due - now <= every_) return;
  Write(LineFor(metric->name, metric->sum / static_cast<double>(metric->count), step, now));
  metric->sum = 0;
  metric->count = 0;
  metric->due = now + every_;
}

void MetricsFile::Flush(absl::Time now) {
  MutexLock lock(mutex_);
  for (Metric& metric : metrics_) {
    if (metric.count == 0) continue;
    Write(LineFor(metric.name, metric.newest, metric.step, now));
    metric.sum = 0;
    metric.count = 0;
  }
}

void MetricsFile::Write(const std::string& line) {
  if (line.empty()) return;
  if (fd_ < 0) fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  ssize_t wrote = -1;
  if (fd_ >= 0) {
    const std::string text = torn_ ? absl::StrCat("\n", line) : line;
    do {
      wrote = write(fd_, text.data(), text.size());
    } while (wrote < 0 && errno == EINTR);
    if (wrote == static_cast<ssize_t>(text.size())) {
      torn_ = false;
      return;
    }
    if (wrote > 0) torn_ = true;
  }
  if (std::exchange(told_, true) || !tell_) return;
  tell_(absl::StrCat("metrics are not kept, training goes on: ",
                     ErrnoStatus(wrote < 0 ? errno : ENOSPC, absl::StrCat("write ", path_)).message()));
}

}  // namespace basin
