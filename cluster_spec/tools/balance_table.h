// How evenly placement spreads well-known models.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace basin {

struct Balance {
  std::string model;
  int ps_count = 1;
  uint64_t fullest_bytes = 0;
  uint64_t total_bytes = 0;

  double mean_bytes() const { return static_cast<double>(total_bytes) / ps_count; }
  double ratio() const { return static_cast<double>(fullest_bytes) / mean_bytes(); }
};

// Model after model, each on 1, 2, 7, 16 and 100 ps. Takes some seconds: 33.8 million keys are hashed.
std::vector<Balance> ComputeBalances();
// A row a model, a column a number of ps.
std::string BalanceMarkdown(const std::vector<Balance>& balances);

}  // namespace basin
