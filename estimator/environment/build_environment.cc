#include "estimator/environment/build_environment.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/host_name.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "estimator/environment/installer.h"
#include "estimator/snapshot/task_tree.h"

namespace basin {
namespace {

using Say = std::function<void(absl::string_view line)>;
using Kind = EnvironmentSpec::Kind;

constexpr const char* kMarker = "/basin-environment.json";
// Alone, without what a user's folders would add.
constexpr const char* kWhichPython = "import sys; print(sys.executable); print('%d.%d.%d' % sys.version_info[:3])";

struct Python {
  std::string executable;
  std::string version;
};

// Of a shell, in an image.
constexpr int kNoSuchProgram = 127;

class Builder {
 public:
  Builder(const EnvironmentSpec& spec, const std::string& base, const BuildPlace& place, const Say& say)
      : spec_(spec),
        place_(place),
        say_(say),
        name_(EnvironmentName(spec)),
        folder_(absl::StrCat(base, "/environments")) {
    if (!place.identity.empty()) absl::StrAppend(&name_, "-img", place.identity);
  }

  absl::StatusOr<BuiltEnvironment> Run() {
    if (spec_.kind == Kind::kNone) return WithoutEnvironment();
    if (spec_.kind == Kind::kPip) {
      BASIN_ASSIGN_OR_RETURN(base_python_, FindBasePython());
      // An update of the system's Python leaves a virtual environment's packages behind: each version gets its own, and
      // the one before stays for the runs that use it.
      absl::StrAppend(&name_, "-py", base_python_.version);
    }
    prefix_ = absl::StrCat(folder_, "/", name_);
    python_ = absl::StrCat(prefix_, "/bin/python");
    BASIN_ASSIGN_OR_RETURN(bool is_ready, IsReady());
    if (is_ready) return Ready(true);
    BASIN_RETURN_IF_ERROR(MakeFolders(folder_, 0700));
    BASIN_ASSIGN_OR_RETURN(const UniqueFd lock, Lock());
    // Another job may have built it meanwhile.
    BASIN_ASSIGN_OR_RETURN(is_ready, IsReady());
    if (is_ready) return Ready(true);
    // Without its marker it was never used.
    BASIN_RETURN_IF_ERROR(RemoveTree(prefix_));
    say_(absl::StrCat("building environment ", name_, " in ", prefix_));
    const absl::StatusOr<std::string> version = spec_.kind == Kind::kPip ? BuildPip() : BuildConda();
    if (!version.ok()) {
      RemoveTree(prefix_).IgnoreError();
      return version.status();
    }
    const nlohmann::json marker = {{"spec", EnvironmentSpecToText(spec_)}, {"python", *version}};
    BASIN_RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(prefix_, kMarker), marker.dump() + "\n", 0600));
    return Ready(false);
  }

 private:
  absl::StatusOr<BuiltEnvironment> WithoutEnvironment() {
    BuiltEnvironment built;
    built.reused = true;
    // Which one it is, only a container would tell; the task's will find it.
    if (place_.is_image) return built;
    const absl::StatusOr<Python> python = AskPython("python3");
    // A job of shell scripts needs none; a Python script will say what is missing.
    if (python.ok()) built.python = python->executable;
    return built;
  }

  absl::StatusOr<Python> AskPython(const std::string& command) {
    const auto outcome = place_.run({command, "-I", "-c", kWhichPython}, [](absl::string_view) {});
    if (!outcome.ok()) return outcome.status();
    if (outcome->exit_code == kNoSuchProgram && place_.is_image) {
      return absl::NotFoundError(absl::StrCat(command, ": ", outcome->Ending()));
    }
    if (outcome->exit_code != 0 || outcome->last.size() < 2) {
      return absl::UnknownError(absl::StrCat(command, " on ", place_.where, " does not work: ", outcome->Ending()));
    }
    const size_t count = outcome->last.size();
    return Python{outcome->last[count - 2], outcome->last[count - 1]};
  }

  BuiltEnvironment Ready(bool reused) {
    if (reused) say_(absl::StrCat("environment ", name_, " is there already"));
    BuiltEnvironment built;
    built.prefix = prefix_;
    built.python = python_;
    built.reused = reused;
    return built;
  }

