// A ShardDevice whose memory is the host's: as on a GPU, what is begun is carried out by Run. It may be lost. What it
// lends is opened by its address, in this process.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "ps/device/lent_blocks.h"
#include "ps/host_values.h"
#include "ps/shard_device.h"

namespace basin {

class FakeShardDevice final : public ShardDevice {
 public:
  // `most_lent`: of the memory that clients use.
  explicit FakeShardDevice(uint64_t limit = uint64_t{1} << 40, uint64_t most_lent = uint64_t{1} << 30)
      : FakeShardDevice(limit, LendOf(most_lent)) {}
  // Lanes of one device lend from one stock.
  FakeShardDevice(uint64_t limit, std::shared_ptr<LentBlocks> lent) : limit_(limit), lent_(std::move(lent)) {}
  static std::shared_ptr<LentBlocks> LendOf(uint64_t most_bytes) {
    struct Memory {
      Mutex mutex;
      std::map<void*, std::unique_ptr<char[]>> all ABSL_GUARDED_BY(mutex);
    };
    const auto all = std::make_shared<Memory>();
    LentBlocksOptions options;
    options.most_bytes = most_bytes;
    options.budget = std::make_shared<DeviceBudget>(uint64_t{1} << 40);
    options.allocate = [all](uint64_t bytes) {
      auto made = std::make_unique_for_overwrite<char[]>(bytes);
      char* const memory = made.get();
      MutexLock lock(all->mutex);
      all->all[memory] = std::move(made);
      return LentBlocksOptions::Memory{memory, std::string(reinterpret_cast<const char*>(&memory), sizeof(memory))};
    };
    options.free = [all](void* memory) {
      MutexLock lock(all->mutex);
      all->all.erase(memory);
    };
    return std::make_shared<LentBlocks>(std::move(options));
  }

  const std::string& name() const override { return name_; }
  // As a GPU's: tables without a bound, or with admission, it has not.
  absl::Status CanHold(const StoredTableOptions& table) const override {
    if (table.max_bytes == 0) return absl::UnimplementedError("it has no max_bytes");
    if (table.admit_after > 1) return absl::UnimplementedError("it admits keys by count");
    return absl::OkStatus();
  }
  absl::Status Reserve(absl::Span<const ShardOptions> shards, absl::Span<const StoredTableOptions> tables) override {
    uint64_t needed = 0;
    for (const StoredTableOptions& table : tables) needed += table.max_bytes;
    for (const ShardOptions& shard : shards) needed += HostValues::Footprint(shard);
    if (needed > limit_ - bytes_)
      return absl::ResourceExhaustedError(absl::StrCat("needs ", needed, " bytes, ", bytes_, " of ", limit_));
    bytes_ += needed;
    for (const StoredTableOptions& table : tables) tables_.insert_or_assign(table.name, table);
    return absl::OkStatus();
  }
  std::unique_ptr<DeviceTable> MakeTable(const std::string& name) override {
    return std::make_unique<Table>(tables_.at(name), *this);
  }
  void StartMessage() override { rows_.clear(); }
  std::unique_ptr<ShardValues> Make(const ShardOptions& options) override {
    return std::make_unique<Values>(options, *this);
  }
  absl::Status Run() override {
    if (begun_.empty() && on_tables_.empty() && reads_.empty()) return lost_;
    ++runs_;
    for (Values* values : std::exchange(begun_, {})) values->CarryOut(lost_);
    for (const std::function<void()>& read : std::exchange(reads_, {})) {
      if (lost_.ok()) read();
    }
    for (const std::function<void()>& change : std::exchange(on_tables_, {})) {
      if (lost_.ok()) change();
    }
    return lost_;
  }
  const std::string& id() const override { return id_; }
  absl::StatusOr<std::shared_ptr<LentBlock>> Lend(uint64_t bytes, UniqueFd process) override {
    return lent_->Lend(bytes, std::move(process));
  }
  uint64_t lent_bytes() const override { return lent_->bytes(); }
  uint64_t bytes() const override { return bytes_; }

  // Batches that had something to do.
  int runs() const { return runs_; }
  // What is begun from now on is never done.
  void Lose() { lost_ = absl::InternalError("fake: lost"); }
  // As where pinned memory for replies is used up.
  void RefuseReads() { refuses_reads_ = true; }

