#include "estimator/commands/given_words.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <functional>
#include <limits>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/nearest.h"

namespace basin {

CLI::Option* NotEmpty(CLI::Option* option) {
  return option->check([](const std::string& value) {
    return std::string(value.empty() ? "is given, but empty (a shell variable that is not set?); give it a value, or "
                                       "leave it out"
                                     : "");
  });
}

CLI::Option* WholeNumber(CLI::Option* option, int64_t least) {
  return option->check([least](const std::string& value) {
    int64_t number = 0;
    if (absl::SimpleAtoi(value, &number) && number >= least) return std::string();
    return least == std::numeric_limits<int64_t>::min()
               ? absl::StrCat("expected a whole number of 64 bits, found \"", value, "\"")
               : absl::StrCat("expected a whole number from ", least, " up, found \"", value, "\"");
  });
}

absl::Status CheckCommand(CLI::App& app, const std::vector<std::string>& words) {
  CLI::App* at = &app;
  std::string path;
  for (const std::string& word : words) {
    const std::vector<CLI::App*> below = at->get_subcommands(std::function<bool(CLI::App*)>());
    if (below.empty() || absl::StartsWith(word, "-")) break;
    std::vector<std::string> names;
    CLI::App* found = nullptr;
    for (CLI::App* command : below) {
      if (command->check_name(word)) found = command;
      if (!command->get_group().empty()) names.push_back(command->get_name());  // others are internal
    }
    if (found == nullptr) {
      const std::optional<std::string> nearest = Nearest(word, names);
      return absl::InvalidArgumentError(
          absl::StrCat("there is no command \"", path, word, "\"; ",
                       nearest ? absl::StrCat("did you mean \"", path, *nearest, "\"? ") : "", "basin ", path,
                       "--help lists what there is"));
    }
    absl::StrAppend(&path, word, " ");
    at = found;
  }
  return absl::OkStatus();
}

std::string NearestFlag(const CLI::App& command, const std::string& word) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    names.insert(names.end(), option->get_lnames().begin(), option->get_lnames().end());
  }
  if (!absl::StartsWith(word, "--")) return "";
  const std::optional<std::string> nearest = Nearest(word.substr(2, word.find('=') - 2), names);
  return nearest ? absl::StrCat("--", *nearest) : "";
}

std::string ParseComplaint(const CLI::App& app, const std::string& complaint) {
  const CLI::App* command = &app;
  std::string path = "basin";
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands()[0];
    absl::StrAppend(&path, " ", command->get_name());
  }
  std::string nearest;
  for (const std::string& word : app.remaining(true)) {
    if (nearest.empty()) nearest = NearestFlag(*command, word);
  }
  return absl::StrCat(complaint, "; ", nearest.empty() ? "" : absl::StrCat("did you mean ", nearest, "? "), path,
                      " --help says more");
}

}  // namespace basin