  // Whole, and with the Python that it was built for. Jobs may be running in one that is whole, so that only an error
  // can come of whatever else is wrong with it.
  absl::StatusOr<bool> IsReady() {
    const std::string path = absl::StrCat(prefix_, kMarker);
    const absl::StatusOr<std::string> marker = ReadFile(path);
    if (absl::IsNotFound(marker.status())) return false;
    if (!marker.ok()) return marker.status();
    const nlohmann::json json = nlohmann::json::parse(*marker, nullptr, false);
    const bool is_ours = json.is_object() && json.contains("python") && json["python"].is_string();
    if (!is_ours) return Unusable(absl::StrCat(path, " is not as Basin writes it"));
    const absl::StatusOr<Python> python = AskPython(python_);
    if (!python.ok()) return Unusable(std::string(python.status().message()));
    const std::string built_for = json["python"];
    if (python->version == built_for) return true;
    return Unusable(absl::StrCat("it was built for Python ", built_for, ", and finds ", python->version));
  }

  absl::Status Unusable(const std::string& problem) const {
    return absl::FailedPreconditionError(absl::StrCat("environment ", name_, " on ", place_.where,
                                                      " cannot be used: ", problem, "; try again, or remove ", prefix_,
                                                      " when no run uses it, to have it built anew"));
  }

  absl::StatusOr<Python> FindBasePython() {
    absl::StatusOr<Python> python = AskPython("python3");
    if (!absl::IsNotFound(python.status())) return python;
    if (place_.is_image) {
      return absl::FailedPreconditionError(
          absl::StrCat("there is no python3 on PATH of ", place_.where,
                       ", which pip packages need; name an image with Python in custom_docker_image"));
    }
    return absl::FailedPreconditionError(absl::StrCat("there is no python3 on PATH of ", HostName(),
                                                      ", which pip packages need; install it (Debian: apt-get "
                                                      "install python3 python3-venv)"));
  }

  absl::StatusOr<UniqueFd> Lock() {
    const std::string path = absl::StrCat(prefix_, ".lock");
    // The tools inherit it: where this process is killed, and not they, the next builder waits until they are gone.
    UniqueFd lock(open(path.c_str(), O_RDWR | O_CREAT, 0600));
    if (lock.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
    if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      const absl::StatusOr<std::string> holder = ReadFile(path, 1024);
      say_(absl::StrCat("waiting for environment ", name_, ", which another job builds (",
                        holder.ok() ? absl::StripTrailingAsciiWhitespace(*holder) : absl::string_view(), ")"));
    }
    // The same again where it was taken at once.
    while (flock(lock.get(), LOCK_EX) != 0) {
      if (errno != EINTR) return ErrnoStatus(errno, absl::StrCat("lock ", path));
    }
    const std::string holder = absl::StrCat("pid ", getpid(), " on ", HostName(), "\n");
    if (ftruncate(lock.get(), 0) != 0 || pwrite(lock.get(), holder.data(), holder.size(), 0) < 0) {
      return ErrnoStatus(errno, absl::StrCat("write ", path));
    }
    return lock;
  }

  absl::Status RunStep(const std::string& step, const std::vector<std::string>& argv) {
    say_(absl::StrCat("$ ", absl::StrJoin(argv, " ")));
    const absl::StatusOr<InstallerOutcome> outcome = place_.run(argv, say_);
    if (!outcome.ok()) return outcome.status();
    if (outcome->exit_code == 0) return absl::OkStatus();
    return absl::AbortedError(
        absl::StrCat("environment ", name_, " on ", place_.where, ": ", step, " failed with ", outcome->Ending()));
  }

  absl::StatusOr<std::string> BuildPip() {
    const auto venv =
        place_.run({base_python_.executable, "-I", "-c", "import venv, ensurepip"}, [](absl::string_view) {});
    if (!venv.ok()) return venv.status();
    if (venv->exit_code != 0) {
      return absl::FailedPreconditionError(
          absl::StrCat(base_python_.executable, " (", base_python_.version, ") on ", place_.where,
                       " cannot make virtual environments: ", venv->last.empty() ? venv->Ending() : venv->last.back(),
                       "; install python3-venv ", place_.is_image ? "in the image " : "",
                       "(Debian: apt-get install python3-venv), or set user_managed: true and install the packages ",
                       place_.is_image ? "in the image" : "yourself"));
    }
    std::vector<std::string> make = {base_python_.executable, "-m", "venv", prefix_};
    // An image is chosen for the packages that it brings; these come on top.
    if (place_.is_image) make.insert(make.end() - 1, "--system-site-packages");
    BASIN_RETURN_IF_ERROR(RunStep("making a virtual environment", make));
    std::vector<std::string> install = {python_,   "-m", "pip",
                                        "install", "-r", absl::StrCat(prefix_, "/basin-requirements.txt")};
    BASIN_RETURN_IF_ERROR(WriteLines(install.back(), spec_.requirements));
    if (!spec_.constraints.empty()) {
      install.push_back("-c");
      install.push_back(absl::StrCat(prefix_, "/basin-constraints.txt"));
      BASIN_RETURN_IF_ERROR(WriteLines(install.back(), spec_.constraints));
    }
    BASIN_RETURN_IF_ERROR(RunStep("pip install", install));
    return VersionInside();
  }

