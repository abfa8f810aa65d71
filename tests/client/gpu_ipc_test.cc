// Workers and parameter servers on one GPU, processes of their own: the bytes of device pointers go through memory that
// the servers have lent. Workers that are killed leave others' sums exact, and the memory comes back.
#include <basin/basin.h>
#include <basin/client.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <numeric>
#include <regex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/client/gpu_cluster.h"

namespace basin_test {
namespace {

constexpr size_t kKeys = 500;

// Another worker's process (gpu_ipc_worker.cc), of which this hears how far it is.
class Worker {
 public:
  Worker(const std::string& cluster, int index, const std::string& mode) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    pipe_ = ends[0];
    std::string program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "gpu_ipc_worker",
                config = cluster + R"({"type": "worker", "index": )" + std::to_string(index) + "}}",
                elements = std::to_string(mode.starts_with("rows_") ? kKeys : kElements),
                tells = std::to_string(ends[1]), how = mode;
    char* arguments[] = {program.data(), config.data(), elements.data(), how.data(), tells.data(), nullptr};
    EXPECT_EQ(posix_spawn(&pid_, program.c_str(), nullptr, nullptr, arguments, environ), 0) << program;
    close(ends[1]);
  }
  ~Worker() {
    Kill();
    close(pipe_);
  }
  // Waits until it has told so much.
  void WaitFor(int told) {
    while (told_ < told && Hear()) {
    }
    EXPECT_GE(told_, told);
  }
  // Then all that it has ever told is known.
  int Kill() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
      pid_ = 0;
      while (Hear()) {
      }
    }
    return told_;
  }
  int Wait() {
    int status = -1;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    pid_ = 0;
    return status;
  }

 private:
  bool Hear() {
    char byte;
    if (read(pipe_, &byte, 1) != 1) return false;
    ++told_;
    return true;
  }

  pid_t pid_ = 0;
  int pipe_ = -1;
  int told_ = 0;
};

class GpuIpcTest : public GpuPointersTest {
 protected:
  // Of all servers.
  uint64_t Stat(const std::string& name) {
    auto stats = client_->Stats();
    EXPECT_TRUE(stats.ok());
    const std::string json = *stats;
    uint64_t sum = 0;
    std::string text = name;
    text.insert(0, 1, '"').append("\": ?([0-9]+)");
    const std::regex number(text);
    for (std::sregex_iterator at(json.begin(), json.end(), number), end; at != end; ++at) sum += std::stoull((*at)[1]);
    return sum;
  }
  // The servers free in their own time; the limit ends only a test that has failed.
  void WaitForLent(uint64_t bytes) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    while (Stat("device_lent_bytes") != bytes && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(Stat("device_lent_bytes"), bytes);
  }
  void StartAgain(const std::vector<std::string>& arguments, int workers = 1) {
    client_.reset();
    for (const pid_t ps : servers_) End(ps);
    servers_.clear();
    StartServers(arguments, workers);
    Connect();
  }
  void Push(const basin::Variable& variable, const DeviceFloats& floats) {
    Ok(client_->Push({From(variable, floats)}).Wait());
  }
  std::vector<float> Pulled(const basin::Variable& variable) {
    std::vector<float> pulled(kElements);
    Ok(client_->Pull({{variable, pulled}}).Wait());
    return pulled;
  }
  // Rows of kKeys keys in the device's memory, from key 0 on.
  void MoveRows(const basin::Table& table, const DeviceFloats* push, const DeviceFloats* pull) {
    basin::Rows rows{.table = &table, .keys = keys_.data(), .count = kKeys, .location = basin::Location::Cuda(0)};
    if (push != nullptr) rows.push = push->data();
    if (pull != nullptr) rows.pull = pull->data();
    Ok(client_->Start({rows}).Wait());
  }
  std::vector<float> PulledRows(const basin::Table& table) {
    std::vector<float> rows(kKeys * table.dim);
    Ok(client_->Pull(table, keys_, rows).Wait());
    return rows;
  }
  static std::vector<uint64_t> FirstKeys() {
    std::vector<uint64_t> keys(kKeys);
    std::iota(keys.begin(), keys.end(), uint64_t{0});
    return keys;
  }
  // What n pushes of ones make of zeros.
  static float After(int pushes) {
    float velocity = 0, value = 0;
    for (int i = 0; i < pushes; ++i) {
      velocity = 0.9f * velocity - 0.5f;
      value += velocity;
    }
    return value;
  }

