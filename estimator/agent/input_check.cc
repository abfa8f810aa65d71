#include "estimator/agent/input_check.h"

#include <fcntl.h>
#include <glob.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace basin {
namespace {

std::string ProblemOf(const std::string& path) {
  if (path.empty() || path[0] != '/') return absl::StrCat("\"", path, "\" is no absolute path");
  // As root, access() says yes to all: the errors are then those of the reading itself.
  if (access(path.c_str(), R_OK) == 0) return "";
  const int error = errno;
  if (path.find_first_of("*?[") == std::string::npos || error != ENOENT) {
    return absl::StrCat(path, ": ", std::strerror(error));
  }
  glob_t found = {};
  const int code = glob(path.c_str(), GLOB_NOSORT, nullptr, &found);
  std::string problem;
  if (code == GLOB_NOMATCH) {
    problem = absl::StrCat(path, ": nothing matches this pattern");
  } else if (code != 0) {
    problem = absl::StrCat(path, ": cannot be searched: ", std::strerror(errno));
  }
  for (size_t i = 0; code == 0 && problem.empty() && i < found.gl_pathc; ++i) {
    if (access(found.gl_pathv[i], R_OK) != 0) problem = absl::StrCat(found.gl_pathv[i], ": ", std::strerror(errno));
  }
  globfree(&found);
  return problem;
}

void Add(const std::string& name, const std::string& problem, agent::InputsChecked* checked) {
  agent::InputProblem* added = checked->add_problems();
  added->set_name(name);
  added->set_problem(problem);
}

}  // namespace

agent::InputsChecked CheckInputsHere(const agent::CheckInputs& request) {
  agent::InputsChecked checked;
  for (const agent::Input& input : request.inputs()) {
    const std::string problem = ProblemOf(input.path());
    if (!problem.empty()) Add(input.name(), problem, &checked);
  }
  return checked;
}

agent::InputsChecked AllInputsFailed(const agent::CheckInputs& request, const std::string& problem) {
  agent::InputsChecked checked;
  for (const agent::Input& input : request.inputs())
    Add(input.name(), absl::StrCat(input.path(), ": ", problem), &checked);
  return checked;
}

}  // namespace basin
