// A ShardDevice whose memory is the host's: as on a GPU, what is begun is carried out by Run. It may be lost.
#pragma once

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
  absl::Status Reserve(absl::Span<const ShardOptions> shards) override {
    uint64_t needed = 0;
    for (const ShardOptions& shard : shards) needed += HostValues::Footprint(shard);
    if (needed > limit_ - bytes_)
      return absl::ResourceExhaustedError(absl::StrCat("needs ", needed, " bytes, ", bytes_, " of ", limit_));
    bytes_ += needed;
    return absl::OkStatus();
  }
  std::unique_ptr<ShardValues> Make(const ShardOptions& options) override {
    return std::make_unique<Values>(options, *this);
  }
  absl::Status Run() override {
    if (begun_.empty()) return lost_;
    ++runs_;
    for (Values* values : std::exchange(begun_, {})) values->CarryOut(lost_);
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

  const std::string name_ = "fake:0";
  const uint64_t limit_;
  const std::shared_ptr<BlockPool> pool_ = BlockPool::Make(0);
  uint64_t bytes_ = 0;
  int runs_ = 0;
  absl::Status lost_;
  bool refuses_reads_ = false;
  std::vector<Values*> begun_;
};

}  // namespace basin
