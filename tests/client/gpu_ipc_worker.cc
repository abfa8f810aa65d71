// A worker of gpu_ipc_test's clusters, which ends it by SIGKILL in the middle of what MODE says:
//
//   gpu_ipc_worker TF_CONFIG COUNT MODE FD
//
//   once     one push, and a good end
//   many     ten pushes more, each with a pull
//   push     pushes without end
//   pull     one push, then pulls without end
//   kernel   one push, then a push and a pull behind something on the stream that does not end
//
// Of the variable "w", which has so many elements, or, where MODE begins with "rows_", of rows of so many keys of the
// table "user", from key 0 on; each push is of ones. For each that is done, and each pull of `pull`, a byte goes
// into FD, and one when the calls of `kernel` are started. Exit code: 0 a good end, 1 an error, which it names.
#include <basin/client.h>
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

namespace {

void Check(bool ok, const std::string& what) {
  if (ok) return;
  std::fprintf(stderr, "gpu_ipc_worker: %s\n", what.c_str());
  std::exit(1);
}
void Ok(const basin::Status& status) { Check(status.ok(), status.message()); }
void Ok(cudaError_t error) { Check(error == cudaSuccess, cudaGetErrorString(error)); }

float* OnDevice(const std::vector<float>& values) {
  void* there = nullptr;
  Ok(cudaMalloc(&there, values.size() * sizeof(float)));
  Ok(cudaMemcpy(there, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice));
  Ok(cudaDeviceSynchronize());
  return static_cast<float*>(there);
}

}  // namespace

int main(int argc, char** argv) {
  Check(argc == 5, "expected TF_CONFIG COUNT MODE FD");
  const size_t count = std::strtoull(argv[2], nullptr, 10);
  std::string mode = argv[3];
  const bool of_rows = mode.starts_with("rows_");
  if (of_rows) mode.erase(0, 5);
  const int tells = std::atoi(argv[4]);
  const auto tell = [tells] { Check(write(tells, ".", 1) == 1, "nobody listens"); };

  basin::Options options;
  options.tf_config = argv[1];
  options.log = false;
  auto connected = basin::Client::Connect(options);
  Ok(connected.status());
  basin::Client client = std::move(*connected);
  // Part of what the test declares.
  basin::Model model;
  std::optional<basin::Variable> w;
  std::optional<basin::Table> user;
  if (of_rows) {
    user.emplace(model.Table("user", {.dim = 4, .max_bytes = 4 << 20}));
  } else {
    w.emplace(model.Dense("w", {static_cast<int64_t>(count)}, basin::Zeros()));
  }
  model.SetRule(basin::Momentum{0.5f});
  Ok(client.Declare(model));

  const basin::Location there = basin::Location::Cuda(0);
  const size_t floats = of_rows ? count * user->dim : count;
  float* const ones = OnDevice(std::vector<float>(floats, 1));
  float* const pulled = OnDevice(std::vector<float>(floats));
  std::vector<uint64_t> keys(of_rows ? count : 0);
  std::iota(keys.begin(), keys.end(), uint64_t{0});
  const auto start = [&](const float* from, float* into, const basin::Stream& stream) {
    if (of_rows) {
      return client.Start(
          {{.table = &*user, .keys = keys.data(), .count = count, .push = from, .pull = into, .location = there}},
          stream);
    }
    if (into == nullptr) return client.Push({{*w, from, count, there}}, stream);
    if (from == nullptr) return client.Pull({{*w, into, count, there}}, stream);
    return client.PushPull({{*w, from, count, there}}, {{*w, into, count, there}}, stream);
  };
  const auto push = [&] { Ok(start(ones, nullptr, {}).Wait()); };
  do {
    push();
    tell();
  } while (mode == "push");
  while (mode == "pull") {
    Ok(start(nullptr, pulled, {}).Wait());
    tell();
  }
  if (mode == "kernel") {
    cudaStream_t handle = nullptr;
    Ok(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking));
    const basin::Stream stream = basin::Stream::Cuda(handle);
    Ok(cudaLaunchHostFunc(
        handle,
        [](void*) {
          for (;;) pause();
        },
        nullptr));
    basin::Call pushing = start(ones, nullptr, stream), pulling = start(nullptr, pulled, stream);
    tell();
    Ok(pushing.Wait());
  }
  for (int i = 0; mode == "many" && i < 10; ++i) Ok(start(ones, pulled, {}).Wait());
  return 0;
}
