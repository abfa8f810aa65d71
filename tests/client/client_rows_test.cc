// Rows of tables, from the client's core to the lanes' and back: the real deciders of both sides, joined without
// sockets.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "ps/lane_core.h"
#include "worker/client/client_core.h"

namespace basin {
namespace {

constexpr uint32_t kDim = 3;

// ps with two lanes each, and clients. Messages are delivered in order, at once, unless they are held or lost.
class Cluster {
 public:
  explicit Cluster(uint32_t ps_count) : ps_count_(ps_count) {
    for (uint32_t ps = 0; ps < ps_count; ++ps) {
      for (uint32_t lane = 0; lane < 2; ++lane) {
        LaneCoreOptions options;
        options.ordinal = PsOrdinal(ps);
        options.lane = LaneIndex(lane);
        options.lanes = 2;
        options.ps_count = ps_count;
        options.ps_incarnation = 7 + ps;
        options.run_id = "run";
        options.lane_addresses = {"", Address(ps, 1)};
        lanes_[Address(ps, lane)] = std::make_unique<LaneCore>(options);
      }
    }
  }
  static std::string Address(uint32_t ps, uint32_t lane) { return absl::StrCat("ps", ps, ":", lane); }

  ClientCore& NewClient(wire::v1::Role role, uint32_t index, DType gradient_dtype = DType::kF32) {
    ClientCoreOptions options;
    options.gradient_dtype = gradient_dtype;
    options.role = role;
    options.index = index;
    options.is_chief = role == wire::v1::ROLE_WORKER && index == 0;
    for (uint32_t ps = 0; ps < ps_count_; ++ps) options.ps_addresses.push_back(Address(ps, 0));
    options.client_id = absl::StrCat("client", clients_.size());
    clients_.push_back(std::make_unique<ClientCore>(options));
    return *clients_.back();
  }

  // Until nothing moves.
  void Run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t c = 0; c < clients_.size(); ++c) {
        clients_[c]->Flush(now);
        for (ClientAction& action : clients_[c]->TakeActions()) {
          moved = true;
          CarryOut(c, action);
        }
      }
    }
  }
  ClientCore::Result Finish(ClientCore& client, const absl::StatusOr<CallId>& call) {
    EXPECT_TRUE(call.ok()) << call.status();
    if (!call.ok()) return {.status = call.status()};
    Run();
    EXPECT_TRUE(client.done(*call)) << client.WaitingFor(*call, now);
    return client.done(*call) ? client.Take(*call) : ClientCore::Result{.status = absl::InternalError("not done")};
  }
  // Cuts all the client's channels and lets it come back.
  void Cut(ClientCore& client) {
    const size_t c = IndexOf(client);
    std::vector<uint32_t> channels;
    for (const auto& [key, link] : links_) {
      if (key.first == c) channels.push_back(key.second);
    }
    for (const uint32_t channel : channels) {
      links_.erase({c, channel});
      client.OnCut(channel, absl::UnavailableError("cut"), now);
    }
    now += absl::Seconds(2);
    client.OnTime(now);
    Run();
  }
  void Pass(absl::Duration duration) {
    const absl::Time until = now + duration;
    while (now < until) {
      now += absl::Seconds(1);
      for (auto& client : clients_) client->OnTime(now);
      Run();
      for (auto& [address, lane] : lanes_) lane->OnTime(now);
    }
  }
  uint64_t Sum(Counter LaneCounters::*counter) const {
    uint64_t sum = 0;
    for (const auto& [address, lane] : lanes_) sum += (lane->counters().*counter).value();
    return sum;
  }

  absl::Time now = absl::FromUnixSeconds(1000);
  bool lose_answers = false;                                   // of updates
  std::function<wire::Message(wire::Message)> change_request;  // of updates; may be empty

 private:
  struct Link {
    LaneCore* lane = nullptr;
    wire::PeerId peer = 0;
  };
  size_t IndexOf(const ClientCore& client) const {
    size_t c = 0;
    while (clients_[c].get() != &client) ++c;
    return c;
  }
  void CarryOut(size_t c, ClientAction& action) {
    const auto key = std::pair(c, action.channel);
    if (action.kind == ClientAction::Kind::kDial) {
      links_[key] = {lanes_.at(action.address).get(), ++next_peer_};
    } else if (action.kind == ClientAction::Kind::kClose) {
      links_.erase(key);
    } else if (const auto link = links_.find(key); link != links_.end()) {
      const bool update = wire::Parse(action.message)->header.kind == wire::Kind::kUpdate;
      if (update && change_request) action.message = change_request(std::move(action.message));
      for (Reply& reply : link->second.lane->OnMessage(link->second.peer, std::move(action.message), now)) {
        if (reply.peer == link->second.peer && !(update && lose_answers))
          clients_[c]->OnMessage(action.channel, std::move(reply.message), now);
      }
    }
  }

  const uint32_t ps_count_;
  std::map<std::string, std::unique_ptr<LaneCore>> lanes_;
  std::vector<std::unique_ptr<ClientCore>> clients_;
  std::map<std::pair<size_t, uint32_t>, Link> links_;
  wire::PeerId next_peer_ = 0;
};

