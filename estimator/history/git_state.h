// What git says about the folder that a job's code comes from.
#pragma once

#include <map>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace basin {

// "azureml.git.repository_uri" (of the remote `origin`, else of the first; user and password cut out),
// "azureml.git.branch", "azureml.git.commit" and "azureml.git.dirty" ("True" or "False"; files that git does not know
// count). What git cannot tell is missing: all of it where the folder is in no repository or there is no git. Asks the
// program `git`, which may not prompt, writes nothing, and is ended after `limit` over all. Blocks.
std::map<std::string, std::string> GitState(const std::string& source_directory,
                                            absl::Duration limit = absl::Seconds(10));

// A repository's address without what may be secret in it: user, password, query and fragment. Pure.
std::string WithoutSecrets(absl::string_view url);

}  // namespace basin
