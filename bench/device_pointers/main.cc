// bench_device_pointers: pushes and pulls of device memory, variables and rows of a table, between two processes on one
// GPU: through pinned memory of the host to a server that has them there, and through CUDA IPC to one that has them on
// the GPU. Exit code: 0; 1 a check or CUDA failed; 2 wrong use; 77 there is no device.
#include <basin/client.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "bench/harness/cluster.h"
#include "bench/harness/process.h"
#include "bench/kernels/ladder.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_memory.h"
#include "worker/model_file.h"

namespace basin {
namespace {

constexpr uint32_t kDim = 64;
constexpr uint64_t kRowBytes = kDim * sizeof(float);

// Of a device's table that so many rows fill by half: each has its key and time beside it.
uint64_t TableBytes(uint64_t rows) { return (rows * 2 + 4096) * (kRowBytes + 12); }

// A server and its one worker, which is this process.
class Pair final {
 public:
  // `folder` is for the server's log.
  absl::Status Start(const std::string& folder, const std::string& device, uint64_t elements) {
    BASIN_ASSIGN_OR_RETURN(cluster_, bench::Cluster::Start({.device = device}, folder));
    Options options;
    options.tf_config = cluster_->Environment(0).front().second;
    options.log = false;
    options.start_timeout = std::chrono::seconds(20);
    auto client = Client::Connect(options);
    if (!client.ok()) return ToAbslStatus(client.status());
    client_.emplace(std::move(*client));
    Model model;
    w_.emplace(model.Dense("w", {static_cast<int64_t>(elements)}, Zeros()));
    table_.emplace(model.Table("t", {.dim = kDim, .max_bytes = TableBytes(elements / kDim)}));
    model.SetRule(Sgd{1});
    return ToAbslStatus(client_->Declare(model));
  }
  Client& client() { return *client_; }
  const Variable& w() const { return *w_; }
  const Table& table() const { return *table_; }
  // Bytes of gradients that came through CUDA IPC, as the server counts them.
  absl::StatusOr<uint64_t> IpcBytes() {
    Result<std::string> stats = client_->Stats();
    if (!stats.ok()) return ToAbslStatus(stats.status());
    const nlohmann::json json = nlohmann::json::parse(*stats, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) return absl::InternalError("the server's stats are no JSON");
    return json["ps"][0].value("ipc_bytes_in", uint64_t{0});
  }

 private:
  std::unique_ptr<bench::Cluster> cluster_;
  std::optional<Client> client_;
  std::optional<Variable> w_;
  std::optional<Table> table_;
};

absl::Status Same(const std::vector<float>& found, float expected) {
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] != expected) {
      return absl::InternalError(absl::StrCat("element ", i, " is ", found[i], ", expected ", expected));
    }
  }
  return absl::OkStatus();
}

// What a ladder's step does to one of the two.
struct Moved {
  std::string ladder;  // begins with this
  uint64_t items = 0;  // elements, rows
  std::function<Call(const Stream&)> push, pull;
  std::function<Call(std::vector<float>&)> pull_to_host;
};

// `bytes` of gradients, all ones, and as many of parameters, which begin as zeros; `pulled` is where they come to.
absl::Status RunPushAndPull(Ladders& ladders, Pair& pair, const std::string& name, const std::string& gain,
                            const Moved& moved, uint64_t bytes, const CudaMemory& pulled) {
  BASIN_ASSIGN_OR_RETURN(const uint64_t ipc_before, pair.IpcBytes());
  const Stream stream = Stream::Cuda(ladders.stream());
  int pushes = 0;
  const auto wait = [&](Call call) {
    BASIN_RETURN_IF_ERROR(ToAbslStatus(call.OrderBefore(stream)));
    return ToAbslStatus(call.Wait());
  };
  std::vector<float> found(bytes / sizeof(float));
  LadderStep push{.ladder = absl::StrCat(moved.ladder, "_push/bytes:", bytes), .name = name, .gain = gain};
  push.bytes = 2.0 * static_cast<double>(bytes);  // read and written once
  push.items = static_cast<double>(moved.items);
  push.work = [&] {
    ++pushes;
    return wait(moved.push(stream));
  };
  push.check = [&]() -> absl::Status {
    BASIN_RETURN_IF_ERROR(ToAbslStatus(moved.pull_to_host(found).Wait()));
    BASIN_RETURN_IF_ERROR(Same(found, static_cast<float>(-pushes)));
    BASIN_ASSIGN_OR_RETURN(const uint64_t ipc_bytes, pair.IpcBytes());
    if ((ipc_bytes > ipc_before) == (name == "ipc")) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(ipc_bytes - ipc_before, " of its bytes went through CUDA IPC"));
  };
  BASIN_RETURN_IF_ERROR(ladders.Run(push));
  LadderStep pull = push;
  pull.ladder = absl::StrCat(moved.ladder, "_pull/bytes:", bytes);
  pull.work = [&] { return wait(moved.pull(stream)); };
  pull.check = [&]() -> absl::Status {
    BASIN_RETURN_IF_ERROR(
        CheckCuda(cudaMemcpy(found.data(), pulled.data(), bytes, cudaMemcpyDeviceToHost), "read what was pulled"));
    return Same(found, static_cast<float>(-pushes));
  };
  return ladders.Run(pull);
}