wire::v1::Model WithTables() {
  wire::v1::Model model;
  model.mutable_rule()->set_kind(wire::v1::RULE_KIND_SGD);
  model.mutable_rule()->set_learning_rate(1);
  for (const char* name : {"user", "item"}) {
    auto* table = model.add_tables();
    table->set_name(name);
    table->set_dim(kDim);
    table->set_storage(static_cast<uint32_t>(DType::kF32));
    table->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
    table->set_admit_after(1);
    table->set_admit_probability(1);
  }
  model.mutable_tables(1)->set_evict_unused_ms(20000);
  return model;
}

class ClientRowsTest : public ::testing::Test {
 protected:
  ClientRowsTest() : cluster(2), chief(cluster.NewClient(wire::v1::ROLE_WORKER, 0)) {
    EXPECT_TRUE(cluster.Finish(chief, chief.Connect(cluster.now)).status.ok());
    EXPECT_TRUE(cluster.Finish(chief, chief.Declare(WithTables(), cluster.now)).status.ok());
  }
  absl::Status Push(const std::vector<uint64_t>& keys, const std::vector<float>& gradients) {
    return cluster.Finish(chief, Start(keys, gradients.data(), nullptr)).status;
  }
  absl::StatusOr<CallId> Start(const std::vector<uint64_t>& keys, const float* push, float* pull) {
    const RowsItem item{.keys = keys, .push = push, .pull = pull};
    return chief.StartRows({item}, cluster.now);
  }
  std::vector<float> Pull(const std::vector<uint64_t>& keys) {
    std::vector<float> rows(keys.size() * kDim, NAN);
    const absl::Status status = cluster.Finish(chief, Start(keys, nullptr, rows.data())).status;
    EXPECT_TRUE(status.ok()) << status;
    return rows;
  }

  Cluster cluster;
  ClientCore& chief;
};

