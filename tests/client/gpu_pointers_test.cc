// Device pointers in calls of libbasin.so, to parameter servers that are processes of their own.
#include <basin/basin.h>
#include <basin/client.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <deque>
#include <string>
#include <thread>
#include <vector>

extern char** environ;

namespace {

constexpr size_t kElements = 300'001;  // some pieces, the last one odd

#define CUDA_OK(call) ASSERT_EQ(call, cudaSuccess)

// Floats in the device's memory.
class DeviceFloats {
 public:
  explicit DeviceFloats(size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(&memory_, count * sizeof(float)), cudaSuccess);
  }
  explicit DeviceFloats(const std::vector<float>& values) : DeviceFloats(values.size()) {
    EXPECT_EQ(cudaMemcpy(memory_, values.data(), bytes(), cudaMemcpyHostToDevice), cudaSuccess);
    // From ordinary memory it may return before the last bytes are there, and the tests' streams do not wait for it.
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
  ~DeviceFloats() { EXPECT_EQ(cudaFree(memory_), cudaSuccess); }
  DeviceFloats(const DeviceFloats&) = delete;
  DeviceFloats& operator=(const DeviceFloats&) = delete;
  float* data() const { return static_cast<float*>(memory_); }
  size_t bytes() const { return count_ * sizeof(float); }
  std::vector<float> Read() const {
    std::vector<float> values(count_);
    EXPECT_EQ(cudaMemcpy(values.data(), memory_, bytes(), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
  }
  // Behind what the stream does before.
  void CopyFrom(const DeviceFloats& other, cudaStream_t stream) const {
    EXPECT_EQ(cudaMemcpyAsync(memory_, other.memory_, bytes(), cudaMemcpyDeviceToDevice, stream), cudaSuccess);
  }

 private:
  const size_t count_;
  void* memory_ = nullptr;
};

class Stream {
 public:
  Stream() { EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess); }
  ~Stream() { EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }
  basin::Stream basin() const { return basin::Stream::Cuda(stream_); }

 private:
  cudaStream_t stream_ = nullptr;
};

std::vector<float> Counting(float first) {
  std::vector<float> values(kElements);
  for (size_t i = 0; i < values.size(); ++i) values[i] = first + 0.125f * static_cast<float>(i % 4099);
  return values;
}

class GpuPointersTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    int devices = 0;
    if (const cudaError_t error = cudaGetDeviceCount(&devices); error != cudaSuccess || devices == 0) {
      GTEST_SKIP() << "no CUDA device: " << cudaGetErrorString(error);
    }
    std::string addresses;
    for (int ps = 0; ps < 2; ++ps) {
      addresses += std::string(ps == 0 ? "" : ", ") + "\"127.0.0.1:" + std::to_string(FreePort()) + "\"";
    }
    cluster_ = R"({"cluster": {"ps": [)" + addresses + R"(], "worker": ["127.0.0.1:1"]}, "task": )";
    for (int ps = 0; ps < 2; ++ps) {
      const std::string config = cluster_ + R"({"type": "ps", "index": )" + std::to_string(ps) + "}}";
      Start({std::string(getenv("BASIN_BINARY_DIR")) + "/bin/basin-ps", "--tf-config", config, "--lanes", "2"});
    }
    Connect();
  }
  void TearDown() override {
    client_.reset();
    for (const pid_t ps : servers_) End(ps);
  }

  void Connect() {
    basin::Options options;
    options.tf_config = cluster_ + R"({"type": "worker", "index": 0}})";
    options.log = false;
    options.transport = GetParam();
    options.unreachable_timeout = std::chrono::seconds(2);
    auto client = basin::Client::Connect(options);
    ASSERT_TRUE(client.ok()) << client.status().message();
    client_.emplace(std::move(*client));
    basin::Model model;
    w_.emplace(model.Dense("w", {static_cast<int64_t>(kElements)}, basin::Zeros()));
    reference_.emplace(model.Dense("reference", {static_cast<int64_t>(kElements)}, basin::Zeros()));
    user_.emplace(model.Table("user", {4}));
    model.SetRule(basin::Momentum{0.5f});
    Ok(client_->Declare(model));
  }
  static void Ok(const basin::Status& status) { ASSERT_TRUE(status.ok()) << status.message(); }

