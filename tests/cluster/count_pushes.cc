// Counts pushes: a variable of zeros, a gradient of ones, SGD with rate 1. After P pushes of each of W workers every
// element is exactly -P * W; a push that was lost or applied twice shows. Exit code 3: the count is wrong.
#include <basin/client.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Flags {
  int pushes = 100;
  int elements = 2;
  int workers = 0;   // 0: as many as TF_CONFIG names
  std::string hold;  // wait half-way until this file exists
  double claim_timeout = 30, unreachable_timeout = 60, start_timeout = 600;
};

bool Read(int argc, char** argv, Flags& flags) {
  std::map<std::string, std::string> given;
  for (int i = 1; i + 1 < argc; i += 2) given[argv[i]] = argv[i + 1];
  for (const auto& [name, value] : given) {
    if (name == "--pushes")
      flags.pushes = std::atoi(value.c_str());
    else if (name == "--elements")
      flags.elements = std::atoi(value.c_str());
    else if (name == "--workers")
      flags.workers = std::atoi(value.c_str());
    else if (name == "--hold")
      flags.hold = value;
    else if (name == "--claim-timeout")
      flags.claim_timeout = std::atof(value.c_str());
    else if (name == "--unreachable-timeout")
      flags.unreachable_timeout = std::atof(value.c_str());
    else if (name == "--start-timeout")
      flags.start_timeout = std::atof(value.c_str());
    else
      return false;
  }
  return argc % 2 == 1;
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  if (!Read(argc, argv, flags)) return 64;
  basin::Options options = basin::Options::FromEnvironment();
  options.claim_timeout = std::chrono::duration<double>(flags.claim_timeout);
  options.unreachable_timeout = std::chrono::duration<double>(flags.unreachable_timeout);
  options.start_timeout = std::chrono::duration<double>(flags.start_timeout);
  auto client = basin::Client::Connect(options);
  if (!client.ok()) return basin::Exit(client.status());
  basin::Model model;
  const auto count = model.Dense("count", {flags.elements}, basin::Zeros());
  model.SetRule(basin::Sgd{1.0f});
  if (auto s = client->Declare(model); !s.ok()) return basin::Exit(s);

  const std::vector<float> ones(flags.elements, 1.0f);
  std::vector<float> values(flags.elements);
  for (int i = 0; i < flags.pushes; ++i) {
    if (i == flags.pushes / 2 && !flags.hold.empty()) {
      std::printf("half-way in run %s\n", client->run_id().c_str());
      std::fflush(stdout);
      while (access(flags.hold.c_str(), F_OK) != 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    // Every other push pulls too, so that both kinds of answers can be lost.
    auto call = i % 2 == 0 ? client->Push({{count, ones}}) : client->PushPull({{count, ones}}, {{count, values}});
    if (auto s = call.Wait(); !s.ok()) return basin::Exit(s);
    if (auto s = client->Step({{"pushes", i + 1.0}}); !s.ok()) return basin::Exit(s);
  }
  if (auto s = client->Barrier("counted"); !s.ok()) return basin::Exit(s);
  if (auto s = client->Pull({{count, values}}).Wait(); !s.ok()) return basin::Exit(s);
  const float expected = -static_cast<float>(flags.pushes) *
                         static_cast<float>(flags.workers > 0 ? flags.workers : client->worker_count());
  for (int i = 0; i < flags.elements; ++i) {
    if (values[i] == expected) continue;
    std::printf("%s %u: element %d is %.0f, expected %.0f\n", client->role().c_str(), client->index(), i, values[i],
                expected);
    return 3;
  }
  std::printf("%s %u: every element is %.0f\n", client->role().c_str(), client->index(), expected);
  if (auto s = client->Barrier("read"); !s.ok()) return basin::Exit(s);
  return basin::Exit(client->Finish());
}
