// Rows of tables in device memory, moved by libbasin.so: what parameter servers and the device get of them, compared
// with rows in host memory.
#include <basin/basin.h>
#include <basin/client.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "common/base/key_hash.h"
#include "tests/client/gpu_cluster.h"

namespace basin_test {
namespace {

using Keys = std::vector<uint64_t>;
using Floats = std::vector<float>;
const basin::Location kThere = basin::Location::Cuda(0);

class GpuRowsTest : public GpuPointersTest {
 protected:
  // Many repeat; key 0 stands more often than a piece of its sum has places.
  static Keys SomeKeys(size_t count) {
    Keys keys(count);
    for (size_t i = 0; i < count; ++i) keys[i] = i % 7 == 0 ? 0 : i * i % (count / 2) * 0x9e3779b97f4a7c15ull;
    return keys;
  }
  // Their sums are exact, in whatever order they are made.
  static Floats Whole(size_t count) {
    Floats values(count);
    for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i % 13) - 6;
    return values;
  }
  static Keys Bags(size_t keys) {
    Keys offsets = {0};
    while (offsets.back() < keys) offsets.push_back(std::min<uint64_t>(keys, offsets.back() + offsets.size() % 5));
    return offsets;
  }
  Floats PulledRows(const basin::Table& table, const Keys& keys) {
    Floats rows(keys.size() * table.dim, NAN);
    Ok(client_->Pull(table, keys, rows).Wait());
    return rows;
  }
  static basin::Rows There(const basin::Table& table, const Keys& keys, const float* push, float* pull) {
    return {.table = &table, .keys = keys.data(), .count = keys.size(), .push = push, .pull = pull, .location = kThere};
  }
};

TEST_P(GpuRowsTest, PushedAndPulledRowsAreThoseOfHostMemory) {
  const Keys keys = SomeKeys(2500);
  const DeviceArray<uint64_t> keys_there(keys);
  const Stream stream;
  for (const auto& [table, reference] : {std::pair(&*user_, &*user_reference_), std::pair(&*odd_, &*odd_reference_)}) {
    const Floats gradients = Whole(keys.size() * table->dim);
    for (const bool keys_are_there : {false, true}) {
      for (const size_t shift : {0, 1}) {  // memory at any float
        SCOPED_TRACE(testing::Message() << table->dim << " " << keys_are_there << " " << shift);
        Floats shifted(shift, NAN);
        shifted.insert(shifted.end(), gradients.begin(), gradients.end());
        const DeviceFloats push(shifted), pull(shifted.size());
        Floats expected(gradients.size(), NAN);
        Ok(client_->PushPull(*reference, keys, gradients, expected).Wait());
        basin::Rows rows = There(*table, keys, push.data() + shift, pull.data() + shift);
        if (keys_are_there) rows.keys = keys_there.data();
        if (keys_are_there) rows.keys_location = kThere;
        Ok(client_->Start({rows}, stream.basin()).Wait());
        const Floats found = pull.Read();
        EXPECT_EQ(Floats(found.begin() + static_cast<int64_t>(shift), found.end()), expected);
        EXPECT_EQ(PulledRows(*table, keys), expected);
      }
    }
  }
}

TEST_P(GpuRowsTest, BagsArePooledAndTheirGradientsSpreadAsInHostMemory) {
  const Keys keys = SomeKeys(2000), offsets = Bags(keys.size());
  const size_t bags = offsets.size() - 1;
  for (const basin::Pooling pooling : {basin::Pooling::kSum, basin::Pooling::kMean}) {
    const Floats gradients = Whole(bags * 3);
    const DeviceFloats push(gradients), pull(gradients.size());
    Floats expected(gradients.size(), NAN);
    Ok(client_->PushBags(*odd_reference_, keys, offsets, pooling, gradients).Wait());
    Ok(client_->PullBags(*odd_reference_, keys, offsets, pooling, expected).Wait());
    basin::Rows rows = There(*odd_, keys, push.data(), pull.data());
    rows.bags = offsets.data();
    rows.bag_count = bags;
    rows.pooling = pooling;
    Ok(client_->Start({rows}).Wait());
    const Floats found = pull.Read();
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-4 * (1 + std::abs(expected[i])));
    // What is pulled alone are the host's bits.
    rows.push = nullptr;
    Ok(client_->Start({rows}).Wait());
    Ok(client_->PullBags(*odd_, keys, offsets, pooling, expected).Wait());
    EXPECT_EQ(pull.Read(), expected);
  }
}

TEST_P(GpuRowsTest, KeysWhoseHashesAgreeInTheSortedBitsStayApart) {
  // Of so few keys 16 bits are sorted at first.
  Keys alike = {1};
  for (uint64_t key = 2; alike.size() < 3; ++key) {
    if (basin::KeyHash(key) >> 48 == basin::KeyHash(1) >> 48) alike.push_back(key);
  }
  const Keys keys = {alike[2], alike[0], alike[1], alike[0], 5, alike[2], alike[1], alike[0]};
  const Floats gradients = Whole(keys.size() * 4);
  const DeviceFloats push(gradients), pull(gradients.size());
  Floats expected(gradients.size(), NAN);
  Ok(client_->PushPull(*user_reference_, keys, gradients, expected).Wait());
  Ok(client_->Start({There(*user_, keys, push.data(), pull.data())}).Wait());
  EXPECT_EQ(pull.Read(), expected);
}

