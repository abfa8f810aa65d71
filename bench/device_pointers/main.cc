// bench_device_pointers: pushes and pulls of device memory between two processes on one GPU: through pinned memory of
// the host to a server whose variables are there, and through CUDA IPC to one whose variables are on the GPU. Exit
// code: 0; 1 a check or CUDA failed; 2 wrong use; 77 there is no device.
#include <basin/client.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bench/kernels/ladder.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/device/cuda_memory.h"

namespace basin {
namespace {

absl::Status FromBasin(const basin::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.code()), status.message());
}

absl::StatusOr<int> FreePort() {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (fd.get() < 0 || bind(fd.get(), generic, size) != 0 || getsockname(fd.get(), generic, &size) != 0) {
    return absl::UnavailableError("no free port on loopback");
  }
  return ntohs(address.sin_port);
}

// basin-ps of the build folder or bundle that this program lies in; it ends with this process.
class Server final {
 public:
  absl::Status Start(const std::string& tf_config, const std::string& device) {
    const std::string program =
        std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "bin" / "basin-ps";
    const char* const arguments[] = {
        program.c_str(), "--tf-config", tf_config.c_str(), "--device", device.c_str(), "--lanes", "1", nullptr};
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      execv(program.c_str(), const_cast<char* const*>(arguments));
      _exit(127);
    }
    return pid_ > 0 ? absl::OkStatus() : absl::UnavailableError(absl::StrCat("cannot start ", program));
  }
  ~Server() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

 private:
  pid_t pid_ = 0;
};

// A server and its one worker, which is this process.
class Pair final {
 public:
  absl::Status Start(const std::string& device, uint64_t elements) {
    BASIN_ASSIGN_OR_RETURN(const int port, FreePort());
    const std::string cluster = absl::StrCat(R"({"cluster": {"ps": ["127.0.0.1:)", port,
                                             R"("], "worker": ["127.0.0.1:1"]}, "task": {"index": 0, "type": )");
    BASIN_RETURN_IF_ERROR(server_.Start(absl::StrCat(cluster, R"("ps"}})"), device));
    Options options;
    options.tf_config = absl::StrCat(cluster, R"("worker"}})");
    options.log = false;
    options.transport = "auto";
    options.start_timeout = std::chrono::seconds(20);
    auto client = Client::Connect(options);
    if (!client.ok()) return FromBasin(client.status());
    client_.emplace(std::move(*client));
    Model model;
    w_.emplace(model.Dense("w", {static_cast<int64_t>(elements)}, Zeros()));
    model.SetRule(Sgd{1});
    return FromBasin(client_->Declare(model));
  }
  Client& client() { return *client_; }
  const Variable& w() const { return *w_; }
  // Whether bytes of the last calls went through CUDA IPC, as the server counts them.
  absl::StatusOr<bool> UsedIpc() {
    Result<std::string> stats = client_->Stats();
    if (!stats.ok()) return FromBasin(stats.status());
    return !absl::StrContains(*stats, "\"ipc_bytes_in\": 0,") && !absl::StrContains(*stats, "\"ipc_bytes_in\":0,");
  }

 private:
  Server server_;
  std::optional<Client> client_;
  std::optional<Variable> w_;
};

absl::Status Same(const std::vector<float>& found, float expected) {
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] != expected) {
      return absl::InternalError(absl::StrCat("element ", i, " is ", found[i], ", expected ", expected));
    }
  }
  return absl::OkStatus();
}

