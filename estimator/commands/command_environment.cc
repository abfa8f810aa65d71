#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/container/image_place.h"
#include "estimator/container/prepare_image.h"
#include "estimator/environment/build_environment.h"

namespace basin {
namespace {

struct Options {
  std::string spec, base, result;
  std::string container;           // file; empty: on this machine itself
  std::string run, removals, name;  // of the containers
};

absl::StatusOr<BuiltEnvironment> Build(const Options& options) {
  BASIN_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.spec));
  BASIN_ASSIGN_OR_RETURN(const EnvironmentSpec spec, ParseEnvironmentSpec(text));
  const auto say = [](absl::string_view line) {
    std::fprintf(stdout, "%.*s\n", static_cast<int>(line.size()), line.data());
    std::fflush(stdout);
  };
  if (options.container.empty()) return BuildEnvironment(spec, options.base, say);
  BASIN_ASSIGN_OR_RETURN(const std::string container, ReadFile(options.container));
  BASIN_ASSIGN_OR_RETURN(const ContainerRequest request, ParseContainerRequest(container));
  BASIN_RETURN_IF_ERROR(MakeFolders(options.base + "/environments", 0700));
  BASIN_ASSIGN_OR_RETURN(const NodeImage image, PrepareImage(request, options.base, say));
  BASIN_ASSIGN_OR_RETURN(
      BuiltEnvironment built,
      BuildEnvironment(spec, options.base, say,
                       ImagePlace(image, request, spec, {options.run, options.name, options.removals, options.base})));
  built.image = image;
  return built;
}

int BuildCommand(const Options& options) {
  const absl::StatusOr<BuiltEnvironment> built = Build(options);
  // Whoever started this reads the file; the complaint is for the log.
  const absl::Status wrote = WriteFileAtomically(
      options.result, built.ok() ? BuiltEnvironmentToJson(*built) : EnvironmentProblemToJson(built.status()), 0600);
  if (!built.ok()) return Complain(built.status());
  return wrote.ok() ? kExitOk : Complain(wrote);
}

}  // namespace

void AddEnvironment(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("environment-build", "internal: build what a job's scripts need");
  command->group("");  // not shown by --help
  auto options = std::make_shared<Options>();
  command->add_option("--spec", options->spec, "file with the environment's description")->required();
  command->add_option("--base", options->base, "folder that runs share")->required();
  command->add_option("--container", options->container, "file with the container's description");
  command->add_option("--run", options->run, "the run, a label of containers");
  command->add_option("--name", options->name, "name of containers");
  command->add_option("--removals", options->removals, "folder that says how containers are removed");
  command->add_option("--result", options->result, "file for the result")->required();
  command->callback([options, exit_code] { *exit_code = BuildCommand(*options); });
}

}  // namespace basin