  static int FreePort() {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(fd, generic, size), 0);
    EXPECT_EQ(getsockname(fd, generic, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
  }
  void Start(std::vector<std::string> words) {
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_t pid = 0;
    ASSERT_EQ(posix_spawn(&pid, argv[0], nullptr, nullptr, argv.data(), environ), 0) << words[0];
    servers_.push_back(pid);
  }
  static void End(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }

  basin::Source From(const basin::Variable& variable, const DeviceFloats& floats) {
    return {variable, floats.data(), kElements, basin::Location::Cuda(0)};
  }
  basin::Target Into(const basin::Variable& variable, const DeviceFloats& floats) {
    return {variable, floats.data(), kElements, basin::Location::Cuda(0)};
  }

  std::string cluster_;
  std::vector<pid_t> servers_;
  std::optional<basin::Client> client_;
  std::optional<basin::Variable> w_, reference_;
  std::optional<basin::Table> user_;
};

TEST_P(GpuPointersTest, StepsInTheOrderOfAStreamGiveWhatStepsThroughHostMemoryGive) {
  constexpr int kSteps = 5;
  const std::vector<float> first = Counting(1);
  // On the host: parameters, their half as the gradient, and so on.
  std::vector<float> parameters(kElements);
  Ok(client_->Assign({{*reference_, first}}).Wait());
  for (int step = 0; step < kSteps; ++step) {
    Ok(client_->Pull({{*reference_, parameters}}).Wait());
    Ok(client_->Push({{*reference_, parameters}}).Wait());
  }
  Ok(client_->Pull({{*reference_, parameters}}).Wait());
  // On the device, where nobody waits before the end.
  const Stream stream;
  const DeviceFloats start(first), source(kElements), pulled(kElements), gradient(kElements), seen(kElements);
  std::deque<basin::Call> calls;
  source.CopyFrom(start, stream.get());
  calls.push_back(client_->Assign({From(*w_, source)}, stream.basin()));
  for (int step = 0; step < kSteps; ++step) {
    calls.push_back(client_->Pull({Into(*w_, pulled)}, stream.basin()));
    Ok(calls.back().OrderBefore(stream.basin()));
    gradient.CopyFrom(pulled, stream.get());
    calls.push_back(client_->Push({From(*w_, gradient)}, stream.basin()));
    Ok(calls.back().OrderBefore(stream.basin()));  // the gradient's memory is written again
  }
  calls.push_back(client_->Pull({Into(*w_, pulled)}, stream.basin()));
  Ok(calls.back().OrderBefore(stream.basin()));
  seen.CopyFrom(pulled, stream.get());
  CUDA_OK(cudaStreamSynchronize(stream.get()));
  for (basin::Call& call : calls) Ok(call.Wait());
  EXPECT_EQ(seen.Read(), parameters);
}

TEST_P(GpuPointersTest, PushAndPullOfOneCallAndOfOneBuffer) {
  const std::vector<float> values = Counting(3);
  std::vector<float> expected(kElements);
  Ok(client_->PushPull({{*reference_, values}}, {{*reference_, expected}}).Wait());
  const Stream stream;
  const DeviceFloats source(values), both(kElements);
  both.CopyFrom(source, stream.get());
  Ok(client_->PushPull({From(*w_, both)}, {Into(*w_, both)}, stream.basin()).Wait());
  EXPECT_EQ(both.Read(), expected);
}

TEST_P(GpuPointersTest, HostAndDeviceMemoryInOneCall) {
  const std::vector<float> values = Counting(3);
  std::vector<float> on_host(kElements);
  const DeviceFloats source(values), target(kElements);
  Ok(client_->PushPull({From(*w_, source), {*reference_, values}}, {{*w_, on_host}, Into(*reference_, target)}).Wait());
  EXPECT_EQ(target.Read(), on_host);
}

TEST_P(GpuPointersTest, AStreamGoesOnWhenAServerIsKilledAndWaitTells) {
  const Stream stream;
  const DeviceFloats pulled(kElements), seen(kElements);
  Ok(client_->Pull({Into(*w_, pulled)}, stream.basin()).Wait());
  End(servers_.back());
  servers_.pop_back();
  basin::Call pull = client_->Pull({Into(*w_, pulled)}, stream.basin());
  Ok(pull.OrderBefore(stream.basin()));
  seen.CopyFrom(pulled, stream.get());
  CUDA_OK(cudaStreamSynchronize(stream.get()));
  EXPECT_EQ(pull.Wait().code(), BASIN_UNAVAILABLE);
}

TEST_P(GpuPointersTest, AStreamGoesOnWhenTheClientIsClosed) {
  const Stream stream;
  const DeviceFloats pulled(kElements);
  std::deque<basin::Call> calls;
  for (int i = 0; i < 8; ++i) {
    calls.push_back(client_->Pull({Into(*w_, pulled)}, stream.basin()));
    Ok(calls.back().OrderBefore(stream.basin()));
  }
  client_.reset();
  CUDA_OK(cudaStreamSynchronize(stream.get()));
  for (basin::Call& call : calls) {
    const basin::Status status = call.Wait();
    EXPECT_TRUE(status.ok() || status.code() == BASIN_CANCELLED) << status.message();
  }
}

TEST_P(GpuPointersTest, ManyCallsOnSeveralStreamsAtOnceLoseNothing) {
  constexpr int kThreads = 3, kPushes = 4;
  const std::vector<float> ones(kElements, 1);
  Ok(client_->SetLearningRate(1));
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&] {
      const Stream stream;
      const DeviceFloats source(ones), gradient(kElements), pulled(kElements);
      std::deque<basin::Call> calls;
      for (int i = 0; i < kPushes; ++i) {
        gradient.CopyFrom(source, stream.get());
        calls.push_back(client_->PushPull({From(*reference_, gradient)}, {Into(*reference_, pulled)}, stream.basin()));
        Ok(calls.back().OrderBefore(stream.basin()));
      }
      for (basin::Call& call : calls) Ok(call.Wait());
    });
  }
  for (std::thread& thread : threads) thread.join();
  // Momentum of 0.9 over n pushes of 1.
  float velocity = 0, expected = 0;
  for (int i = 0; i < kThreads * kPushes; ++i) {
    velocity = 0.9f * velocity + 1;
    expected -= velocity;
  }
  std::vector<float> found(kElements);
  Ok(client_->Pull({{*reference_, found}}).Wait());
  for (const float value : found) ASSERT_NEAR(value, expected, 1e-3);
}

