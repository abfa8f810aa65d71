// Hunts torn reads. A worker (TF_CONFIG) pushes gradients of one value each, so that all elements of a shard are always
// equal, and at its end every element is the sum of all; it ends once the file is there that is named after the number
// of pushes. A reader (--observe ps-address) pulls all the while and looks at every shard it gets. Exit code 3: a shard
// had two values at once, or the sum is wrong.
#include <basin/basin.h>
#include <basin/client.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kElements = 3'000'000;  // several shards, the last one not full
constexpr int kShard = (1 << 20) / sizeof(float);

// Whether each shard is uniform; tells the first place where one is not. What is not a whole shard is cut evenly, so
// only places where a value may change are known: at most one change a shard's length.
bool Uniform(const float* values, int pull) {
  int last_change = 0;
  for (int i = 1; i < kElements; ++i) {
    if (values[i] == values[i - 1]) continue;
    if (i - last_change < kShard / 2) {
      std::printf("pull %d: torn: element %d is %.0f, element %d is %.0f, and the change before is at %d\n", pull,
                  i - 1, values[i - 1], i, values[i], last_change);
      return false;
    }
    last_change = i;
  }
  return true;
}

int Read(const char* address, int pulls) {
  basin::Options options = basin::Options::FromEnvironment();
  options.tf_config.clear();
  options.ps_address = address;
  options.observer = true;
  auto client = basin::Client::Connect(options);
  if (!client.ok()) return basin::Exit(client.status());
  basin::Model model;
  const auto variable = model.Dense("v", {kElements}, basin::Zeros());
  model.SetRule(basin::Sgd{1.0f});
  if (auto s = client->Declare(model); !s.ok()) return basin::Exit(s);
  std::vector<float> values(kElements);
  int changed = 0;
  float before = 0;
  for (int i = 0; i < pulls; ++i) {
    if (auto s = client->Pull({{variable, values}}).Wait(); !s.ok()) return basin::Exit(s);
    if (!Uniform(values.data(), i)) return 3;
    changed += values[0] != before ? 1 : 0;
    before = values[0];
  }
  std::printf("%d pulls, %d of them saw something new, none was torn\n", pulls, changed);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "--observe") == 0) return Read(argv[2], std::atoi(argv[3]));
  if (argc != 3) return 64;
  const int pushes = std::atoi(argv[1]);
  auto client = basin::Client::Connect(basin::Options::FromEnvironment());
  if (!client.ok()) return basin::Exit(client.status());
  basin::Model model;
  const auto variable = model.Dense("v", {kElements}, basin::Zeros());
  model.SetRule(basin::Sgd{1.0f});
  if (auto s = client->Declare(model); !s.ok()) return basin::Exit(s);
  // Two gradients in memory that is read where it lies, each filled anew as soon as its push is done: what reads it
  // later than that is seen as well.
  float* gradients[2];
  for (float*& gradient : gradients) gradient = static_cast<float*>(basin_allocate(kElements * sizeof(float)));
  double sum = 0;
  for (int i = 0; i < pushes; ++i) {
    float* gradient = gradients[i % 2];
    const auto value = static_cast<float>(1 + i % 3);
    for (int j = 0; j < kElements; ++j) gradient[j] = -value;
    sum += value;
    basin::Call first = client->Push({{variable, gradient, kElements}});
    if (auto s = first.Wait(); !s.ok()) return basin::Exit(s);
    for (int j = 0; j < kElements; ++j) gradient[j] = -1000.0f * static_cast<float>(j % 7);
  }
  if (auto s = client->Barrier("pushed"); !s.ok()) return basin::Exit(s);
  while (access(argv[2], F_OK) != 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::vector<float> values(kElements);
  if (auto s = client->Pull({{variable, values}}).Wait(); !s.ok()) return basin::Exit(s);
  const double expected = sum * client->worker_count();
  for (int j = 0; j < kElements; ++j) {
    if (values[j] == static_cast<float>(expected)) continue;
    std::printf("element %d is %.0f, expected %.0f\n", j, values[j], expected);
    return 3;
  }
  std::printf("every element is %.0f\n", expected);
  for (float* gradient : gradients) basin_deallocate(gradient);
  return basin::Exit(client->Finish());
}
