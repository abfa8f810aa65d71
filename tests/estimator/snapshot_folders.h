// Folders on the disk for the tests of snapshots and environments.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"

namespace basin {

// A folder that is gone with it.
class ScratchFolder final {
 public:
  ScratchFolder() {
    std::string name = absl::StrCat(std::filesystem::temp_directory_path().string(), "/basin-test-XXXXXX");
    path_ = mkdtemp(name.data());
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string At(const std::string& name) const { return absl::StrCat(path_, "/", name); }

  // Writes a file, with the folders above it.
  void Write(const std::string& name, const std::string& content, bool executable = false) const {
    std::filesystem::create_directories(std::filesystem::path(At(name)).parent_path());
    std::ofstream(At(name), std::ios::binary | std::ios::trunc) << content;
    chmod(At(name).c_str(), executable ? 0755 : 0644);
  }
  std::string Read(const std::string& name) const {
    std::ifstream file(At(name), std::ios::binary);
    EXPECT_TRUE(file.good()) << At(name);
    std::stringstream content;
    content << file.rdbuf();
    return content.str();
  }
  bool Has(const std::string& name) const {
    struct stat info;
    return lstat(At(name).c_str(), &info) == 0;
  }
  void Link(const std::string& name, const std::string& target) const {
    std::filesystem::create_directories(std::filesystem::path(At(name)).parent_path());
    ASSERT_EQ(symlink(target.c_str(), At(name).c_str()), 0) << name;
  }

 private:
  std::string path_;
};

}  // namespace basin