absl::Status RunSteps(Ladders& ladders, const std::string& name, const std::string& device, const std::string& gain,
                      uint64_t bytes) {
  const uint64_t elements = bytes / sizeof(float);
  Pair pair;
  BASIN_RETURN_IF_ERROR(pair.Start(device, elements));
  CudaMemory gradient, pulled;
  for (CudaMemory* memory : {&gradient, &pulled}) BASIN_RETURN_IF_ERROR(memory->Resize("cuda", bytes));
  const std::vector<float> ones(elements, 1);
  BASIN_RETURN_IF_ERROR(
      CheckCuda(cudaMemcpy(gradient.data(), ones.data(), bytes, cudaMemcpyHostToDevice), "upload a gradient"));
  // From ordinary memory it may return before the last bytes are there, and the client's streams do not wait for it.
  BASIN_RETURN_IF_ERROR(CheckCuda(cudaDeviceSynchronize(), "upload a gradient"));
  const Stream stream = Stream::Cuda(ladders.stream());
  const Location there = Location::Cuda(0);
  int pushes = 0;
  const auto wait = [&](Call call) {
    BASIN_RETURN_IF_ERROR(FromBasin(call.OrderBefore(stream)));
    return FromBasin(call.Wait());
  };
  std::vector<float> found(elements);
  LadderStep push{.ladder = absl::StrCat("device_push/bytes:", bytes), .name = name, .gain = gain};
  push.bytes = 2.0 * static_cast<double>(bytes);  // read and written once
  push.items = static_cast<double>(elements);
  push.work = [&] {
    ++pushes;
    return wait(pair.client().Push({{pair.w(), gradient.as<float>(), elements, there}}, stream));
  };
  push.check = [&]() -> absl::Status {
    BASIN_RETURN_IF_ERROR(FromBasin(pair.client().Pull({{pair.w(), found}}).Wait()));
    BASIN_RETURN_IF_ERROR(Same(found, static_cast<float>(-pushes)));
    BASIN_ASSIGN_OR_RETURN(const bool used_ipc, pair.UsedIpc());
    if (used_ipc == (name == "ipc")) return absl::OkStatus();
    return absl::InternalError(used_ipc ? "its bytes went through CUDA IPC" : "its bytes went through the host");
  };
  BASIN_RETURN_IF_ERROR(ladders.Run(push));
  LadderStep pull = push;
  pull.ladder = absl::StrCat("device_pull/bytes:", bytes);
  pull.work = [&] { return wait(pair.client().Pull({{pair.w(), pulled.as<float>(), elements, there}}, stream)); };
  pull.check = [&]() -> absl::Status {
    BASIN_RETURN_IF_ERROR(
        CheckCuda(cudaMemcpy(found.data(), pulled.data(), bytes, cudaMemcpyDeviceToHost), "read what was pulled"));
    return Same(found, static_cast<float>(-pushes));
  };
  return ladders.Run(pull);
}

absl::Status RunAll(Ladders& ladders) {
  BASIN_RETURN_IF_ERROR(ladders.MeasureCopy());
  for (const uint64_t bytes : {uint64_t{4} << 10, ladders.options().bytes}) {
    BASIN_RETURN_IF_ERROR(
        RunSteps(ladders, "host", "cpu", "copies through pinned memory that the server reads", bytes));
    BASIN_RETURN_IF_ERROR(
        RunSteps(ladders, "ipc", "cuda:0", "the server has lent memory of the GPU: no byte comes to the host", bytes));
    BASIN_RETURN_IF_ERROR(ladders.MeasureCopy());
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  LadderOptions options;
  options.bytes = uint64_t{64} << 20;
  std::string json_file;
  CLI::App app("Pushes and pulls of device memory between two processes on one GPU");
  app.add_option("--json", json_file, "write the results to this file");
  app.add_option("--seconds", options.seconds, "repeat each step for so long, and at least 5 times")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--bytes", options.bytes, "of the large variable; the small one has 4 KiB")
      ->check(CLI::Range(4096.0, 1e9));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  int devices = 0;
  if (const cudaError_t found = cudaGetDeviceCount(&devices); found != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "bench_device_pointers: no device: %s\n", cudaGetErrorString(found));
    return 77;
  }
  cudaStream_t stream = nullptr;
  absl::Status status = CheckCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
  Ladders ladders(options, stream);
  if (status.ok()) status = RunAll(ladders);
  std::fputs(ladders.Text().c_str(), stdout);
  if (!json_file.empty()) {
    nlohmann::json json = ladders.Json();
    json["failure"] = status.ok() ? nlohmann::json() : nlohmann::json(std::string(status.message()));
    std::ofstream file(json_file);
    file << json.dump(1) << "\n";
    if (!file.flush()) {
      std::fprintf(stderr, "bench_device_pointers: cannot write %s\n", json_file.c_str());
      return 1;
    }
  }
  if (!status.ok()) std::fprintf(stderr, "bench_device_pointers: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace basin

int main(int argc, char** argv) { return basin::Main(argc, argv); }
