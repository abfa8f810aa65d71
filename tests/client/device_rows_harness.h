// Calls over rows of tables of clients whose device is host memory, as device_calls_harness.h.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/wire/control.pb.h"
#include "tests/client/device_calls_harness.h"

namespace basin {

using Keys = std::vector<uint64_t>;
inline constexpr uint32_t kEmb = 0, kWide = 1, kOnHost = 2;  // tables
inline constexpr uint32_t kEmbDim = 3, kWideDim = 64;

// With lanes whose tables are on the host, or on the client's device, but for one.
class DeviceRowsTest : public DeviceCallsTest {
 protected:
  explicit DeviceRowsTest(std::shared_ptr<PsDevice> memory) : memory_(std::move(memory)) {}
  std::shared_ptr<PsDevice> PsMemory() override { return memory_; }
  void SetUp() override {
    DeviceCallsTest::SetUp();
    wire::v1::Model model = Model();
    for (const auto& [name, dim] :
         {std::pair("emb", kEmbDim), std::pair("wide", kWideDim), std::pair("on_host", kEmbDim)}) {
      auto* table = model.add_tables();
      table->set_name(name);
      table->set_dim(dim);
      table->set_storage(static_cast<uint32_t>(DType::kF32));
      table->set_admit_after(1);
      table->set_admit_probability(1);
      table->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
      table->set_max_bytes(name == std::string("on_host") ? 0 : uint64_t{256} << 20);
    }
    Declare(*session_, model);
  }
  wire::v1::Model Model() {
    return session_->Run([](ClientCore& core, absl::Time) { return wire::v1::Model(core.spec()->model()); });
  }

  struct Part {
    uint32_t table = kEmb;
    const Keys* keys = nullptr;
    const Values* push = nullptr;
    Values* pull = nullptr;
    const Keys* bags = nullptr;
    bool mean = false;
    bool on_device = true;
  };
  // As the library does it.
  Handle StartRows(const std::vector<Part>& parts) {
    DeviceUpdate update;
    std::vector<RowsItem> items;
    DeviceCopies* const copies = *session_->device_copies();
    EXPECT_TRUE(session_->PrepareDevice(0).ok());
    for (const Part& part : parts) {
      RowsItem item{.table = part.table, .by_pieces = part.on_device};
      if (part.push != nullptr) item.push = part.push->data();
      if (part.pull != nullptr) item.pull = part.pull->data();
      if (part.bags != nullptr) item.bags = {.offsets = *part.bags, .mean = part.mean};
      if (!part.on_device) item.keys = *part.keys;
      items.push_back(item);
      if (!part.on_device) continue;
      const auto shape = session_->Run([&](ClientCore& core, absl::Time) { return core.ShapeOf(part.table); });
      update.rows.push_back({.there = *copies->PrepareRows({.keys = part.keys->data(),
                                                            .count = part.keys->size(),
                                                            .bags = item.bags,
                                                            .dim = shape->dim,
                                                            .bucket_bits = shape->bucket_bits,
                                                            .push = item.push,
                                                            .pull = item.pull,
                                                            .sent_as = rows_sent_as_}),
                             .table = shape->name,
                             .sent_as = rows_sent_as_,
                             .pulls = item.pull != nullptr});
    }
    const auto start = [&](ClientCore& core, absl::Time now) { return core.StartRows(items, now); };
    if (update.rows.empty()) return {.id = *session_->RunUpdate(start, nullptr)};
    const ClientSession::Lender lender = session_->NewLender();
    update.after = *copies->MarkNow(0, kStream);
    update.lender = lender;
    return {.id = *session_->RunUpdate(start, &update), .lent = lender};
  }
  absl::Status WaitRows(const std::vector<Part>& parts) { return Wait(StartRows(parts)); }
  Values PulledOnHost(uint32_t table, const Keys& keys, uint32_t dim) {
    Values rows(keys.size() * dim, NAN);
    EXPECT_TRUE(WaitRows({{.table = table, .keys = &keys, .pull = &rows, .on_device = false}}).ok());
    return rows;
  }
  bool IsDone(const Handle& handle) { return session_->Done(handle.id, handle.lent); }
  static Values Gradients(size_t rows, uint32_t dim) {
    Values values(rows * dim);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 17) - 8;
    return values;
  }

  const std::shared_ptr<PsDevice> memory_;
};

}  // namespace basin
