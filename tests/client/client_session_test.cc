// The client's doer with real threads, against lanes on real threads, over the in-process transport.
#include "worker/client/client_session.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/dtype.h"
#include "common/wire/inproc_transport.h"
#include "ps/server.h"

namespace basin {
namespace {

constexpr size_t kElements = 16 * 1024;  // several shards, over both lanes

class ClientSessionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.view.self = {Role::kPs, 0};
    options.view.self_address = "ps0:1";
    options.view.ps = {{0, "ps0:1"}};
    options.view.self_ps = PsOrdinal(0);
    options.view.workers = {{0, "worker0:1"}};
    options.view.chief = {Role::kWorker, 0};
    options.lanes = 2;
    options.heartbeat = absl::Milliseconds(50);
    server_ = *Server::Start(options, [this](uint32_t lane) { return network_.Listen(lane == 0 ? "ps0:1" : "ps0:0"); });
  }

  std::unique_ptr<ClientSession> Connect() {
    ClientSessionOptions options;
    options.core.role = wire::v1::ROLE_WORKER;
    options.core.is_chief = true;
    options.core.ps_addresses = {"ps0:1"};
    options.core.client_id = "client";
    return *ClientSession::Connect(options, network_.MakeDialer());
  }

  static void Declare(ClientSession& session) {
    wire::v1::Model model;
    auto* variable = model.add_variables();
    variable->set_name("w");
    variable->set_dtype(static_cast<uint32_t>(DType::kF32));
    variable->add_shape(kElements);
    variable->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
    model.mutable_rule()->set_kind(wire::v1::RULE_KIND_SGD);
    model.mutable_rule()->set_learning_rate(1);
    model.set_consistency(wire::v1::CONSISTENCY_ASYNC);
    ClientCore::Result result;
    const CallId call = session.Run([&](ClientCore& core, absl::Time now) { return core.Declare(model, now); });
    ASSERT_TRUE(session.Wait(call, absl::InfiniteFuture(), &result).ok()) << result.status;
  }

  static absl::Status Update(ClientSession& session, const std::vector<float>* push, std::vector<float>* pull) {
    UpdateItem item{.variable = VariableId(0)};
    if (push != nullptr) item.push = {reinterpret_cast<const char*>(push->data()), push->size() * sizeof(float)};
    if (pull != nullptr) item.pull = {reinterpret_cast<char*>(pull->data()), pull->size() * sizeof(float)};
    const absl::StatusOr<CallId> call =
        session.Run([&](ClientCore& core, absl::Time now) { return core.StartUpdate({item}, nullptr, now); });
    if (!call.ok()) return call.status();
    ClientCore::Result result;
    return session.Wait(*call, absl::InfiniteFuture(), &result);
  }

  wire::InprocNetwork network_;
  std::unique_ptr<Server> server_;
};

TEST_F(ClientSessionTest, ThreadsShareOneClientAndNoPushIsLost) {
  const std::unique_ptr<ClientSession> session = Connect();
  Declare(*session);
  constexpr int kThreads = 4, kPushes = 50;
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&] {
      const std::vector<float> ones(kElements, 1);
      std::vector<float> pulled(kElements);
      for (int i = 0; i < kPushes; ++i) {
        if (!Update(*session, &ones, i % 3 == 0 ? &pulled : nullptr).ok()) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  std::vector<float> pulled(kElements);
  ASSERT_TRUE(Update(*session, nullptr, &pulled).ok());
  EXPECT_EQ(pulled, std::vector<float>(kElements, -kThreads * kPushes));
}

TEST_F(ClientSessionTest, AWaitThatEndsEarlyIsInDoubtAndTheCallGoesOn) {
  const std::unique_ptr<ClientSession> session = Connect();
  Declare(*session);
  // Nobody else will enter: worker 0 is the only one, so the barrier is released at once; the deadline has passed
  // before.
  const CallId call = session->Run([](ClientCore& core, absl::Time now) { return core.Barrier("b", now); });
  ClientCore::Result result;
  const absl::Status early = session->Wait(call, absl::InfinitePast(), &result);
  if (early.ok()) return;
  EXPECT_EQ(early.code(), absl::StatusCode::kDeadlineExceeded) << early;
  EXPECT_TRUE(session->Wait(call, absl::InfiniteFuture(), &result).ok());
}

TEST_F(ClientSessionTest, TheRunsEndIsHeardByAWaitingObserver) {
  const std::unique_ptr<ClientSession> session = Connect();
  Declare(*session);
  ClientSessionOptions options;
  options.core.role = wire::v1::ROLE_OBSERVER;
  options.core.ps_addresses = {"ps0:1"};
  options.core.client_id = "observer";
  const std::unique_ptr<ClientSession> observer = *ClientSession::Connect(options, network_.MakeDialer());
  EXPECT_EQ(observer->WaitFinished(absl::Now() + absl::Milliseconds(1)).code(), absl::StatusCode::kDeadlineExceeded);
  std::thread waiter([&] { EXPECT_TRUE(observer->WaitFinished(absl::InfiniteFuture()).ok()); });
  const CallId call = session->Run([](ClientCore& core, absl::Time now) { return core.Finish("", now); });
  ClientCore::Result result;
  EXPECT_TRUE(session->Wait(call, absl::InfiniteFuture(), &result).ok());
  waiter.join();
}

class CountingDialer final : public wire::Dialer {
 public:
  CountingDialer(std::unique_ptr<wire::Dialer> dialer, std::atomic<int>& waits)
      : dialer_(std::move(dialer)), waits_(waits) {}
  std::unique_ptr<wire::Channel> Dial(const std::string& address) override { return dialer_->Dial(address); }
  void Wait(absl::Time deadline) override {
    ++waits_;
    dialer_->Wait(deadline);
  }
  void Wake() override { dialer_->Wake(); }

 private:
  const std::unique_ptr<wire::Dialer> dialer_;
  std::atomic<int>& waits_;
};

TEST_F(ClientSessionTest, ALongWaitThatTellsNobodySleeps) {
  std::atomic<int> waits = 0;
  ClientSessionOptions options;
  options.core.role = wire::v1::ROLE_WORKER;
  options.core.is_chief = true;
  options.core.ps_addresses = {"ps0:1"};
  options.core.client_id = "client";
  options.tell_every = absl::Milliseconds(1);
  const std::unique_ptr<ClientSession> session =
      *ClientSession::Connect(options, std::make_unique<CountingDialer>(network_.MakeDialer(), waits));
  waits = 0;
  EXPECT_EQ(session->WaitFinished(absl::Now() + absl::Milliseconds(500)).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(waits, 1000);  // heartbeats and their answers alone: tens
}

TEST_F(ClientSessionTest, CallsEndWhenTheSessionIsClosedAndMayBeAskedAboutAfterwards) {
  const std::unique_ptr<ClientSession> session = Connect();
  const CallId call = session->Run([](ClientCore& core, absl::Time now) { return core.NextInput("never", now); });
  ASSERT_EQ(session->WaitDone(call, {}, absl::InfiniteFuture()), absl::OkStatus());  // refused, not taken
  network_.Cut("ps0:1");
  const CallId lost = session->Run([](ClientCore& core, absl::Time now) { return core.Stats(now); });
  session->Close();
  ASSERT_TRUE(session->Done(lost, {}));
  ClientCore::Result result;
  (void)session->Wait(lost, absl::Now(), &result);
  EXPECT_EQ(session->Wait(call, absl::Now(), &result).code(), absl::StatusCode::kInvalidArgument) << result.status;
}

}  // namespace
}  // namespace basin
