// Counts pushes of rows: tables of zeros, gradients of ones, SGD with rate 1. Every worker pushes the same keys,
// repeated and in bags, so the sum in each row is known; a push that was lost or applied twice shows. Then rows are
// evicted for disuse, and their keys told. Exit code 3: something is wrong.
#include <basin/client.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

namespace {

constexpr uint32_t kDim = 5;
constexpr uint64_t kKeys = 3000;
constexpr int kPushes = 20;

// Spread over all 64 bits.
uint64_t KeyOf(uint64_t i) { return i * 0x9e3779b97f4a7c15; }

int Wrong(const char* what, uint64_t key, float found, float expected) {
  std::printf("%s: row of key %llu has %.0f, expected %.0f\n", what, static_cast<unsigned long long>(key),
              static_cast<double>(found), static_cast<double>(expected));
  return 3;
}

}  // namespace

int main() {
  auto client = basin::Client::Connect(basin::Options::FromEnvironment());
  if (!client.ok()) return basin::Exit(client.status());
  basin::Model model;
  basin::TableOptions short_lived;
  short_lived.dim = 1;
  short_lived.evict_unused = std::chrono::seconds(1);
  basin::TableOptions of_sums;
  of_sums.dim = kDim;
  const basin::Table sums = model.Table("sums", of_sums);
  const basin::Table brief = model.Table("brief", short_lived);
  model.SetRule(basin::Sgd{1.0f});
  if (auto s = client->Declare(model); !s.ok()) return basin::Exit(s);

  // Each key once, key 0 twice more, and all in bags of three besides: the mean gives each row a third of 3.
  std::vector<uint64_t> keys(kKeys), offsets;
  for (uint64_t i = 0; i < kKeys; ++i) keys[i] = KeyOf(i);
  for (uint64_t i = 0; i <= kKeys; i += 3) offsets.push_back(i);
  std::vector<uint64_t> repeated = keys;
  repeated.insert(repeated.end(), 2, KeyOf(0));
  const std::vector<float> ones(repeated.size() * kDim, 1.0f), threes((offsets.size() - 1) * kDim, 3.0f);
  std::vector<float> rows(repeated.size() * kDim);
  for (int i = 0; i < kPushes; ++i) {
    auto plain = i % 2 == 0 ? client->Push(sums, repeated, ones) : client->PushPull(sums, repeated, ones, rows);
    auto bags = client->PushBags(sums, keys, offsets, basin::Pooling::kMean, threes);
    if (auto s = plain.Wait(); !s.ok()) return basin::Exit(s);
    if (auto s = bags.Wait(); !s.ok()) return basin::Exit(s);
  }
  if (auto s = client->Barrier("pushed"); !s.ok()) return basin::Exit(s);
  const float each = -2.0f * kPushes * static_cast<float>(client->worker_count());
  const float first = 2 * each;  // three and one a push
  rows.assign(kKeys * kDim, 0);
  if (auto s = client->Pull(sums, keys, rows).Wait(); !s.ok()) return basin::Exit(s);
  for (size_t i = 0; i < rows.size(); ++i) {
    const float expected = i < kDim ? first : each;
    if (rows[i] != expected) return Wrong("pull", keys[i / kDim], rows[i], expected);
  }
  std::vector<float> pooled((offsets.size() - 1) * kDim);
  if (auto s = client->PullBags(sums, keys, offsets, basin::Pooling::kSum, pooled).Wait(); !s.ok())
    return basin::Exit(s);
  for (size_t i = 0; i < pooled.size(); ++i) {
    const float expected = i < kDim ? first + 2 * each : 3 * each;
    if (pooled[i] != expected) return Wrong("bag", keys[i / kDim * 3], pooled[i], expected);
  }
  // Keys that nobody pushed: their initial value, and no rows.
  const std::vector<uint64_t> unseen = {KeyOf(kKeys), KeyOf(kKeys + 1)};
  std::vector<float> nothing(unseen.size() * kDim, 1);
  if (auto s = client->Pull(sums, unseen, nothing).Wait(); !s.ok()) return basin::Exit(s);
  if (std::any_of(nothing.begin(), nothing.end(), [](float value) { return value != 0; })) return 3;
  std::printf("worker %u: every sum is right\n", client->index());
  std::fflush(stdout);

  if (auto s = client->Push(brief, keys, std::vector<float>(kKeys, 1.0f)).Wait(); !s.ok()) return basin::Exit(s);
  // Both workers push: a row may be evicted, made again and evicted again.
  std::set<uint64_t> told;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (told.size() < kKeys) {
    auto evicted = client->EvictedKeys(brief);
    if (!evicted.ok()) return basin::Exit(evicted.status());
    told.insert(evicted->keys.begin(), evicted->keys.end());
    if (evicted->missed || std::chrono::steady_clock::now() > deadline) {
      std::printf("%zu of %llu evicted keys were told\n", told.size(), static_cast<unsigned long long>(kKeys));
      return 3;
    }
  }
  if (told != std::set<uint64_t>(keys.begin(), keys.end())) return 3;
  std::printf("worker %u: every eviction was told\n", client->index());
  if (auto s = client->Barrier("told"); !s.ok()) return basin::Exit(s);
  return basin::Exit(client->Finish());
}
