// bench_kernels: the kernel ladders of bench/kernels. Exit code: 0; 1 a check or CUDA failed; 2 wrong use; 77 there is
// no device, and --cpu was not given.
#include <cuda_runtime_api.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <string>

#include "bench/kernels/ladder.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr int kSkipped = 77;

// A ladder that fails leaves the others to run; the first failure is the result.
absl::Status RunAll(Ladders& ladders) {
  absl::Status status;
  const auto measure_copy = [&] {
    if (ladders.options().device) status.Update(ladders.MeasureCopy());
  };
  measure_copy();
  status.Update(RunApplyLadders(ladders));
  measure_copy();
  status.Update(RunMergeLadder(ladders));
  status.Update(RunTableLadder(ladders));
  measure_copy();
  ladders.NotMeasured("conversion of float32 to bfloat16 on the device");
  if (!ladders.options().device) ladders.NotMeasured("all kernels: no device");
  if (!ladders.options().cpu) ladders.NotMeasured("the CPU's steps: --cpu");
  return status;
}

int Main(int argc, char** argv) {
  LadderOptions options;
  std::string json_file;
  CLI::App app("Kernel ladders: the same work on the CPU, by a naive kernel and by the one that Basin uses");
  app.add_flag("--cpu", options.cpu, "the CPU's steps, too; alone where there is no device");
  app.add_option("--json", json_file, "write the results to this file");
  app.add_option("--only", options.only, "ladders whose names hold this: apply, merge, table_find, ...");
  app.add_option("--seconds", options.seconds, "repeat each step for so long, and at least 5 times")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--bytes", options.bytes, "of parameters that rules are applied to")->check(CLI::Range(4096.0, 1e11));
  app.add_option("--keys", options.keys, "of the batch that is merged")->check(CLI::Range(1.0, 1e8));
  app.add_option("--rows", options.rows, "of the table; fewer where they do not fit")->check(CLI::Range(1.0, 2e9));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  int devices = 0;
  const cudaError_t found = cudaGetDeviceCount(&devices);
  options.device = found == cudaSuccess && devices > 0;
  if (!options.device) {
    std::fprintf(stderr, "bench_kernels: no device: %s%s\n", cudaGetErrorString(found),
                 options.cpu ? "; the CPU's steps alone" : "; --cpu runs the CPU's steps");
    if (!options.cpu) return kSkipped;
  }
  std::string name = "none";
  cudaStream_t stream = nullptr;
  absl::Status status;
  if (options.device) {
    cudaDeviceProp properties = {};
    status = CheckCuda(cudaGetDeviceProperties(&properties, 0), "ask for the device's name");
    name = properties.name;
    if (status.ok()) status = CheckCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
  }
  Ladders ladders(options, stream);
  if (status.ok()) status = RunAll(ladders);
  std::fputs(ladders.Text().c_str(), stdout);
  if (!json_file.empty()) {
    nlohmann::json json = ladders.Json();
    json["device"] = name;
    json["failure"] = status.ok() ? nlohmann::json() : nlohmann::json(std::string(status.message()));
    std::ofstream file(json_file);
    file << json.dump(1) << "\n";
    if (!file.flush()) {
      std::fprintf(stderr, "bench_kernels: cannot write %s\n", json_file.c_str());
      return 1;
    }
  }
  if (!status.ok()) std::fprintf(stderr, "bench_kernels: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace basin

int main(int argc, char** argv) { return basin::Main(argc, argv); }