 private:
  class Values final : public ShardValues {
   public:
    Values(const ShardOptions& options, FakeShardDevice& device)
        : options_(options), device_(device), host_(options, device.pool_) {}
    absl::Status Apply(const Push& push) override {
      return Begin([this, push] { return host_.Apply(push); });
    }
    absl::Status Assign(absl::Span<const char> parameters) override {
      return Begin([this, parameters] { return host_.Assign(parameters); });
    }
    absl::Status AssignOnDevice(const char* parameters) override { return Assign({parameters, options_.bytes()}); }
    absl::Status ReadOnDevice(char* to) override {
      device_.reads_.push_back([this, to, held = change_ ? wire::Frame() : *host_.Read()] {
        std::memcpy(to, (held.empty() ? *host_.Read() : held).data(), options_.bytes());
      });
      return absl::OkStatus();
    }
    absl::Status Settle() override {
      if (change_) static_cast<void>(device_.Run());
      return std::exchange(outcome_, absl::OkStatus());
    }
    absl::StatusOr<wire::Frame> Read() override {
      if (device_.refuses_reads_) return absl::ResourceExhaustedError("fake: no memory for a reply");
      if (!change_) return host_.Read();
      reply_ = device_.pool_->Allocate(options_.bytes());
      return reply_.ToFrame(options_.bytes());
    }
    const float* on_host() override { return nullptr; }

    void CarryOut(const absl::Status& lost) {
      outcome_ = lost.ok() ? change_() : lost;
      change_ = nullptr;
      if (reply_ && outcome_.ok()) std::memcpy(reply_.mutable_floats(), host_.Read()->data(), options_.bytes());
      reply_ = BlockRef();
    }

   private:
    absl::Status Begin(std::function<absl::Status()> change) {
      change_ = std::move(change);
      device_.begun_.push_back(this);
      return absl::OkStatus();
    }

    const ShardOptions& options_;
    FakeShardDevice& device_;
    HostValues host_;
    std::function<absl::Status()> change_;
    BlockRef reply_;
    absl::Status outcome_;
  };

  // A HostTable to which everything comes late.
  class Table final : public DeviceTable {
   public:
    Table(const StoredTableOptions& options, FakeShardDevice& device)
        : dim_(options.dim), device_(device), host_(options, device.pool_), check_(options, device.pool_) {}
    absl::Status Push(const char* keys, size_t n, const char* gradients, float learning_rate, absl::Time now,
                      DType type) override {
      if (absl::Status status = check_.Push(keys, n, gradients, 0, now, type); !status.ok()) return status;
      Begin([this, k = std::string(keys, 8 * n), g = std::string(gradients, n * dim_ * SizeOf(type)), n, learning_rate,
             now, type] { EXPECT_TRUE(host_.Push(k.data(), n, g.data(), learning_rate, now, type).ok()); });
      return absl::OkStatus();
    }
    absl::Status PushPlaced(const char* keys, size_t n, const char* gradients, float learning_rate, absl::Time now,
                            DType type, absl::Status* refused) override {
      std::vector<uint64_t> each(n);
      std::memcpy(each.data(), keys, 8 * n);
      if (std::set<uint64_t>(each.begin(), each.end()).size() < n)
        return absl::InvalidArgumentError("fake: a key stands twice");
      Begin([this, k = std::string(keys, 8 * n), gradients, n, learning_rate, now, type, refused] {
        *refused = host_.Push(k.data(), n, gradients, learning_rate, now, type);
      });
      return absl::OkStatus();
    }
    absl::Status PullPlaced(const char* keys, size_t n, char* rows) override {
      Begin([this, k = std::string(keys, 8 * n), n, rows] { host_.Pull(k.data(), n, rows); });
      return absl::OkStatus();
    }
    absl::StatusOr<const char*> Pull(const char* keys, size_t n) override {
      char* const rows = device_.rows_.emplace_back(n * dim_ * sizeof(float), '?').data();
      Begin([this, k = std::string(keys, 8 * n), n, rows] { host_.Pull(k.data(), n, rows); });
      return rows;
    }
    absl::Status EvictUnused(absl::Time now) override {
      Begin([this, now] { host_.EvictUnused(now); });
      return absl::OkStatus();
    }
    absl::StatusOr<uint64_t> Evicted(uint64_t since, size_t most, std::vector<uint64_t>* keys) override {
      return host_.Evicted(since, most, keys);
    }
    TableCounters counters() const override { return host_.counters(); }

   private:
    void Begin(std::function<void()> change) { device_.on_tables_.push_back(std::move(change)); }

    const size_t dim_;
    FakeShardDevice& device_;
    HostTable host_;
    HostTable check_;  // only says what is refused
  };

  const std::string name_ = "fake:0", id_ = "the fake device";
  const uint64_t limit_;
  const std::shared_ptr<LentBlocks> lent_;
  const std::shared_ptr<BlockPool> pool_ = BlockPool::Make(0);
  uint64_t bytes_ = 0;
  int runs_ = 0;
  absl::Status lost_;
  bool refuses_reads_ = false;
  std::vector<Values*> begun_;
  std::map<std::string, StoredTableOptions> tables_;
  std::vector<std::function<void()>> reads_;  // to what is lent
  std::vector<std::function<void()>> on_tables_;
  std::deque<std::string> rows_;  // pulled for the message
};

}  // namespace basin
