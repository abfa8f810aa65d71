#include "estimator/agent/placeholders.h"

#include "absl/strings/str_replace.h"

namespace basin {

std::string ReplacePlaceholders(const std::string& text, const NodePaths& paths) {
  return absl::StrReplaceAll(text, {{kProgramsPlaceholder, paths.programs},
                                    {kTaskPlaceholder, paths.task},
                                    {kTokenPlaceholder, paths.token},
                                    {kPythonPlaceholder, paths.python},
                                    {kSharedMemoryPlaceholder, paths.shared_memory}});
}

}  // namespace basin
