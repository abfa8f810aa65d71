// Numbers that a program shows while it runs, as Prometheus reads them. A thin face of prometheus-cpp, whose headers
// stay out of ours.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace basin::telemetry {

using Labels = std::map<std::string, std::string>;

// Handles to metrics of a Registry, which must outlive their use. Cheap to copy, from any thread, without a lock.

// A total that only grows; its name ends in _total.
class Counter final {
 public:
  void Add(double n = 1);
  // For a total that is counted elsewhere: grows to `total`; a smaller one changes nothing. One thread at a time.
  void AdvanceTo(double total);

 private:
  friend class Registry;
  explicit Counter(prometheus::Counter* counter) : counter_(counter) {}
  prometheus::Counter* counter_;
};

// A value that goes up and down.
class Gauge final {
 public:
  void Set(double value);
  void Add(double n);

 private:
  friend class Registry;
  explicit Gauge(prometheus::Gauge* gauge) : gauge_(gauge) {}
  prometheus::Gauge* gauge_;
};

// How often which sizes were seen.
class Histogram final {
 public:
  void Observe(double value);

 private:
  friend class Registry;
  explicit Histogram(prometheus::Histogram* histogram) : histogram_(histogram) {}
  prometheus::Histogram* histogram_;
};

// Owns metrics. Thread-safe.
class Registry final {
 public:
  Registry();
  ~Registry();

  // The same name and labels give the same metric again. REQUIRES: names (and labels' names) are valid for Prometheus,
  // and a name has one kind and one help text; label values may be anything.
  Counter AddCounter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge AddGauge(const std::string& name, const std::string& help, const Labels& labels = {});
  // `bounds`: the buckets' upper ends, ascending; one for the rest is added.
  Histogram AddHistogram(const std::string& name, const std::string& help, const std::vector<double>& bounds,
                         const Labels& labels = {});

  // `update` is called before each rendering, for numbers that are kept elsewhere; never twice at once.
  void BeforeRendering(std::function<void()> update);
  // The text format of Prometheus, version 0.0.4.
  std::string Render() const;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace basin::telemetry
