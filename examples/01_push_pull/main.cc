// Fits y = 3 x + 1 with any number of workers: the smallest complete training program.
#include <basin/client.h>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  auto client = basin::Client::Connect(basin::Options::FromEnvironment());
  if (!client.ok()) return basin::Exit(client.status());
  basin::Model model;
  auto line = model.Dense("line", {2}, basin::Zeros());  // slope, offset
  model.SetRule(basin::Sgd{0.5f});
  if (auto s = client->Declare(model); !s.ok()) return basin::Exit(s);
  std::vector<float> p(2), gradient(2);
  for (int step = 0; step < 300; ++step) {
    if (auto s = client->Pull({{line, p}}).Wait(); !s.ok()) return basin::Exit(s);
    gradient = {0, 0};
    float loss = 0;
    for (float x = 0; x < 1; x += 0.0625f) {  // mean squared error over 16 points
      const float error = p[0] * x + p[1] - (3 * x + 1);
      loss += error * error / 16;
      gradient[0] += 2 * error * x / 16;
      gradient[1] += 2 * error / 16;
    }
    if (auto s = client->Push({{line, gradient}}).Wait(); !s.ok()) return basin::Exit(s);
    if (auto s = client->Step({{"loss", loss}}); !s.ok()) return basin::Exit(s);
  }
  if (auto s = client->Pull({{line, p}}).Wait(); !s.ok()) return basin::Exit(s);
  std::printf("%s %u: y = %.3f x + %.3f\n", client->role().c_str(), client->index(), p[0], p[1]);
  if (auto s = client->Barrier("done"); !s.ok()) return basin::Exit(s);
  if (std::fabs(p[0] - 3) > 0.01f || std::fabs(p[1] - 1) > 0.01f)
    return basin::Exit(client->Finish("the line does not fit"));
  return basin::Exit(client->Finish());
}
