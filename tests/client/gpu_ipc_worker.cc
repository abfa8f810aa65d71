// A worker of gpu_ipc_test's clusters, which ends it by SIGKILL in the middle of what MODE says:
//
//   gpu_ipc_worker TF_CONFIG ELEMENTS MODE FD
//
//   once     one push, and a good end
//   many     ten pushes more, each with a pull
//   push     pushes without end
//   pull     one push, then pulls without end
//   kernel   one push, then a push and a pull behind something on the stream that does not end
//
// Variable "w" of so many elements; each push is of ones. For each that is done, and each pull of `pull`, a byte goes
// into FD, and one when the calls of `kernel` are started. Exit code: 0 a good end, 1 an error, which it names.
#include <basin/client.h>
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
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
  Check(argc == 5, "expected TF_CONFIG ELEMENTS MODE FD");
  const size_t elements = std::strtoull(argv[2], nullptr, 10);
  const std::string mode = argv[3];
  const int tells = std::atoi(argv[4]);
  const auto tell = [tells] { Check(write(tells, ".", 1) == 1, "nobody listens"); };

  basin::Options options;
  options.tf_config = argv[1];
  options.log = false;
  auto connected = basin::Client::Connect(options);
  Ok(connected.status());
  basin::Client client = std::move(*connected);
  basin::Model model;
  const basin::Variable w = model.Dense("w", {static_cast<int64_t>(elements)}, basin::Zeros());
  model.SetRule(basin::Momentum{0.5f});
  Ok(client.Declare(model));

  const basin::Location there = basin::Location::Cuda(0);
  const basin::Source ones(w, OnDevice(std::vector<float>(elements, 1)), elements, there);
  const basin::Target pulled(w, OnDevice(std::vector<float>(elements)), elements, there);
  const auto push = [&] { Ok(client.Push({ones}).Wait()); };
  do {
    push();
    tell();
  } while (mode == "push");
  while (mode == "pull") {
    Ok(client.Pull({pulled}).Wait());
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
    basin::Call pushing = client.Push({ones}, stream), pulling = client.Pull({pulled}, stream);
    tell();
    Ok(pushing.Wait());
  }
  for (int i = 0; mode == "many" && i < 10; ++i) Ok(client.PushPull({ones}, {pulled}).Wait());
  return 0;
}
