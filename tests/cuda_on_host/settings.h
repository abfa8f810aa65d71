// What a test sets in the environment (README.md), read once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace basin::cuda_on_host {

struct Settings {
  int devices = 1;             // BASIN_TEST_CUDA_DEVICES
  size_t memory = 4ull << 30;  // BASIN_TEST_CUDA_MEMORY: bytes of each device
  bool lazy = false;           // BASIN_TEST_CUDA_LAZY=1: a stream does nothing before something waits for it
  std::string fail;            // BASIN_TEST_CUDA_FAIL=function:k
  uint64_t fail_at = 0;
  std::string refuse;  // BASIN_TEST_CUDA_REFUSE=function
};
const Settings& TheSettings();

}  // namespace basin::cuda_on_host