TEST_P(GpuPointersTest, WhatIsNotOfTheDeviceIsRefusedByName) {
  const auto refused = [](basin::Call call, const std::string& expected) {
    const basin::Status status = call.Wait();
    EXPECT_EQ(status.code(), BASIN_INVALID_ARGUMENT);
    EXPECT_NE(status.message().find(expected), std::string::npos) << status.message();
  };
  std::vector<float> host(kElements);
  const DeviceFloats there(Counting(1));
  const basin::Location cuda0 = basin::Location::Cuda(0), cuda99 = basin::Location::Cuda(99);
  refused(client_->Push({{*w_, host.data(), kElements, cuda0}}), "gradient of \"w\": byte 0 of ");
  refused(client_->Push({{*w_, there.data(), kElements, cuda99}}), "gradient of \"w\": there is no cuda:99");
  refused(client_->Pull({{*w_, there.data(), kElements, basin::Location::Cuda(-1)}}), "pull of \"w\": there is no");
  refused(client_->Assign({{*w_, there.data(), kElements - 1, cuda0}}), "value of \"w\": shape [300000]");
  void* pinned = nullptr;
  CUDA_OK(cudaHostAlloc(&pinned, kElements * sizeof(float), cudaHostAllocDefault));
  refused(client_->Pull({{*w_, static_cast<float*>(pinned), kElements, cuda0}}), "pinned host memory");
  // Which serves as host memory.
  Ok(client_->Pull({{*w_, static_cast<float*>(pinned), kElements}}).Wait());
  CUDA_OK(cudaFreeHost(pinned));
  const Stream stream;
  refused(client_->Push({{*w_, host}}, stream.basin()), "all tensors of the call are in host memory");
  basin::Stream unknown = stream.basin();
  unknown.value.kind = 7;
  refused(client_->Push({From(*w_, there)}, unknown), "stream of kind 7");
  basin::Call pull = client_->Pull({{*w_, host}});
  EXPECT_EQ(pull.OrderBefore(stream.basin()).code(), BASIN_INVALID_ARGUMENT);
  const uint64_t key = 1;
  const basin::Rows rows = {&*user_, &key, 1, there.data(), nullptr, nullptr, 0, basin::Pooling::kSum, cuda0};
  EXPECT_EQ(client_->Start({rows}).Wait().code(), BASIN_UNIMPLEMENTED);
  Ok(client_->Push({From(*w_, there)}).Wait());
}

TEST_P(GpuPointersTest, AForksChildIsRefused) {
  const DeviceFloats gradient(std::vector<float>(kElements, 1));
  Ok(client_->Push({From(*w_, gradient)}).Wait());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(client_->Push({From(*w_, gradient)}).Wait().code());
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), BASIN_FAILED_PRECONDITION);
}

INSTANTIATE_TEST_SUITE_P(Transports, GpuPointersTest, ::testing::Values("tcp", "shm"),
                         [](const auto& transport) { return std::string(transport.param); });

}  // namespace