TEST_P(GpuRowsTest, NoKeysAndBagsWithoutAny) {
  const Keys none, offsets = {0, 0, 0};
  const DeviceFloats pooled(Floats(2 * 4, NAN));
  Ok(client_->Start({There(*user_, none, pooled.data(), pooled.data())}).Wait());
  basin::Rows rows = There(*user_, none, nullptr, pooled.data());
  rows.bags = offsets.data();
  rows.bag_count = 2;
  Ok(client_->Start({rows}).Wait());
  EXPECT_EQ(pooled.Read(), Floats(2 * 4, 0));
}

TEST_P(GpuRowsTest, StepsInTheOrderOfAStreamGiveWhatStepsThroughHostMemoryGive) {
  constexpr int kSteps = 5;
  const Keys keys = SomeKeys(900), others = SomeKeys(500);
  const Floats first = Whole(keys.size() * 4), others_first = Whole(others.size() * 3);
  Floats rows = first, others_rows = others_first;
  for (int step = 0; step <= kSteps; ++step) {
    Ok(client_->Push(*user_reference_, keys, rows).Wait());
    Ok(client_->Push(*odd_reference_, others, others_rows).Wait());
    Ok(client_->Pull(*user_reference_, keys, rows).Wait());
    Ok(client_->Pull(*odd_reference_, others, others_rows).Wait());
  }
  // On the device, where nobody waits before the end, both tables in one call.
  const Stream stream;
  const DeviceFloats pulled(first), others_pulled(others_first), gradient(first.size()),
      others_gradient(others_first.size());
  std::deque<basin::Call> calls;
  for (int step = 0; step <= kSteps; ++step) {
    gradient.CopyFrom(pulled, stream.get());
    others_gradient.CopyFrom(others_pulled, stream.get());
    calls.push_back(client_->Start(
        {There(*user_, keys, gradient.data(), nullptr), There(*odd_, others, others_gradient.data(), nullptr)},
        stream.basin()));
    Ok(calls.back().OrderBefore(stream.basin()));  // the gradients' memory is written again
    calls.push_back(client_->Start(
        {There(*user_, keys, nullptr, pulled.data()), There(*odd_, others, nullptr, others_pulled.data())},
        stream.basin()));
    Ok(calls.back().OrderBefore(stream.basin()));
  }
  CUDA_OK(cudaStreamSynchronize(stream.get()));
  for (basin::Call& call : calls) Ok(call.Wait());
  EXPECT_EQ(pulled.Read(), rows);
  EXPECT_EQ(others_pulled.Read(), others_rows);
}

