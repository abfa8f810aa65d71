// What is wrong with the words of a command line, beyond what its parser sees.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace basin {

// Refuses the option's value where it is empty: `--hosts "$HOSTS"` without HOSTS must not count as not given.
CLI::Option* NotEmpty(CLI::Option* option);

}  // namespace basin
