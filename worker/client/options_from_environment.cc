// The one place of the library that reads the environment.
#include <cstddef>
#include <cstdlib>

#include "basin/basin.h"

extern "C" void basin_options_from_environment(basin_options* options, size_t size) {
  basin_options_init(options, size);
  if (options == nullptr) return;
  const char* tf_config = std::getenv("TF_CONFIG");
  const char* run_id = std::getenv("BASIN_RUN_ID");
  const char* token_file = std::getenv("BASIN_TOKEN_FILE");
  const char* transport = std::getenv("BASIN_TRANSPORT");
  if (tf_config != nullptr) options->tf_config = tf_config;
  if (run_id != nullptr && *run_id != '\0') options->run_id = run_id;
  if (token_file != nullptr && *token_file != '\0') options->token_file = token_file;
  // A caller that was built before there was this field has no room for it.
  const size_t end = offsetof(basin_options, transport) + sizeof(options->transport);
  if (transport != nullptr && *transport != '\0' && size >= end) options->transport = transport;
}