  static absl::Status WriteLines(const std::string& path, const std::vector<std::string>& lines) {
    // For its owner alone: an index's URL may hold a password.
    return WriteFileAtomically(path, absl::StrCat(absl::StrJoin(lines, "\n"), "\n"), 0600);
  }

  absl::StatusOr<std::string> BuildConda() {
    std::string tool;
    for (const char* name : {"micromamba", "mamba", "conda"}) {
      const auto outcome = place_.run({name, "--version"}, [](absl::string_view) {});
      if (outcome.ok() && outcome->exit_code == 0) {
        tool = name;
        break;
      }
    }
    if (tool.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("conda packages need micromamba, mamba or conda on PATH of ", place_.where,
                       ", and none of the three is there; install one of them, or use pip_packages"));
    }
    // Beside the prefix: conda wants to make that itself.
    const std::string file = absl::StrCat(prefix_, ".yml");
    BASIN_RETURN_IF_ERROR(WriteFileAtomically(file, spec_.conda_file, 0600));
    std::vector<std::string> argv = {tool};
    if (tool == "micromamba") {
      argv.insert(argv.end(), {"create", "--yes"});
    } else {
      // Neither has --yes in every version; the variables that RunInstaller sets say the same.
      argv.insert(argv.end(), {"env", "create"});
    }
    argv.insert(argv.end(), {"--prefix", prefix_, "--file", file});
    BASIN_RETURN_IF_ERROR(RunStep(tool, argv));
    return VersionInside();
  }

  absl::StatusOr<std::string> VersionInside() {
    const absl::StatusOr<Python> python = AskPython(python_);
    if (python.ok()) return python->version;
    return absl::AbortedError(
        absl::StrCat("environment ", name_, " was built, but has no Python that runs: ", python.status().message()));
  }

  const EnvironmentSpec& spec_;
  const BuildPlace& place_;
  const Say& say_;
  std::string name_;
  const std::string folder_;
  Python base_python_;  // kPip: the place's own
  std::string prefix_;
  std::string python_;  // in it
};

}  // namespace

absl::StatusOr<BuiltEnvironment> BuildEnvironment(const EnvironmentSpec& spec, const std::string& base,
                                                  const Say& say, const BuildPlace& place) {
  return Builder(spec, base, place, say).Run();
}

BuildPlace ThisMachine() {
  BuildPlace place;
  place.run = [](const std::vector<std::string>& argv, const Say& say) { return RunInstaller(argv, say); };
  place.where = HostName();
  return place;
}

std::string BuiltEnvironmentToJson(const BuiltEnvironment& environment) {
  nlohmann::json json = {
      {"prefix", environment.prefix}, {"python", environment.python}, {"reused", environment.reused}};
  if (environment.image) json["image"] = NodeImageToJson(*environment.image);
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string EnvironmentProblemToJson(const absl::Status& problem) {
  const nlohmann::json json = {{"problem", std::string(problem.message())}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

absl::StatusOr<BuiltEnvironment> ParseBuiltEnvironment(absl::string_view text) {
  const nlohmann::json json = nlohmann::json::parse(text.begin(), text.end(), nullptr, false);
  if (json.is_object() && json.contains("problem") && json["problem"].is_string()) {
    return absl::FailedPreconditionError(json["problem"].get<std::string>());
  }
  BuiltEnvironment built;
  const auto read = [&](const char* name, std::string* out) {
    if (!json.is_object() || !json.contains(name) || !json[name].is_string()) return false;
    *out = json[name];
    return true;
  };
  if (!read("prefix", &built.prefix) || !read("python", &built.python)) {
    return absl::InvalidArgumentError("the result of basin environment-build is not as it writes it");
  }
  built.reused = json.contains("reused") && json["reused"].is_boolean() && json["reused"].get<bool>();
  std::string image;
  if (read("image", &image)) {
    BASIN_ASSIGN_OR_RETURN(built.image, ParseNodeImage(image));
  }
  return built;
}

}  // namespace basin
