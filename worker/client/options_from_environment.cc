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
  const char* metrics_file = std::getenv("BASIN_METRICS_FILE");
  const char* gradient_dtype = std::getenv("BASIN_GRADIENT_DTYPE");
  // A caller that was built before there were these fields has no room for them.
  const auto set = [size](const char* value, size_t offset, const char** field) {
    if (value != nullptr && *value != '\0' && size >= offset + sizeof(*field)) *field = value;
  };
  set(transport, offsetof(basin_options, transport), &options->transport);
  set(metrics_file, offsetof(basin_options, metrics_file), &options->metrics_file);
  set(gradient_dtype, offsetof(basin_options, gradient_dtype), &options->gradient_dtype);
}
