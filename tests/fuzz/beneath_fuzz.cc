// Input: what a peer may ask of a folder, in lines: an operation's letter, a path, and after a tab an argument.
// Whatever they are, nothing outside of the folder changes, no link in it leads outside, and the limits hold.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "estimator/snapshot/beneath.h"
#include "estimator/snapshot/task_tree.h"

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxEntries = 40, kMaxBytes = 300;

struct Fixture {
  Fixture() {
    const char* memory = "/dev/shm";
    std::string name = absl::StrCat(access(memory, W_OK) == 0 ? memory : "/tmp", "/basin-fuzz-XXXXXX");
    top = mkdtemp(name.data());
    std::ofstream(top + "/canary") << "alive";
  }
  ~Fixture() { basin::RemoveTree(top).IgnoreError(); }
  std::string top;
};

void Operate(basin::FolderBeneath& folder, absl::string_view line) {
  if (line.empty()) return;
  const size_t tab = std::min(line.find('\t'), line.size());
  const absl::string_view path = line.substr(1, std::max<size_t>(tab, 1) - 1);
  const absl::string_view argument = line.substr(std::min(tab + 1, line.size()));
  switch (line[0]) {
    case 'f':
      folder.MakeFolder(path).IgnoreError();
      break;
    case 'c': {
      const auto file = folder.Create(path, true);
      if (file.ok()) folder.Append(*file, path, argument).IgnoreError();
      break;
    }
    case 'w':
      folder.WriteAt(path, argument.size() % 4, argument).IgnoreError();
      break;
    case 't':
      folder.Truncate(path, argument.size()).IgnoreError();
      break;
    case 'l':
      folder.MakeLink(path, argument).IgnoreError();
      break;
    case 'x':
      folder.SetExecutable(path, argument.empty()).IgnoreError();
      break;
    case 'o':
      if (const auto file = folder.OpenToRead(path); file.ok()) BASIN_CHECK(folder.Look(path).ok());
      break;
    default:
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Fixture fixture;
  const std::string inside = fixture.top + "/inside";
  BASIN_CHECK(basin::RemoveTree(inside).ok());
  fs::create_directory(inside);
  basin::BeneathLimits limits;
  limits.max_entries = kMaxEntries;
  limits.max_total_bytes = kMaxBytes;
  auto folder = basin::FolderBeneath::Open(inside, limits);
  BASIN_CHECK(folder.ok());
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  for (const absl::string_view line : absl::StrSplit(text, '\n')) Operate(*folder, line);

  std::vector<std::string> around;
  for (const auto& entry : fs::directory_iterator(fixture.top)) around.push_back(entry.path().filename());
  BASIN_CHECK(around.size() == 2);
  std::string canary;
  std::ifstream(fixture.top + "/canary") >> canary;
  BASIN_CHECK(canary == "alive");
  uint64_t entries = 0, bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(inside)) {
    ++entries;
    if (entry.is_symlink()) {
      std::error_code error;
      const fs::path target = fs::weakly_canonical(entry.path(), error);
      BASIN_CHECK(error || absl::StartsWith(target.string() + "/", inside + "/"));
    } else if (entry.is_regular_file()) {
      bytes += entry.file_size();
    }
  }
  BASIN_CHECK(entries <= kMaxEntries && bytes <= kMaxBytes);
  return 0;
}
