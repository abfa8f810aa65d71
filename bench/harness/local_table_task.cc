// A lane's table in this process: pushes and pulls of batches of keys, without network, client or server.
#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "bench/harness/exact_sums.h"
#include "bench/harness/row_work.h"
#include "bench/harness/task.h"
#include "common/base/status_macros.h"
#include "ps/block.h"
#include "ps/table/host_table.h"

namespace basin::bench {
namespace {

constexpr float kRateOfTheRule = std::numeric_limits<float>::quiet_NaN();

const char* Bytes(const void* memory) { return static_cast<const char*>(memory); }

// spec: "op": "push" or "pull"; what row_work.cc reads. A round answers with rows ("updates") and payload bytes.
class LocalTableTask final : public Task {
 public:
  absl::StatusOr<Json> Start(const Json& spec) override {
    pulls_ = spec.value("op", "push") == "pull";
    BASIN_ASSIGN_OR_RETURN(work_, RowWorkFrom(spec));
    gradients_ = work_->Gradients();
    pulled_.resize(gradients_.size());
    pushes_.assign(RowWork::kBatches, 0);
    most_pushes_ = work_->MostPushes(/*fillers=*/1);
    StoredTableOptions options;
    options.name = "rows";
    options.dim = work_->dim();
    options.init.kind = InitKind::kZeros;
    options.rule = ExactRule(RuleKind::kSgd);
    table_ = std::make_unique<HostTable>(options, BlockPool::Make(0));
    for (size_t i = 0; i < work_->fills(); ++i) BASIN_RETURN_IF_ERROR(Push(work_->fill(i)));
    for (size_t b = 0; b < RowWork::kBatches; ++b) {
      BASIN_RETURN_IF_ERROR(Push(work_->keys(b)));
      ++pushes_[b];
    }
    return Json::object();
  }

  absl::StatusOr<Json> Do(const Json& command) override {
    if (command.value("do", "") == "verify") return Verify();
    const double seconds = command.value("seconds", 0.5);
    uint64_t calls = 0;
    const Clock::time_point start = Clock::now();
    do {
      const size_t batch = next_ % RowWork::kBatches;
      if (!pulls_ && pushes_[batch] >= most_pushes_) break;  // past what float32 adds exactly
      const absl::Span<const uint64_t> keys = work_->keys(batch);
      if (pulls_) {
        table_->Pull(Bytes(keys.data()), keys.size(), reinterpret_cast<char*>(pulled_.data()));
      } else {
        BASIN_RETURN_IF_ERROR(Push(keys));
        ++pushes_[batch];
      }
      ++next_;
      ++calls;
    } while (SecondsSince(start) < seconds);
    if (calls == 0) return absl::ResourceExhaustedError("no push is left that float32 adds exactly; use less time");
    const uint64_t rows = calls * work_->batch();
    return Json{{"updates", rows}, {"bytes", rows * work_->dim() * sizeof(float)}, {"seconds", SecondsSince(start)}};
  }

 private:
  absl::Status Push(absl::Span<const uint64_t> keys) {
    return table_->Push(Bytes(keys.data()), keys.size(), Bytes(gradients_.data()), kRateOfTheRule, absl::Now());
  }

  // Every row, what the last pull brought, and the table's counts.
  absl::StatusOr<Json> Verify() {
    const std::vector<float> expected = work_->Expected(pushes_, /*fillers=*/1);
    if (pulls_ && next_ > 0)
      BASIN_RETURN_IF_ERROR(work_->Check(expected, work_->keys((next_ - 1) % RowWork::kBatches), pulled_));
    const absl::Span<const uint64_t> keys = work_->all_keys();
    std::vector<float> values(keys.size() * work_->dim(), std::numeric_limits<float>::quiet_NaN());
    table_->Pull(Bytes(keys.data()), keys.size(), reinterpret_cast<char*>(values.data()));
    BASIN_RETURN_IF_ERROR(work_->Check(expected, keys, values));
    const TableCounters counters = table_->counters();
    if (counters.rows == keys.size() && counters.dropped_gradients == 0) return Json{{"rows", counters.rows}};
    return absl::DataLossError(absl::StrCat("the table has ", counters.rows, " rows and dropped ",
                                            counters.dropped_gradients, " gradients; pushes went to ", keys.size()));
  }

  bool pulls_ = false;
  std::optional<RowWork> work_;
  std::unique_ptr<HostTable> table_;
  std::vector<float> gradients_, pulled_;
  std::vector<uint64_t> pushes_;
  uint64_t next_ = 0, most_pushes_ = 0;
};

}  // namespace

std::unique_ptr<Task> MakeLocalTableTask() { return std::make_unique<LocalTableTask>(); }

}  // namespace basin::bench