absl::Status RunSteps(Ladders& ladders, const std::string& folder, const std::string& name, const std::string& device,
                      const std::string& gain, uint64_t bytes) {
  const uint64_t elements = bytes / sizeof(float), rows = bytes / kRowBytes;
  Pair pair;
  BASIN_RETURN_IF_ERROR(pair.Start(folder, device, elements));
  CudaMemory gradient, pulled, keys;
  for (CudaMemory* memory : {&gradient, &pulled}) BASIN_RETURN_IF_ERROR(memory->Resize("cuda", bytes));
  BASIN_RETURN_IF_ERROR(keys.Resize("cuda", rows * sizeof(uint64_t)));
  const std::vector<float> ones(elements, 1);
  std::vector<uint64_t> different(rows);
  for (uint64_t i = 0; i < rows; ++i) different[i] = i * 0x9e3779b97f4a7c15ull;
  BASIN_RETURN_IF_ERROR(
      CheckCuda(cudaMemcpy(gradient.data(), ones.data(), bytes, cudaMemcpyHostToDevice), "upload a gradient"));
  BASIN_RETURN_IF_ERROR(
      CheckCuda(cudaMemcpy(keys.data(), different.data(), keys.bytes(), cudaMemcpyHostToDevice), "upload keys"));
  // From ordinary memory it may return before the last bytes are there, and the client's streams do not wait for it.
  BASIN_RETURN_IF_ERROR(CheckCuda(cudaDeviceSynchronize(), "upload a gradient"));
  const Location there = Location::Cuda(0);
  Client& client = pair.client();
  const Moved variable = {.ladder = "device",
                          .items = elements,
                          .push =
                              [&](const Stream& stream) {
                                return client.Push({{pair.w(), gradient.as<float>(), elements, there}}, stream);
                              },
                          .pull =
                              [&](const Stream& stream) {
                                return client.Pull({{pair.w(), pulled.as<float>(), elements, there}}, stream);
                              },
                          .pull_to_host =
                              [&](std::vector<float>& into) {
                                return client.Pull({{pair.w(), into}});
                              }};
  BASIN_RETURN_IF_ERROR(RunPushAndPull(ladders, pair, name, gain, variable, bytes, pulled));
  const auto move = [&](const float* push, float* pull, const Stream& stream) {
    return client.Start({{.table = &pair.table(),
                          .keys = keys.as<uint64_t>(),
                          .count = rows,
                          .push = push,
                          .pull = pull,
                          .location = there,
                          .keys_location = there}},
                        stream);
  };
  const Moved table = {
      .ladder = "device_rows",
      .items = rows,
      .push = [&](const Stream& stream) { return move(gradient.as<float>(), nullptr, stream); },
      .pull = [&](const Stream& stream) { return move(nullptr, pulled.as<float>(), stream); },
      .pull_to_host = [&](std::vector<float>& into) { return client.Pull(pair.table(), different, into); }};
  return RunPushAndPull(ladders, pair, name, gain, table, rows * kRowBytes, pulled);
}

absl::Status RunAll(Ladders& ladders) {
  BASIN_ASSIGN_OR_RETURN(const bench::TemporaryFolder folder, bench::TemporaryFolder::Make());
  BASIN_RETURN_IF_ERROR(ladders.MeasureCopy());
  for (const uint64_t bytes : {uint64_t{4} << 10, ladders.options().bytes}) {
    BASIN_RETURN_IF_ERROR(
        RunSteps(ladders, folder.path(), "host", "cpu", "copies through pinned memory that the server reads", bytes));
    BASIN_RETURN_IF_ERROR(RunSteps(ladders, folder.path(), "ipc", "cuda:0",
                                   "the server has lent memory of the GPU: no byte comes to the host", bytes));
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
  app.add_option("--bytes", options.bytes, "of the large variable, and of as many rows; the small one has 4 KiB")
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
