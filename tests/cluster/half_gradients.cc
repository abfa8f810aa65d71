// What happens to gradients in 16 bits, number by number: those that are given in 16 bits, those that the library
// rounds (BASIN_GRADIENT_DTYPE=float16), and those that are refused. Prints the refusals. Exit code 3: a number is
// wrong.
#include <basin/client.h>

#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

namespace {

constexpr float kTenth = 0.1f, kTenthInFloat16 = 0.0999755859375f;
constexpr int64_t kLarge = 300'000;
constexpr int kCalls = 24;

bool Is(const char* what, const std::vector<float>& found, const std::vector<float>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (i < found.size() && found[i] == expected[i]) continue;
    std::printf("%s: element %zu is %.9g, expected %.9g\n", what, i, static_cast<double>(found[i]),
                static_cast<double>(expected[i]));
    return false;
  }
  return true;
}

struct Test {
  basin::Client& client;
  basin::Variable w, total, large;
  basin::Table rows;

  std::vector<float> Pull(const basin::Variable& variable) {
    std::vector<float> values(static_cast<size_t>(variable.shape[0]));
    if (!client.Pull({{variable, values}}).Wait().ok()) values.clear();
    return values;
  }
  // One call of the C ABI over w, as a push or an assignment; its outcome.
  basin_status Start(void* data, basin_dtype type, bool assign = false) {
    int64_t shape = w.shape[0];
    const basin_tensor tensor = {data, {1, 0}, 1, type, &shape, nullptr, 0};
    const basin_item item = {w.id, assign ? nullptr : &tensor, assign ? &tensor : nullptr, nullptr};
    basin_call* call = nullptr;
    basin_status status = {};
    if (basin_start(client.get(), &item, 1, &call, &status) == BASIN_OK) basin_call_wait(call, -1, &status);
    basin_call_free(call);
    return status;
  }

  bool WhatIsGivenIn16BitsIsTakenAsItIs() {
    uint16_t float16[] = {0x3c00, 0x4000, 0x4200, 0x4400}, bfloat16[] = {0x3f80, 0x4000, 0x4040, 0x4080};
    if (Start(float16, {2, 16, 1}).code != BASIN_OK || Start(bfloat16, {4, 16, 1}).code != BASIN_OK) return false;
    return Is("given", Pull(w), {-2, -4, -6, -8});
  }

  bool Float32IsRounded() {
    std::vector<float> gradient(4, kTenth), pulled(4), sum(4, kTenth);
    if (!client.Assign({{w, std::vector<float>(4)}}).Wait().ok()) return false;
    if (!client.PushPull({{w, gradient}, {total, sum}}, {{w, pulled}}).Wait().ok()) return false;
    // A statistic's update is no gradient.
    return Is("rounded", pulled, std::vector<float>(4, -kTenthInFloat16)) && Is("statistic", Pull(total), sum);
  }

  // Calls that overlap, each with its own numbers in memory that is used again.
  bool CallsUnderWayKeepTheirNumbers() {
    std::vector<std::vector<float>> gradients;
    for (int i = 0; i < kCalls; ++i) gradients.emplace_back(kLarge, static_cast<float>(i));
    for (int round = 0; round < 2; ++round) {
      std::vector<basin::Call> calls;
      for (const auto& gradient : gradients) calls.push_back(client.Push({{large, gradient}}));
      for (basin::Call& call : calls) {
        if (!call.Wait().ok()) return false;
      }
    }
    return Is("large", Pull(large), std::vector<float>(kLarge, -kCalls * (kCalls - 1)));
  }

  bool RowsAreRounded() {
    const std::vector<uint64_t> keys = {9, 4, 9};
    std::vector<float> gradients(6, kTenth), pulled(6);
    if (!client.PushPull(rows, keys, gradients, pulled).Wait().ok()) return false;
    const float twice = 2 * kTenthInFloat16;  // 0.2 rounded, too
    return Is("rows", pulled, {-twice, -twice, -kTenthInFloat16, -kTenthInFloat16, -twice, -twice});
  }

  void Refusals() {
    const auto print = [](const char* what, const std::string& message) {
      std::printf("%s: %s\n", what, message.c_str());
    };
    // Over two variables, of which the second alone is wrong: nothing of the call may leave.
    std::vector<float> good(4, 1), bad = {1, 65504, -70000, 1};
    print("overflow", client.Push({{w, good}, {large, std::vector<float>(kLarge, 1e6f)}}).Wait().message());
    print("overflow", client.Push({{w, bad}}).Wait().message());
    print("rows", client.Push(rows, {9, 4}, {1, 1, 66000, 1}).Wait().message());
    bad[2] = std::numeric_limits<float>::quiet_NaN();
    print("nan", client.Push({{w, bad}}).Wait().message());
    double f64[4] = {};
    uint16_t halves[4] = {0x3c00, 0x7c00, 0, 0};
    print("dtype", Start(f64, {2, 64, 1}).message);
    print("assign", Start(halves, {2, 16, 1}, true).message);
    print("given", Start(halves, {2, 16, 1}).message);
  }

  bool Run() {
    if (!WhatIsGivenIn16BitsIsTakenAsItIs() || !Float32IsRounded() || !CallsUnderWayKeepTheirNumbers() ||
        !RowsAreRounded())
      return false;
    Refusals();
    // None of them has changed anything, or used a number up.
    return Is("after refusals", Pull(w), std::vector<float>(4, -kTenthInFloat16)) &&
           Is("after refusals", Pull(large), std::vector<float>(kLarge, -kCalls * (kCalls - 1))) &&
           client.Push({{w, std::vector<float>(4, 1)}}).Wait().ok();
  }
};

}  // namespace

int main() {
  auto client = basin::Client::Connect(basin::Options::FromEnvironment());
  if (!client.ok()) return basin::Exit(client.status());
  basin::Model model;
  basin::TableOptions of_rows;
  of_rows.dim = 2;
  Test test{*client, model.Dense("w", {4}, basin::Zeros()),
            model.Untrained("total", {4}, basin::Zeros(), basin::Statistic::kSum),
            model.Dense("large", {kLarge}, basin::Zeros()), model.Table("rows", of_rows)};
  model.SetRule(basin::Sgd{1.0f});
  if (auto s = client->Declare(model); !s.ok()) return basin::Exit(s);
  if (!test.Run()) return 3;
  std::printf("every number is right\n");
  return basin::Exit(client->Finish());
}
