#include "common/telemetry/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <exception>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/status_macros.h"

namespace basin::telemetry {
namespace {

// prometheus-cpp throws for an invalid name or a second kind under one name; names are constants of ours.
template <class Make>
auto* MadeOrBug(const std::string& name, Make make) {
  try {
    return &make();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "metric \"%s\": %s\n", name.c_str(), error.what());
    std::abort();
  }
}

}  // namespace

void Counter::Add(double n) { counter_->Increment(n); }
void Counter::AdvanceTo(double total) {
  if (const double now = counter_->Value(); total > now) counter_->Increment(total - now);
}
void Gauge::Set(double value) { gauge_->Set(value); }
void Gauge::Add(double n) { gauge_->Increment(n); }
void Histogram::Observe(double value) { histogram_->Observe(value); }

struct Registry::State {
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};  // internally synchronised
  Mutex mutex;
  std::vector<std::function<void()>> updates ABSL_GUARDED_BY(mutex);
};

Registry::Registry() : state_(std::make_unique<State>()) {}
Registry::~Registry() = default;

Counter Registry::AddCounter(const std::string& name, const std::string& help, const Labels& labels) {
  return Counter(MadeOrBug(
      name, [&]() -> auto& {
        return prometheus::BuildCounter().Name(name).Help(help).Register(state_->registry).Add(labels);
      }));
}

Gauge Registry::AddGauge(const std::string& name, const std::string& help, const Labels& labels) {
  return Gauge(MadeOrBug(
      name, [&]() -> auto& {
        return prometheus::BuildGauge().Name(name).Help(help).Register(state_->registry).Add(labels);
      }));
}

Histogram Registry::AddHistogram(const std::string& name, const std::string& help, const std::vector<double>& bounds,
                                 const Labels& labels) {
  return Histogram(MadeOrBug(
      name, [&]() -> auto& {
        return prometheus::BuildHistogram().Name(name).Help(help).Register(state_->registry).Add(labels, bounds);
      }));
}

void Registry::BeforeRendering(std::function<void()> update) {
  MutexLock lock(state_->mutex);
  state_->updates.push_back(std::move(update));
}

std::string Registry::Render() const {
  {
    MutexLock lock(state_->mutex);
    for (const std::function<void()>& update : state_->updates) update();
  }
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

}  // namespace basin::telemetry