TEST_P(GpuRowsTest, ManyCallsOnSeveralStreamsAtOnceLoseNothing) {
  constexpr int kThreads = 3, kPushes = 4;
  Ok(client_->SetLearningRate(1));
  const Keys keys = {3, 5, 3, 8, 5, 3};
  const Floats ones(keys.size() * 4, 1);
  // Freed after all threads: to free memory the driver waits for all streams, and lets nobody start work meanwhile.
  struct Memory {
    explicit Memory(const Floats& values) : source(values), gradient(values.size()), pulled(values.size()) {}
    const Stream stream;
    const DeviceFloats source, gradient, pulled, parameters{kElements};
  };
  std::deque<Memory> memory;
  for (int thread = 0; thread < kThreads; ++thread) memory.emplace_back(ones);
  std::vector<std::thread> threads;
  for (const Memory& my : memory) {
    threads.emplace_back([&] {
      std::deque<basin::Call> calls;
      for (int i = 0; i < kPushes; ++i) {
        my.gradient.CopyFrom(my.source, my.stream.get());
        calls.push_back(client_->Start({There(*user_, keys, my.gradient.data(), my.pulled.data())}, my.stream.basin()));
        Ok(calls.back().OrderBefore(my.stream.basin()));
        // Between them variables, through the same staging.
        calls.push_back(client_->Pull({Into(*w_, my.parameters)}, my.stream.basin()));
      }
      for (basin::Call& call : calls) Ok(call.Wait());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kThreads * kPushes; ++i) Ok(client_->Push(*user_reference_, keys, ones).Wait());
  EXPECT_EQ(PulledRows(*user_, keys), PulledRows(*user_reference_, keys));
}

TEST_P(GpuRowsTest, SumsLeaveInTheTypeThatTheClientSends) {
  const Keys keys = SomeKeys(2000);
  Floats gradients(keys.size() * 3);
  for (size_t i = 0; i < gradients.size(); ++i) gradients[i] = (static_cast<float>(i % 101) - 50) / 64;
  const DeviceFloats push(gradients);
  for (const char* const type : {"float16", "bfloat16"}) {
    client_.reset();
    Connect(type);
    Ok(client_->Push(*odd_reference_, keys, gradients).Wait());
    Ok(client_->Start({There(*odd_, keys, push.data(), nullptr)}).Wait());
    EXPECT_EQ(PulledRows(*odd_, keys), PulledRows(*odd_reference_, keys)) << type;
  }
}

TEST_P(GpuRowsTest, WhatCannotBeSentRefusesTheWholeCallAndIsNamed) {
  const Keys keys = {17, 4, 17};
  const DeviceFloats good(Whole(3 * 4)), pulled(Floats(3 * 4, 5));
  std::string sent_as = "float32";
  for (const auto& [type, value, text] :
       {std::tuple("float32", NAN, "NaN"), std::tuple("float32", INFINITY, "Inf"), std::tuple("float16", NAN, "NaN"),
        std::tuple("float16", 40000.0f,
                   "80000, beyond float16's largest, 65504 (send bfloat16, or scale the loss "
                   "down)")}) {
    if (type != sent_as) {
      client_.reset();
      Connect(sent_as = type);
    }
    Floats bad(3 * 3, 1);
    bad[2] = bad[8] = value;
    const DeviceFloats there(bad);
    const basin::Status status =
        client_->Start({There(*user_, keys, good.data(), pulled.data()), There(*odd_, keys, there.data(), nullptr)})
            .Wait();
    EXPECT_EQ(status.code(), BASIN_INVALID_ARGUMENT);
    EXPECT_EQ(status.message(), "table \"odd\": " + std::string(text) +
                                    " in the sum of the gradients of key 17, column 2; nothing of this call was sent");
  }
  EXPECT_EQ(PulledRows(*user_, keys), Floats(3 * 4, 0));
  EXPECT_EQ(PulledRows(*odd_, keys), Floats(3 * 3, 0));
  EXPECT_EQ(pulled.Read(), Floats(3 * 4, 5));
}

TEST_P(GpuRowsTest, WhatIsNotOfTheDeviceIsRefusedByName) {
  const auto refused = [](basin::Call call, const std::string& expected) {
    const basin::Status status = call.Wait();
    EXPECT_EQ(status.code(), BASIN_INVALID_ARGUMENT);
    EXPECT_NE(status.message().find(expected), std::string::npos) << status.message();
  };
  const Keys keys = {1, 2}, offsets = {0, 2, 1, 2};
  const DeviceArray<uint64_t> keys_there(Keys{1, 2, 3});
  const DeviceFloats there(Whole(2 * 4));
  Floats host(2 * 4);
  basin::Rows rows = There(*user_, keys, host.data(), nullptr);
  refused(client_->Start({rows}), "table \"user\": gradients: byte 0 of 32 is ");
  rows = There(*user_, keys, nullptr, reinterpret_cast<float*>(reinterpret_cast<char*>(there.data()) + 2));
  refused(client_->Start({rows}), "no multiple of 4");
  rows = There(*user_, keys, there.data(), nullptr);
  rows.location = basin::Location::Cuda(99);
  refused(client_->Start({rows}), "there is no cuda:99");
  rows = There(*user_, keys, there.data(), nullptr);
  rows.keys_location = kThere;
  refused(client_->Start({rows}), "table \"user\": keys: byte 0 of 16 is ");
  rows.keys = reinterpret_cast<const uint64_t*>(reinterpret_cast<const char*>(keys_there.data()) + 4);
  refused(client_->Start({rows}), "no multiple of 8");
  rows = There(*user_, keys, host.data(), nullptr);
  rows.location = {};
  const Stream stream;
  refused(client_->Start({rows}, stream.basin()), "all rows of the call are in host memory");
  rows.keys = keys_there.data();
  rows.keys_location = kThere;
  refused(client_->Start({rows}), "keys in device memory, push and pull in host memory");
  rows = There(*user_, keys, there.data(), nullptr);
  rows.bags = offsets.data();
  rows.bag_count = 3;
  refused(client_->Start({rows}), "table \"user\": bags[2] is 1 after 2");
  rows = There(*user_, keys, there.data(), nullptr);
  refused(client_->Start({rows, rows}), "it stands twice in one call");
  Ok(client_->Start({rows}).Wait());
}

TEST_P(GpuRowsTest, AStreamGoesOnWhenAServerIsKilledAndWaitTells) {
  const Keys keys = SomeKeys(500);
  const Stream stream;
  const DeviceFloats pulled(keys.size() * 4), seen(keys.size() * 4);
  Ok(client_->Start({There(*user_, keys, nullptr, pulled.data())}, stream.basin()).Wait());
  End(servers_.back());
  servers_.pop_back();
  basin::Call pull = client_->Start({There(*user_, keys, nullptr, pulled.data())}, stream.basin());
  Ok(pull.OrderBefore(stream.basin()));
  seen.CopyFrom(pulled, stream.get());
  CUDA_OK(cudaStreamSynchronize(stream.get()));
  EXPECT_EQ(pull.Wait().code(), BASIN_UNAVAILABLE);
}

INSTANTIATE_TEST_SUITE_P(Transports, GpuRowsTest, ::testing::Values("tcp", "shm", "ipc"),
                         [](const auto& transport) { return std::string(transport.param); });

}  // namespace
}  // namespace basin_test
