#include "estimator/commands/given_words.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

namespace basin {

CLI::Option* NotEmpty(CLI::Option* option) {
  return option->check([](const std::string& value) {
    return std::string(value.empty() ? "is given, but empty (a shell variable that is not set?); give it a value, or "
                                       "leave it out"
                                     : "");
  });
}

}  // namespace basin
