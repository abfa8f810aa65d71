// What the tests of device pointers in calls of libbasin.so share: memory and streams of a CUDA device, and parameter
// servers that are processes of their own.
#pragma once

#include <basin/basin.h>
#include <basin/client.h>
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "tests/wire/loopback_socket.h"

extern char** environ;

namespace basin_test {

inline constexpr size_t kElements = 300'001;      // some pieces, the last one odd
inline constexpr uint64_t kTableBytes = 4 << 20;  // so that servers on the device have tables there

#define CUDA_OK(call) ASSERT_EQ(call, cudaSuccess)

// Values in the device's memory.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(&memory_, count * sizeof(T)), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(memory_, values.data(), bytes(), cudaMemcpyHostToDevice), cudaSuccess);
    // From ordinary memory it may return before the last bytes are there, and the tests' streams do not wait for it.
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
  ~DeviceArray() { EXPECT_EQ(cudaFree(memory_), cudaSuccess); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* data() const { return static_cast<T*>(memory_); }
  size_t bytes() const { return count_ * sizeof(T); }
  std::vector<T> Read() const {
    std::vector<T> values(count_);
    EXPECT_EQ(cudaMemcpy(values.data(), memory_, bytes(), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
  }
  // Behind what the stream does before.
  void CopyFrom(const DeviceArray& other, cudaStream_t stream) const {
    EXPECT_EQ(cudaMemcpyAsync(memory_, other.memory_, bytes(), cudaMemcpyDeviceToDevice, stream), cudaSuccess);
  }

 private:
  const size_t count_;
  void* memory_ = nullptr;
};
using DeviceFloats = DeviceArray<float>;

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

inline std::vector<float> Counting(float first) {
  std::vector<float> values(kElements);
  for (size_t i = 0; i < values.size(); ++i) values[i] = first + 0.125f * static_cast<float>(i % 4099);
  return values;
}

// Two servers, and a client of them over the transport.
class GpuPointersTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    int devices = 0;
    if (const cudaError_t error = cudaGetDeviceCount(&devices); error != cudaSuccess || devices == 0) {
      GTEST_SKIP() << "no CUDA device: " << cudaGetErrorString(error);
    }
    StartServers(IsIpc() ? std::vector<std::string>{"--device", "cuda"} : std::vector<std::string>());
    Connect();
  }
  // Shards on the device, and shared memory to them: bytes go through CUDA IPC.
  static bool IsIpc() { return GetParam() == std::string("ipc"); }
  // With room for `workers` workers.
  void StartServers(const std::vector<std::string>& arguments, int workers = 1) {
    std::string addresses, worker_addresses;
    int listening[2];
    for (int ps = 0; ps < 2; ++ps) {
      uint16_t port = 0;
      listening[ps] = basin::wire::ListeningSocket(&port);
      fcntl(listening[ps], F_SETFD, 0);  // handed over open, so that no other program can get the port between
      addresses += std::string(ps == 0 ? "" : ", ") + "\"127.0.0.1:" + std::to_string(port) + "\"";
    }
    for (int worker = 0; worker < workers; ++worker) {
      worker_addresses += std::string(worker == 0 ? "" : ", ") + "\"127.0.0.1:" + std::to_string(1 + worker) + "\"";
    }
    cluster_ = R"({"cluster": {"ps": [)" + addresses + R"(], "worker": [)" + worker_addresses + R"(]}, "task": )";
    for (int ps = 0; ps < 2; ++ps) {
      const std::string config = cluster_ + R"({"type": "ps", "index": )" + std::to_string(ps) + "}}";
      std::vector<std::string> words = {std::string(getenv("BASIN_BINARY_DIR")) + "/bin/basin-ps",
                                        "--tf-config",
                                        config,
                                        "--lanes",
                                        "2",
                                        "--listen-fd",
                                        std::to_string(listening[ps])};
      words.insert(words.end(), arguments.begin(), arguments.end());
      Start(std::move(words));
    }
    for (const int fd : listening) close(fd);
  }
  void TearDown() override {
    client_.reset();
    for (const pid_t ps : servers_) End(ps);
  }

  // With what gradients are sent as; empty: float32.
  void Connect(const std::string& gradient_dtype = "") {
    basin::Options options;
    options.gradient_dtype = gradient_dtype;
    options.tf_config = cluster_ + R"({"type": "worker", "index": 0}})";
    options.log = false;
    options.transport = IsIpc() ? "auto" : GetParam();
    options.unreachable_timeout = std::chrono::seconds(2);
    auto client = basin::Client::Connect(options);
    ASSERT_TRUE(client.ok()) << client.status().message();
    client_.emplace(std::move(*client));
    basin::Model model;
    w_.emplace(model.Dense("w", {static_cast<int64_t>(kElements)}, basin::Zeros()));
    reference_.emplace(model.Dense("reference", {static_cast<int64_t>(kElements)}, basin::Zeros()));
    user_.emplace(model.Table("user", {.dim = 4, .max_bytes = kTableBytes}));
    user_reference_.emplace(model.Table("user_reference", {.dim = 4, .max_bytes = kTableBytes}));
    odd_.emplace(model.Table("odd", {.dim = 3, .max_bytes = kTableBytes}));
    odd_reference_.emplace(model.Table("odd_reference", {.dim = 3, .max_bytes = kTableBytes}));
    model.SetRule(basin::Momentum{0.5f});
    Ok(client_->Declare(model));
  }
  static void Ok(const basin::Status& status) { ASSERT_TRUE(status.ok()) << status.message(); }

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
  std::optional<basin::Table> user_, user_reference_, odd_, odd_reference_;
};

}  // namespace basin_test
