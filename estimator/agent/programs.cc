#include "estimator/agent/programs.h"

#include <filesystem>
#include <system_error>
#include <vector>

namespace basin {
namespace {

namespace fs = std::filesystem;

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

std::string FirstWith(const std::vector<fs::path>& folders, const char* name, bool whole) {
  for (const fs::path& folder : folders) {
    if (Exists(folder / name)) return whole ? (folder / name).string() : folder.string();
  }
  return "";
}

}  // namespace

Programs FindPrograms(const std::string& self) {
  const fs::path bin = fs::path(self).parent_path();
  const fs::path prefix = bin.parent_path();
  // Debian's own prefix keeps libraries in a folder by architecture.
  const std::vector<fs::path> libraries = {prefix / "lib", prefix / "lib64", prefix / "lib" / "x86_64-linux-gnu"};
  std::vector<fs::path> packages = {prefix / "python", prefix / "share" / "basin" / "python"};
  // build/PRESET/bin/basin: the package lies in the source.
  if (Exists(prefix / "CMakeCache.txt")) packages.push_back(prefix.parent_path().parent_path() / "python");
  return {bin.string(), FirstWith(libraries, "libbasin.so", true), FirstWith(packages, "basin/__init__.py", false)};
}

Programs OwnPrograms() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  return FindPrograms(error ? "" : self.string());
}

}  // namespace basin