  static constexpr int kKilled = 4;
  struct Pushes {
    int own = 0;               // of this worker, to its own variable or table
    std::set<float> possible;  // what those of the killed ones may have made of theirs
  };
  // Kills so many other workers, two in the middle of pushes, one of pulls, and one that waits behind a kernel, while
  // this one pushes ones by `push`; their blocks come back. `prefix`: of the workers' modes.
  Pushes KillWorkers(const std::string& prefix, const std::function<void()>& push) {
    Pushes pushes;
    const auto push_own = [&] {
      push();
      ++pushes.own;
    };
    push_own();
    const uint64_t lent = Stat("device_lent_bytes");
    EXPECT_GT(lent, 0u);
    int least = 0, most = 0, index = 0;
    for (const std::string mode : {"push", "push", "pull", "kernel"}) {
      Worker worker(cluster_, ++index, prefix + mode);
      worker.WaitFor(mode == "kernel" ? 2 : 1 + index);
      EXPECT_GT(Stat("device_lent_bytes"), lent);
      const int told = worker.Kill();
      // The push at which it was killed is applied in part, or all of it or nothing.
      least += mode == "push" ? told : 1;
      most += mode == "push" ? told + 1 : 1;
      for (int i = 0; i < 3; ++i) push_own();
      WaitForLent(lent);
    }
    EXPECT_EQ(index, kKilled);
    for (int n = least; n <= most; ++n) pushes.possible.insert(After(n));
    return pushes;
  }

  const std::vector<uint64_t> keys_ = FirstKeys();
};

TEST_P(GpuIpcTest, ThePathIsShown) {
  const DeviceFloats ones(std::vector<float>(kElements, 1)), pulled(kElements);
  Push(*w_, ones);
  Ok(client_->Pull({Into(*w_, pulled)}).Wait());
  EXPECT_EQ(pulled.Read(), std::vector<float>(kElements, After(1)));
  EXPECT_EQ(Stat("ipc_bytes_in"), kElements * sizeof(float));
  EXPECT_EQ(Stat("ipc_bytes_out"), kElements * sizeof(float));
  EXPECT_GT(Stat("device_lent_bytes"), 0u);
}

TEST_P(GpuIpcTest, ThePathOfRowsIsShown) {
  const DeviceFloats ones(std::vector<float>(kKeys * 4, 1)), pulled(kKeys * 4);
  MoveRows(*user_, &ones, nullptr);
  EXPECT_EQ(Stat("ipc_bytes_in"), kKeys * 4 * sizeof(float));
  MoveRows(*user_, &ones, &pulled);
  EXPECT_EQ(pulled.Read(), std::vector<float>(kKeys * 4, After(2)));
  EXPECT_EQ(Stat("ipc_bytes_in"), 2 * kKeys * 4 * sizeof(float));
  EXPECT_EQ(Stat("ipc_bytes_out"), kKeys * 4 * sizeof(float));
}

TEST_P(GpuIpcTest, TwoWorkersAtOnceLoseNothing) {
  StartAgain({"--device", "cuda"}, 2);
  Worker other(cluster_, 1, "many");
  const DeviceFloats ones(std::vector<float>(kElements, 1)), pulled(kElements);
  for (int i = 0; i < 10; ++i) {
    Ok(client_->PushPull({From(*w_, ones)}, {Into(*w_, pulled)}).Wait());
    Push(*reference_, ones);
  }
  EXPECT_EQ(other.Wait(), 0);
  EXPECT_EQ(Pulled(*w_), std::vector<float>(kElements, After(21)));
  EXPECT_EQ(Pulled(*reference_), std::vector<float>(kElements, After(10)));
}

TEST_P(GpuIpcTest, TwoWorkersAtOnceLoseNoRows) {
  StartAgain({"--device", "cuda"}, 2);
  Worker other(cluster_, 1, "rows_many");
  const DeviceFloats ones(std::vector<float>(kKeys * 4, 1)), pulled(kKeys * 4);
  for (int i = 0; i < 10; ++i) MoveRows(*user_, &ones, &pulled);
  EXPECT_EQ(other.Wait(), 0);
  EXPECT_EQ(PulledRows(*user_), std::vector<float>(kKeys * 4, After(21)));
}

