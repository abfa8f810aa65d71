// Lanes whose device is host memory, which they lend to clients of device_calls_harness.h.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "nlohmann/json.hpp"
#include "tests/client/device_calls_harness.h"
#include "tests/ps/fake_shard_device.h"

namespace basin {

class FakePsDevice final : public PsDevice {
 public:
  explicit FakePsDevice(uint64_t most_lent) : lent_(FakeShardDevice::LendOf(most_lent)) {}
  const std::string& name() const override { return name_; }
  const std::string& detail() const override { return name_; }
  uint64_t memory_limit_bytes() const override { return uint64_t{1} << 40; }
  uint64_t lent_bytes() const override { return lent_->bytes(); }
  absl::StatusOr<std::shared_ptr<ShardDevice>> MakeLane() override {
    return std::make_shared<FakeShardDevice>(memory_limit_bytes(), lent_);
  }

 private:
  const std::string name_ = "fake:0";
  const std::shared_ptr<LentBlocks> lent_;
};

// Of the ps, as `basin top` sees it.
inline uint64_t PsStat(ClientSession& session, const std::string& name) {
  ClientCore::Result result;
  const CallId call = session.Run([](ClientCore& core, absl::Time now) { return core.Stats(now); });
  EXPECT_EQ(session.Wait(call, absl::InfiniteFuture(), &result), absl::OkStatus());
  return nlohmann::json::parse(result.stats.at(0)).at("ps").at(0).at(name).get<uint64_t>();
}

}  // namespace basin
