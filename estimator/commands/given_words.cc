#include "estimator/commands/given_words.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
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
      if (at == &app) names.insert(names.end(), {"--help", "--version"});
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

std::string ParseComplaint(const CLI::App& app, const std::vector<std::string>& words, const std::string& complaint) {
  const CLI::App* command = &app;
  std::string path = "basin";
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands()[0];
    absl::StrAppend(&path, " ", command->get_name());
  }
  const std::string help = absl::StrCat(path, " --help says more");
  // Of those that nothing takes, a flag: what follows it may be meant for it.
  const std::vector<std::string> unknown = app.remaining(true);
  const auto is_unknown = [&unknown](const std::string& word) {
    return std::find(unknown.begin(), unknown.end(), word) != unknown.end();
  };
  const auto is_flag = [&](const std::string& word) { return absl::StartsWith(word, "-") && is_unknown(word); };
  auto word = std::find_if(words.begin(), words.end(), is_flag);
  if (word == words.end()) word = std::find_if(words.begin(), words.end(), is_unknown);
  if (word != words.end()) {
    const std::string nearest = NearestFlag(*command, *word);
    return absl::StrCat("unknown word ", *word, "; ",
                        nearest.empty() ? "" : absl::StrCat("did you mean ", nearest, "? "), help);
  }
  if (!command->get_subcommands(std::function<bool(const CLI::App*)>()).empty()) {
    return absl::StrCat("which command? ", path, " --help lists them");
  }
  // The parser's "--hosts: 1 required TEXT missing".
  const size_t missing = complaint.find(": 1 required ");
  if (missing == std::string::npos || !absl::EndsWith(complaint, " missing"))
    return absl::StrCat(complaint, "; ", help);
  return absl::StrCat(complaint.substr(0, missing), ": its value is missing; ", help);
}

}  // namespace basin