TEST_P(GpuIpcTest, AWorkerThatIsKilledLeavesOthersExactAndItsMemoryComesBack) {
  StartAgain({"--device", "cuda"}, 1 + kKilled);
  const DeviceFloats ones(std::vector<float>(kElements, 1)), pulled(kElements);
  const Pushes pushes = KillWorkers("", [&] { Push(*reference_, ones); });
  Ok(client_->Pull({Into(*reference_, pulled)}).Wait());
  EXPECT_EQ(pulled.Read(), std::vector<float>(kElements, After(pushes.own)));
  for (const float value : Pulled(*w_)) ASSERT_TRUE(pushes.possible.contains(value)) << value;
}

TEST_P(GpuIpcTest, AWorkerThatIsKilledInTheMiddleOfRowsLeavesOthersExactAndItsMemoryComesBack) {
  StartAgain({"--device", "cuda"}, 1 + kKilled);
  const DeviceFloats ones(std::vector<float>(kKeys * 4, 1)), pulled(kKeys * 4);
  const Pushes pushes = KillWorkers("rows_", [&] { MoveRows(*user_reference_, &ones, nullptr); });
  MoveRows(*user_reference_, nullptr, &pulled);
  EXPECT_EQ(pulled.Read(), std::vector<float>(kKeys * 4, After(pushes.own)));
  const std::vector<float> rows = PulledRows(*user_);
  for (size_t key = 0; key < kKeys; ++key) {
    ASSERT_TRUE(pushes.possible.contains(rows[key * 4])) << key << " " << rows[key * 4];
    for (size_t column = 1; column < 4; ++column) ASSERT_EQ(rows[key * 4 + column], rows[key * 4]) << key;
  }
}

TEST_P(GpuIpcTest, AWorkerThatEndsWellGivesItsMemoryBack) {
  StartAgain({"--device", "cuda"}, 2);
  const DeviceFloats ones(std::vector<float>(kElements, 1));
  Push(*w_, ones);
  const uint64_t own = Stat("device_lent_bytes");
  Worker worker(cluster_, 1, "once");
  EXPECT_EQ(worker.Wait(), 0);
  WaitForLent(own);
  EXPECT_EQ(Pulled(*w_), std::vector<float>(kElements, After(2)));
}

TEST_P(GpuIpcTest, WhereTheLimitHasNoRoomForItTheBytesGoThroughTheHost) {
  StartAgain({"--device", "cuda", "--device-memory-limit", "64MiB"});
  const DeviceFloats ones(std::vector<float>(kElements, 1)), pulled(kElements);
  Push(*w_, ones);
  Ok(client_->Pull({Into(*w_, pulled)}).Wait());
  EXPECT_EQ(pulled.Read(), std::vector<float>(kElements, After(1)));
  const DeviceFloats rows(std::vector<float>(kKeys * 4, 1));
  MoveRows(*user_, &rows, &rows);
  EXPECT_EQ(rows.Read(), std::vector<float>(kKeys * 4, After(1)));
  EXPECT_EQ(Stat("ipc_bytes_in") + Stat("ipc_bytes_out") + Stat("device_lent_bytes"), 0u);
}

TEST_P(GpuIpcTest, OverTcpTheBytesGoThroughTheHost) {
  StartAgain({"--device", "cuda", "--transport", "tcp"});
  const DeviceFloats ones(std::vector<float>(kElements, 1));
  Push(*w_, ones);
  EXPECT_EQ(Pulled(*w_), std::vector<float>(kElements, After(1)));
  EXPECT_EQ(Stat("ipc_bytes_in") + Stat("device_lent_bytes"), 0u);
}

TEST_P(GpuIpcTest, OfAnotherGpuTheBytesGoThroughTheHost) {
  cudaDeviceProp properties;
  CUDA_OK(cudaGetDeviceProperties(&properties, 0));
  int devices = 0;
  CUDA_OK(cudaGetDeviceCount(&devices));
  const bool emulated = std::string(properties.name).find("emulated") != std::string::npos;
  if (devices < 2 && !emulated) GTEST_SKIP() << "one GPU";
  if (emulated) setenv("BASIN_TEST_CUDA_DEVICES", "2", 1);
  StartAgain({"--device", "cuda:1"});
  unsetenv("BASIN_TEST_CUDA_DEVICES");
  const DeviceFloats ones(std::vector<float>(kElements, 1));
  Push(*w_, ones);
  EXPECT_EQ(Pulled(*w_), std::vector<float>(kElements, After(1)));
  EXPECT_EQ(Stat("ipc_bytes_in") + Stat("device_lent_bytes"), 0u);
}

INSTANTIATE_TEST_SUITE_P(Transports, GpuIpcTest, ::testing::Values("ipc"),
                         [](const auto& transport) { return std::string(transport.param); });

}  // namespace
}  // namespace basin_test
