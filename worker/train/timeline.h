// What a task did when, for chrome://tracing and ui.perfetto.dev: the trace event format, spans ("ph": "X") with a row
// for the task's own thread and one for each buffer or connection that works beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace basin {

// One thread. Holds the events in memory: past kMostEvents they are counted and left out.
class Timeline final {
 public:
  static constexpr size_t kMostEvents = 1000000;

  // `process`: the trace's process number, which viewers sort by; a task's rank or index.
  explicit Timeline(uint32_t process) : process_(process) {}

  // Times are told from now on; events that began before are left out.
  void StartClock() { zero_ = absl::Now(); }
  // `name` must outlive the timeline. Row 0 is the task's own thread.
  void Add(absl::string_view name, uint32_t row, absl::Time from, absl::Time to, uint64_t step = 0, uint64_t bytes = 0);
  void NameRow(uint32_t row, std::string name) { rows_.emplace_back(row, std::move(name)); }
  uint64_t left_out() const { return left_out_; }

  // From its making to its end, on row 0. `timeline` may be null: nothing happens.
  class Span final {
   public:
    Span(Timeline* timeline, absl::string_view name)
        : timeline_(timeline), name_(name), from_(timeline == nullptr ? absl::Time() : absl::Now()) {}
    ~Span() {
      if (timeline_ != nullptr) timeline_->Add(name_, 0, from_, absl::Now());
    }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    Timeline* const timeline_;
    const absl::string_view name_;
    const absl::Time from_;
  };

  // The events as JSON objects, one a line with a comma between; the process is called `title`. Empty where nothing
  // happened.
  std::string EventLines(absl::string_view title) const;
  // A whole file of the lines of one timeline or of several.
  static std::string File(const std::vector<std::string>& lines);

 private:
  struct Event {
    absl::string_view name;
    uint32_t row;
    int64_t from_us, duration_us;
    uint64_t step, bytes;
  };

  const uint32_t process_;
  absl::Time zero_ = absl::Now();
  std::vector<Event> events_;
  std::vector<std::pair<uint32_t, std::string>> rows_;
  uint64_t left_out_ = 0;
};

}  // namespace basin
