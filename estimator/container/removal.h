// Containers that are not to outlive who started them: how each is removed is written down before it starts, so that
// whoever finds it (its guard, the agent) can end it, also where the engine's own process was killed.
//
//   FOLDER/NAME    the words of the command that removes container NAME, each followed by a zero byte
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace basin {

// REQUIRES: `name` is a file's name. Makes the folder.
absl::Status NoteRemoval(const std::string& folder, const std::string& name, const std::vector<std::string>& argv);
// The container has ended, and its engine has removed it.
void ForgetRemoval(const std::string& folder, const std::string& name);

// Removes all that are noted, at most `limit` each, and forgets them; tells on standard error what could not be
// removed, which stays noted. Blocks. A folder that is not there has none.
void RemoveNoted(const std::string& folder, absl::Duration limit);
// They have ended and their engine has removed them, or nobody will try again.
void ForgetRemovals(const std::string& folder);
// Whether one is noted.
bool HasNoted(const std::string& folder);

}  // namespace basin