TEST_F(ClientRowsTest, SumsAreExactOverLanesCallsAndRepeatedKeys) {
  std::mt19937_64 random(3);
  std::map<uint64_t, std::vector<float>> expected;
  for (const size_t count : {1, 7, 1000, 20000}) {
    std::vector<uint64_t> keys(count);
    std::vector<float> gradients(count * kDim);
    for (size_t i = 0; i < count; ++i) {
      keys[i] = random() % 5000 * 0x9e3779b97f4a7c15;
      auto& row = expected[keys[i]];
      row.resize(kDim);
      for (uint32_t c = 0; c < kDim; ++c) row[c] -= gradients[i * kDim + c] = static_cast<float>(random() % 9);
    }
    ASSERT_TRUE(Push(keys, gradients).ok());
  }
  std::vector<uint64_t> keys;
  std::vector<float> rows;
  for (const auto& [key, row] : expected) {
    keys.push_back(key);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  keys.insert(keys.end(), {keys[0], 1});  // a repeat, and one that is not there
  rows.insert(rows.end(), {rows[0], rows[1], rows[2], 0, 0, 0});
  EXPECT_EQ(Pull(keys), rows);
  EXPECT_EQ(cluster.Sum(&LaneCounters::rows), expected.size());
  EXPECT_EQ(chief.bytes_in_flight(), 0u);
}

TEST_F(ClientRowsTest, APushThenPullGivesTheRowsAfterThePush) {
  const std::vector<uint64_t> keys = {5, 6, 5};
  const std::vector<float> gradients = {1, 1, 1, 2, 2, 2, 3, 3, 3};
  std::vector<float> rows(9, NAN);
  EXPECT_TRUE(cluster.Finish(chief, Start(keys, gradients.data(), rows.data())).status.ok());
  EXPECT_EQ(rows, (std::vector<float>{-4, -4, -4, -2, -2, -2, -4, -4, -4}));
}

TEST_F(ClientRowsTest, GradientsAreSummedAndThenRoundedTo16Bits) {
  uint32_t worker = 0;
  for (const auto& [type, rounded] : {std::pair(DType::kF16, 1.5009765625f), std::pair(DType::kBF16, 1.5f)}) {
    ClientCore& client = cluster.NewClient(wire::v1::ROLE_WORKER, ++worker, type);
    ASSERT_TRUE(cluster.Finish(client, client.Connect(cluster.now)).status.ok());
    ASSERT_TRUE(cluster.Finish(client, client.Declare(WithTables(), cluster.now)).status.ok());
    // In float16 each of the three would become 0.5, and their sum is nearer to the number after 1.5.
    const uint64_t key = 40 + worker;
    const std::vector<uint64_t> keys = {key, 7, key, key};
    std::vector<float> gradients(12, 0.5f + 0x1.8p-13f), rows(12);
    const RowsItem item{.keys = keys, .push = gradients.data(), .pull = rows.data()};
    ASSERT_TRUE(cluster.Finish(client, client.StartRows({item}, cluster.now)).status.ok());
    EXPECT_EQ(std::vector<float>(rows.begin(), rows.begin() + 3), std::vector<float>(3, -rounded)) << Name(type);
    gradients[4] = 3.4e38f;
    EXPECT_TRUE(
        absl::StartsWith(client.StartRows({item}, cluster.now).status().message(), "table \"user\": 3.4e+38, beyond "));
    EXPECT_EQ(Pull({key}), std::vector<float>(3, -rounded));
  }
}

// One bucket's rows that are more than a message: several messages, each with a sequence of its own.
TEST_F(ClientRowsTest, ALargeBucketIsCut) {
  const TablePlacement placement = TablePlacement::Make(2);
  std::vector<uint64_t> keys;
  const size_t most = kMaxRowsBytes / (8 + kDim * sizeof(float));
  for (uint64_t key = 0; keys.size() < 2 * most + 10; ++key) {
    if (placement.BucketOf(key) == 9) keys.push_back(key);
  }
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(Push(keys, std::vector<float>(keys.size() * kDim, 1)).ok());
  EXPECT_EQ(Pull(keys), std::vector<float>(keys.size() * kDim, -2));
}

TEST_F(ClientRowsTest, BagsArePooledAndTheirGradientsSpread) {
  const std::vector<uint64_t> keys = {1, 2, 2, 3, 1}, offsets = {0, 2, 2, 5};
  for (const bool mean : {false, true}) {
    const std::vector<float> gradients = {6, 6, 6, 9, 9, 9, 3, 3, 3};
    RowsItem item{.table = mean ? 1u : 0u, .keys = keys, .bags = {offsets, mean}, .push = gradients.data()};
    ASSERT_TRUE(cluster.Finish(chief, chief.StartRows({item}, cluster.now)).status.ok());
    std::vector<float> pooled(9, NAN);
    item.push = nullptr;
    item.pull = pooled.data();
    ASSERT_TRUE(cluster.Finish(chief, chief.StartRows({item}, cluster.now)).status.ok());
    // sum: rows are 1: -9, 2: -9, 3: -3; mean: 1: -4, 2: -4, 3: -1.
    const float first = mean ? -4 : -18, last = mean ? -3 : -21;
    EXPECT_EQ(pooled, (std::vector<float>{first, first, first, 0, 0, 0, last, last, last}));
  }
}

TEST_F(ClientRowsTest, WhatIsWrongIsSaidBeforeAnythingLeaves) {
  const std::vector<uint64_t> keys = {5, 6};
  std::vector<float> gradients(6, 1);
  const auto says = [&](const RowsItem& item, absl::StatusCode code, const char* part) {
    const absl::Status status = chief.StartRows({item}, cluster.now).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_NE(status.message().find(part), absl::string_view::npos) << status;
  };
  gradients[4] = NAN;
  says({.keys = keys, .push = gradients.data()}, absl::StatusCode::kInvalidArgument,
       "table \"user\": NaN in the gradient of key 6 (place 1), column 1; nothing of this call was sent");
  gradients[4] = 1;
  says({.table = 2, .keys = keys, .push = gradients.data()}, absl::StatusCode::kInvalidArgument,
       "table 2 does not exist; the model has 2");
  const std::vector<uint64_t> offsets = {0, 3};
  says({.keys = keys, .bags = {offsets}, .push = gradients.data()}, absl::StatusCode::kInvalidArgument,
       "table \"user\": bags end at 3");
  const RowsItem good{.keys = keys, .push = gradients.data()};
  EXPECT_EQ(chief.StartRows({good, good}, cluster.now).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cluster.Sum(&LaneCounters::applied), 0u);

  ClientCore& observer = cluster.NewClient(wire::v1::ROLE_OBSERVER, 0);
  ASSERT_TRUE(cluster.Finish(observer, observer.Connect(cluster.now)).status.ok());
  ASSERT_TRUE(cluster.Finish(observer, observer.Declare({}, cluster.now)).status.ok());
  EXPECT_EQ(observer.StartRows({good}, cluster.now).status().code(), absl::StatusCode::kFailedPrecondition);
  std::vector<float> rows(6, NAN);
  const RowsItem pull{.keys = keys, .pull = rows.data()};
  EXPECT_TRUE(cluster.Finish(observer, observer.StartRows({pull}, cluster.now)).status.ok());
  EXPECT_EQ(rows, std::vector<float>(6, 0));
}

TEST_F(ClientRowsTest, AfterACutWhatWasAppliedIsNotAppliedAgain) {
  std::vector<uint64_t> keys(300);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = i;
  const std::vector<float> gradients(keys.size() * kDim, 1);
  std::vector<float> rows(keys.size() * kDim, NAN);
  cluster.lose_answers = true;
  const absl::StatusOr<CallId> call = Start(keys, gradients.data(), rows.data());
  ASSERT_TRUE(call.ok());
  cluster.Run();
  EXPECT_FALSE(chief.done(*call));
  cluster.lose_answers = false;
  cluster.Cut(chief);
  EXPECT_TRUE(cluster.Finish(chief, call).status.ok());
  EXPECT_EQ(rows, std::vector<float>(keys.size() * kDim, -1));
  EXPECT_GT(cluster.Sum(&LaneCounters::repeats), 0u);
  ASSERT_TRUE(Push(keys, gradients).ok());
  EXPECT_EQ(Pull(keys), std::vector<float>(keys.size() * kDim, -2));
}

// Spoils one float of the first entry that is pushed.
wire::Message Poisoned(wire::Message message) {
  const wire::Parsed parsed = *wire::Parse(message);
  const float nan = NAN;
  std::memcpy(const_cast<char*>(parsed.payloads[0].data() + parsed.payloads[0].size() - sizeof(nan)), &nan,
              sizeof(nan));
  return message;
}

TEST_F(ClientRowsTest, ARefusedBucketIsUnchangedAndTheNextPushGoesOn) {
  cluster.change_request = Poisoned;
  const absl::Status refused = Push({5}, {1, 1, 1});
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(refused.message().find("of table \"user\" refused by ps"), absl::string_view::npos) << refused;
  cluster.change_request = nullptr;
  EXPECT_EQ(Pull({5}), std::vector<float>(kDim, 0));
  EXPECT_TRUE(Push({5}, {1, 1, 1}).ok());
  EXPECT_EQ(Pull({5}), std::vector<float>(kDim, -1));
}

TEST_F(ClientRowsTest, EvictedKeysAreTold) {
  std::vector<uint64_t> keys(100);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = 1000 + i;
  const std::vector<float> gradients(keys.size() * kDim, 1);
  const RowsItem item{.table = 1, .keys = keys, .push = gradients.data()};
  ASSERT_TRUE(cluster.Finish(chief, chief.StartRows({item}, cluster.now)).status.ok());
  const auto ask = [&](size_t capacity, std::vector<uint64_t>* told) {
    EXPECT_TRUE(cluster.Finish(chief, chief.AskEvicted(1, cluster.now)).status.ok());
    told->resize(capacity);
    const ClientCore::EvictedRows taken = chief.TakeEvicted(1, told->data(), capacity);
    told->resize(taken.count);
    return taken;
  };
  std::vector<uint64_t> told, rest;
  EXPECT_EQ(ask(1000, &told).count, 0u);
  cluster.Pass(absl::Seconds(30));
  EXPECT_EQ(cluster.Sum(&LaneCounters::evicted), keys.size());
  const ClientCore::EvictedRows first = ask(60, &told);
  EXPECT_EQ(first.count, 60u);
  EXPECT_EQ(first.waiting, 40u);
  EXPECT_FALSE(first.missed);
  EXPECT_EQ(ask(1000, &rest).count, 40u);
  told.insert(told.end(), rest.begin(), rest.end());
  std::sort(told.begin(), told.end());
  EXPECT_EQ(told, keys);
  EXPECT_EQ(ask(1000, &told).count, 0u);
  EXPECT_EQ(chief.AskEvicted(2, cluster.now).status().code(), absl::StatusCode::kInvalidArgument);
}

// Who joins later has no copies of what went before.
TEST_F(ClientRowsTest, EvictedKeysBeginWithTheFirstCall) {
  const std::vector<uint64_t> keys = {1, 2, 3};
  const std::vector<float> gradients(9, 1);
  ASSERT_TRUE(
      cluster
          .Finish(chief, chief.StartRows({RowsItem{.table = 1, .keys = keys, .push = gradients.data()}}, cluster.now))
          .status.ok());
  cluster.Pass(absl::Seconds(30));
  ClientCore& late = cluster.NewClient(wire::v1::ROLE_WORKER, 1);
  ASSERT_TRUE(cluster.Finish(late, late.Connect(cluster.now)).status.ok());
  ASSERT_TRUE(cluster.Finish(late, late.Declare(WithTables(), cluster.now)).status.ok());
  std::vector<float> rows(9);
  ASSERT_TRUE(
      cluster.Finish(late, late.StartRows({RowsItem{.table = 1, .keys = keys, .pull = rows.data()}}, cluster.now))
          .status.ok());
  ASSERT_TRUE(cluster.Finish(late, late.AskEvicted(1, cluster.now)).status.ok());
  uint64_t key = 0;
  EXPECT_EQ(late.TakeEvicted(1, &key, 1).count, 0u);
}

}  // namespace
}  // namespace basin
