#include "tests/cuda_on_host/settings.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace basin::cuda_on_host {
namespace {

uint64_t Number(const char* name, const char* text) {
  char* end = nullptr;
  const uint64_t number = std::strtoull(text, &end, 10);
  if (end == text || *end != 0) {
    std::fprintf(stderr, "cuda_on_host: %s ends in \"%s\", which is no number\n", name, text);
    std::abort();
  }
  return number;
}

Settings Read() {
  Settings settings;
  if (const char* devices = std::getenv("BASIN_TEST_CUDA_DEVICES")) {
    settings.devices = static_cast<int>(Number("BASIN_TEST_CUDA_DEVICES", devices));
  }
  if (const char* memory = std::getenv("BASIN_TEST_CUDA_MEMORY")) {
    settings.memory = Number("BASIN_TEST_CUDA_MEMORY", memory);
  }
  if (const char* lazy = std::getenv("BASIN_TEST_CUDA_LAZY")) settings.lazy = std::strcmp(lazy, "1") == 0;
  if (const char* fail = std::getenv("BASIN_TEST_CUDA_FAIL")) {
    const char* colon = std::strchr(fail, ':');
    settings.fail_at = Number("BASIN_TEST_CUDA_FAIL", colon == nullptr ? "" : colon + 1);
    settings.fail.assign(fail, colon);
  }
  if (const char* refuse = std::getenv("BASIN_TEST_CUDA_REFUSE")) settings.refuse = refuse;
  return settings;
}

}  // namespace

const Settings& TheSettings() {
  static const Settings& settings = *new Settings(Read());
  return settings;
}

}  // namespace basin::cuda_on_host
