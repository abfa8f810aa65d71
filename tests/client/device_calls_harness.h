// A client whose device is host memory, with copies that end when the test says so, and two lanes on real threads.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/wire/inproc_transport.h"
#include "ps/server.h"
#include "tests/client/fake_device.h"
#include "worker/client/client_session.h"
#include "worker/client/device_calls.h"

namespace basin {

inline constexpr size_t kManyPieces = 5 * (size_t{1} << 18) + 77;         // more pieces than the least staging holds
inline constexpr size_t kFewElements = size_t{1} << 18;                   // 1 MiB
inline constexpr uint32_t kOther = 1, kSmall = 2, kTiny = 3, kLater = 4;  // variables beside "w"
inline constexpr DeviceStream kStream = {.kind = 1, .handle = 1};

class DeviceCallsTest : public ::testing::Test {
 protected:
  using Values = std::vector<float>;
  struct Handle {
    CallId id = 0;
    ClientSession::Lent lent;
  };

  void SetUp() override {
    ServerOptions options;
    options.view.self = {Role::kPs, 0};
    options.view.self_address = "ps0:1";
    options.view.ps = {{0, "ps0:1"}};
    options.view.self_ps = PsOrdinal(0);
    options.view.workers = {{0, "worker0:1"}};
    options.view.chief = {Role::kWorker, 0};
    options.lanes = 2;
    options.device = PsMemory();
    options.heartbeat = absl::Milliseconds(50);
    server_ = *Server::Start(options, [this](uint32_t lane) { return network_.Listen(lane == 0 ? "ps0:1" : "ps0:0"); });
    session_ = Connect(wire::v1::ROLE_WORKER);
    wire::v1::Model model;
    for (const auto& [name, elements] : {std::pair("w", kManyPieces), std::pair("other", kManyPieces),
                                         std::pair("small", kFewElements), std::pair("tiny", size_t{64})}) {
      auto* variable = model.add_variables();
      variable->set_name(name);
      variable->set_dtype(static_cast<uint32_t>(DType::kF32));
      variable->add_shape(static_cast<int64_t>(elements));
      variable->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
    }
    auto* later = model.add_variables();
    *later = model.variables(static_cast<int>(kSmall));
    later->set_name("later");
    later->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ASSIGNED);
    model.mutable_rule()->set_kind(wire::v1::RULE_KIND_SGD);
    model.mutable_rule()->set_learning_rate(1);
    model.set_consistency(wire::v1::CONSISTENCY_ASYNC);
    Declare(*session_, model);
  }
  // Where the lanes keep their shards; nullptr: on the host.
  virtual std::shared_ptr<PsDevice> PsMemory() { return nullptr; }
  void TearDown() override {
    device_->LetGo();
    session_.reset();
  }

  std::unique_ptr<ClientSession> Connect(wire::v1::Role role) {
    ClientSessionOptions options;
    options.core.role = role;
    options.core.is_chief = role == wire::v1::ROLE_WORKER;
    options.core.ps_addresses = {"ps0:1"};
    options.core.client_id = absl::StrCat("client", role);
    options.core.unreachable_timeout = absl::Seconds(2);
    options.core.gradient_dtype = rows_sent_as_;
    options.max_bytes_in_flight = uint64_t{4} << 20;
    options.open_device_copies = [this]() -> absl::StatusOr<std::unique_ptr<DeviceCopies>> {
      ++device_->opened;
      return std::make_unique<FakeCopies>(device_);
    };
    return *ClientSession::Connect(options, network_.MakeDialer());
  }
  static void Declare(ClientSession& session, const wire::v1::Model& model) {
    ClientCore::Result result;
    const CallId call = session.Run([&](ClientCore& core, absl::Time now) { return core.Declare(model, now); });
    ASSERT_TRUE(session.Wait(call, absl::InfiniteFuture(), &result).ok()) << result.status;
  }

  enum Part { kPush, kAssign };
  Handle Start(const Values* written, Values* pulled, Part part = kPush, bool on_device = true, uint32_t variable = 0) {
    UpdateItem item{.variable = VariableId(variable)};
    DeviceUpdate update;
    update.items.resize(1);
    if (written != nullptr) {
      const absl::Span<const char> bytes(reinterpret_cast<const char*>(written->data()), written->size() * 4);
      (part == kPush ? item.push : item.assign) = bytes;
      update.items[0].out = bytes.data();
    }
    if (pulled != nullptr) {
      item.pull = {reinterpret_cast<char*>(pulled->data()), pulled->size() * 4};
      update.items[0].in = item.pull.data();
    }
    item.writes_by_pieces = on_device && written != nullptr;
    item.pulls_by_pieces = on_device && pulled != nullptr;
    if (on_device) return StartOnDevice({item}, std::move(update));
    const ClientSession::Lender lender = session_->NewLender();
    return {.id = *session_->RunUpdate(
                [&](ClientCore& core, absl::Time now) { return core.StartUpdate({item}, lender, now); }, nullptr),
            .lent = lender};
  }
  Handle StartOnDevice(absl::Span<const UpdateItem> items, DeviceUpdate update) {
    const ClientSession::Lender lender = session_->NewLender();
    DeviceCopies* const copies = *session_->device_copies();
    EXPECT_TRUE(session_->PrepareDevice(0).ok());
    update.after = *copies->MarkNow(0, kStream);
    update.lender = lender;
    return {.id = *session_->RunUpdate(
                [&](ClientCore& core, absl::Time now) { return core.StartUpdate(items, lender, now, &update.pieces); },
                &update),
            .lent = lender};
  }
  // `item`, whose push is of the host, and a pull into the device.
  Handle StartWithPullIntoDevice(UpdateItem item, Values* pulled) {
    item.pull = {reinterpret_cast<char*>(pulled->data()), pulled->size() * sizeof(float)};
    item.pulls_by_pieces = true;
    DeviceUpdate update;
    update.items.resize(1);
    update.items[0].in = item.pull.data();
    return StartOnDevice({item}, std::move(update));
  }
  absl::Status Wait(const Handle& handle) {
    EXPECT_TRUE(session_->WaitDone(handle.id, handle.lent, absl::InfiniteFuture()).ok());
    return session_->Take(handle.id).status;
  }
  static Values Counting(float first) {
    Values values(kManyPieces);
    for (size_t i = 0; i < values.size(); ++i) values[i] = first + static_cast<float>(i % 1000);
    return values;
  }

  DType rows_sent_as_ = DType::kF32;  // by those that connect from now on
  wire::InprocNetwork network_;
  std::unique_ptr<Server> server_;
  const std::shared_ptr<FakeDevice> device_ = std::make_shared<FakeDevice>();
  std::unique_ptr<ClientSession> session_;
};

}  // namespace basin
