// Leaves while large pushes are under way: after Close the buffers are the caller's again, whatever the server does.
// usage: test_lent_buffers HOLD: pushes once the file HOLD exists. Exit code 3: a call did not end as it should.
#include <basin/client.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 2) return 64;
  constexpr int64_t kElements = int64_t{8} << 20;
  std::optional<basin::Call> calls[3];
  std::vector<float> ordinary(kElements);
  auto* registered = static_cast<float*>(basin_allocate(kElements * sizeof(float)));
  {
    auto client = basin::Client::Connect(basin::Options::FromEnvironment());
    if (!client.ok()) return basin::Exit(client.status());
    basin::Model model;
    const auto w = model.Dense("w", {kElements}, basin::Zeros());
    model.SetRule(basin::Sgd{1});
    if (auto s = client->Declare(model); !s.ok()) return basin::Exit(s);
    std::printf("declared\n");
    std::fflush(stdout);
    while (access(argv[1], F_OK) != 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    calls[0].emplace(client->Push({{w, ordinary}}));
    calls[1].emplace(client->Push({{w, registered, kElements}}));
    calls[2].emplace(client->Push({{w, ordinary}}));
    if (calls[2]->WaitFor(std::chrono::milliseconds(100)).code() != BASIN_DEADLINE_EXCEEDED) return 3;
  }
  // Whoever still read them would now read freed memory.
  std::vector<float>().swap(ordinary);
  basin_deallocate(registered);
  for (auto& call : calls) {
    if (call->Wait().code() != BASIN_CANCELLED) return 3;
  }
  return 0;
}
