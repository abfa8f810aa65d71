// Prints the table of docs/placement.md.
#include <cstdio>

#include "cluster_spec/tools/balance_table.h"

int main() {
  std::fputs(basin::BalanceMarkdown(basin::ComputeBalances()).c_str(), stdout);
  return 0;
}
