// A ShardDevice whose memory is the host's: as on a GPU, what is begun is carried out by Run. It may be lost.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ps/host_values.h"
#include "ps/shard_device.h"

namespace basin {

class FakeShardDevice final : public ShardDevice {
 public:
  explicit FakeShardDevice(uint64_t limit = uint64_t{1} << 40) : limit_(limit) {}

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
    if (begun_.empty() && on_tables_.empty()) return lost_;
    ++runs_;
    for (Values* values : std::exchange(begun_, {})) values->CarryOut(lost_);
    for (const std::function<void()>& change : std::exchange(on_tables_, {})) {
      if (lost_.ok()) change();
    }
    return lost_;
  }
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

  const std::string name_ = "fake:0";
  const uint64_t limit_;
  const std::shared_ptr<BlockPool> pool_ = BlockPool::Make(0);
  uint64_t bytes_ = 0;
  int runs_ = 0;
  absl::Status lost_;
  bool refuses_reads_ = false;
  std::vector<Values*> begun_;
  std::map<std::string, StoredTableOptions> tables_;
  std::vector<std::function<void()>> on_tables_;
  std::deque<std::string> rows_;  // pulled for the message
};

}  // namespace basin
