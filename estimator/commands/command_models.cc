#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/given_words.h"
#include "estimator/commands/runs_place.h"
#include "estimator/history/bytes_text.h"
#include "estimator/history/copy_files.h"
#include "estimator/history/model_store.h"
#include "estimator/history/record_json.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

struct ModelFlags : RunFlags {
  std::string model;  // NAME or NAME:VERSION
  std::string path, to, description;
  std::vector<std::string> tags, properties;
};

absl::StatusOr<std::map<std::string, std::string>> Pairs(const std::vector<std::string>& texts, const char* option) {
  std::map<std::string, std::string> pairs;
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(option, " ", text, ": expected NAME=VALUE"));
    }
    if (!pairs.emplace(text.substr(0, equals), text.substr(equals + 1)).second) {
      return absl::InvalidArgumentError(absl::StrCat(option, " ", text, ": ", text.substr(0, equals), " stands twice"));
    }
  }
  return pairs;
}

std::string PairsText(const std::map<std::string, std::string>& pairs) {
  return ForTerminal(absl::StrJoin(pairs, ", ", absl::PairFormatter("=")));
}

void Print(const RegisteredModel& model, bool json) {
  if (json) {
    std::printf("%s\n", ModelToJson(model).c_str());
    return;
  }
  std::string text = absl::StrCat("model        ", model.name, "\nversion      ", model.version, "\nfrom         run ",
                                  model.run_id, " of ", model.experiment, ", ", ForTerminal(model.path),
                                  "\nsize         ", BytesText(model.bytes), "\nchecksum     ", model.checksum,
                                  "\ncreated      ", TimeToText(model.created), "\nfolder       ", model.folder, "\n");
  if (!model.tags.empty()) absl::StrAppend(&text, "tags         ", PairsText(model.tags), "\n");
  if (!model.properties.empty()) absl::StrAppend(&text, "properties   ", PairsText(model.properties), "\n");
  if (!model.description.empty()) absl::StrAppend(&text, "description  ", ForTerminal(model.description), "\n");
  std::fputs(text.c_str(), stdout);
}

absl::StatusOr<ModelStore> StoreOf(const CommandContext& context, const ModelFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const std::string runs, RunsFolderOf(context, flags.runs));
  return ModelStore(runs);
}

absl::Status Register(const CommandContext& context, const ModelFlags& flags) {
  ModelToRegister wanted{flags.model, flags.path, {}, {}, flags.description};
  BASIN_ASSIGN_OR_RETURN(wanted.tags, Pairs(flags.tags, "--tag"));
  BASIN_ASSIGN_OR_RETURN(wanted.properties, Pairs(flags.properties, "--property"));
  BASIN_ASSIGN_OR_RETURN(const ModelStore store, StoreOf(context, flags));
  BASIN_ASSIGN_OR_RETURN(const RunFolder folder, RunOf(context, flags));
  BASIN_ASSIGN_OR_RETURN(const RunRecord record, ReadRun(folder));
  if (!IsFinal(record.phase)) {
    const ShownState shown = StateToShow(record, SupervisorLock::IsHeld(folder));
    return absl::FailedPreconditionError(
        absl::StrCat("run ", record.run_id, " is ", shown.name, ": what it leaves is not complete yet; ",
                     shown.advice.empty() ? "wait for its end: basin logs -f " : shown.advice,
                     shown.advice.empty() ? record.run_id : ""));
  }
  if (const absl::Status found = PathInRun(folder.path(), flags.model).status(); flags.path.empty() && !found.ok()) {
    return absl::Status(found.code(), absl::StrCat(found.message(), "; without --path the model's name, ", flags.model,
                                                   ", is the path too: give --path outputs/FILE"));
  }
  BASIN_ASSIGN_OR_RETURN(const RegisteredModel model,
                         store.Register(folder, record.run_id, record.experiment, wanted, absl::Now()));
  Print(model, flags.json);
  return absl::OkStatus();
}

absl::Status List(const CommandContext& context, const ModelFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const ModelStore store, StoreOf(context, flags));
  BASIN_ASSIGN_OR_RETURN(const std::vector<RegisteredModel> models, store.List(flags.model));
  if (flags.json) {
    OrderedJson all = OrderedJson::array();
    for (const RegisteredModel& model : models) all.push_back(OrderedJson::parse(ModelToJson(model)));
    std::printf("%s\n", Pretty(all).c_str());
    return absl::OkStatus();
  }
  if (models.empty()) {
    if (flags.model.empty()) {
      std::printf("no models; `basin models register NAME --run RUN` makes one\n");
    } else {
      std::printf("no model %s; `basin models list` names all\n", flags.model.c_str());
    }
    return absl::OkStatus();
  }
  size_t width = 5;
  for (const RegisteredModel& model : models) width = std::max(width, model.name.size() + 4);
  std::printf("%s%s%s%s%s\n", Column("MODEL", width).c_str(), Column("SIZE", 9).c_str(), Column("CREATED", 24).c_str(),
              Column("RUN", 24).c_str(), "TAGS");
  for (const RegisteredModel& model : models) {
    std::printf("%s%s%s%s%s\n", Column(absl::StrCat(model.name, ":", model.version), width).c_str(),
                Column(BytesText(model.bytes), 9).c_str(), Column(TimeToText(model.created), 24).c_str(),
                Column(model.run_id, 24).c_str(), PairsText(model.tags).c_str());
  }
  return absl::OkStatus();
}

absl::Status Show(const CommandContext& context, const ModelFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const ModelStore store, StoreOf(context, flags));
  BASIN_ASSIGN_OR_RETURN(const RegisteredModel model, store.Find(flags.model));
  Print(model, flags.json);
  return absl::OkStatus();
}

absl::Status Download(const CommandContext& context, const ModelFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const ModelStore store, StoreOf(context, flags));
  BASIN_ASSIGN_OR_RETURN(const RegisteredModel model, store.Find(flags.model));
  const std::string name = fs::path(model.path).filename().string();
  std::string to = flags.to.empty() ? name : flags.to;
  std::error_code error;
  const bool is_file = fs::is_regular_file(fs::path(model.folder) / name, error);
  if (to.back() == '/' || (is_file && fs::is_directory(to, error))) to = (fs::path(to) / name).string();
  BASIN_ASSIGN_OR_RETURN(const CopiedFiles copied, CopyFrom(model.folder, name, to));
  if (copied.checksum != model.checksum) {
    return absl::DataLossError(absl::StrCat("model ", model.name, ":", model.version, ": ", model.folder,
                                            " is not what was registered: expected ", model.checksum, ", found ",
                                            copied.checksum, "; register it again from run ", model.run_id));
  }
  if (flags.json) {
    std::printf(
        "%s\n",
        Pretty({{"path", to}, {"bytes", copied.bytes}, {"name", model.name}, {"version", model.version}}).c_str());
  } else {
    std::printf("%s: %s, %s:%d\n", to.c_str(), BytesText(copied.bytes).c_str(), model.name.c_str(), model.version);
  }
  return absl::OkStatus();
}

absl::Status Delete(const CommandContext& context, const ModelFlags& flags) {
  if (flags.model.find(':') == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("models delete ", flags.model, ": which version? Give NAME:VERSION"));
  }
  BASIN_ASSIGN_OR_RETURN(const ModelStore store, StoreOf(context, flags));
  BASIN_ASSIGN_OR_RETURN(const RegisteredModel model, store.Find(flags.model));
  BASIN_RETURN_IF_ERROR(store.Delete(model));
  if (flags.json) {
    std::printf("%s\n", Pretty({{"name", model.name}, {"version", model.version}}).c_str());
  } else {
    std::printf("deleted %s:%d\n", model.name.c_str(), model.version);
  }
  return absl::OkStatus();
}

using Action = absl::Status (*)(const CommandContext&, const ModelFlags&);

CLI::App* AddAction(CLI::App* models, const char* name, const char* help, const CommandContext& context, int* exit_code,
                    const std::shared_ptr<ModelFlags>& flags, Action action) {
  CLI::App* command = models->add_subcommand(name, help);
  AddRunsOption(*command, flags.get());
  AddJsonOption(*command, flags.get(), "Print JSON");
  command->footer(kUsualExitCodes);
  command->callback([&context, exit_code, flags, action] {
    const absl::Status status = action(context, *flags);
    *exit_code = status.ok() ? kExitOk : Complain(status);
  });
  return command;
}

}  // namespace

void AddModels(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* models = app.add_subcommand("models", "Keeps models that runs have left, by name and version");
  models->require_subcommand(1);
  const auto flags = std::make_shared<ModelFlags>();  // the callbacks keep it
  const char* which = "NAME for the newest version, or NAME:VERSION";

  CLI::App* add = AddAction(models, "register", "Copies a file or folder of a run as the next version of a model",
                            context, exit_code, flags, Register);
  add->add_option("NAME", flags->model, "The model's name; without --path also the path in the run")
      ->type_name("")
      ->required();
  add->add_option("--run", flags->run, "The run: its id, the beginning of one, EXPERIMENT/ID, or latest")
      ->type_name("RUN")
      ->required();
  NotEmpty(add->add_option("--path", flags->path, "The file or folder of the run, such as outputs/model.bin"))
      ->type_name("PATH");
  add->add_option("--tag", flags->tags, "For looking it up; repeatable")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false)
      ->take_all();
  add->add_option("--property", flags->properties, "As a tag, but not to be changed later; repeatable")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false)
      ->take_all();
  add->add_option("--description", flags->description, "A text for people");

  CLI::App* list = AddAction(models, "list", "Lists models and their versions", context, exit_code, flags, List);
  list->add_option("NAME", flags->model, "Only this model's versions")->type_name("");
  CLI::App* show =
      AddAction(models, "show", "Shows a model: where it came from, checksum, tags", context, exit_code, flags, Show);
  show->add_option("MODEL", flags->model, which)->type_name("")->required();
  CLI::App* download = AddAction(models, "download", "Copies a model to where you are, and checks it", context,
                                 exit_code, flags, Download);
  download->add_option("MODEL", flags->model, which)->type_name("")->required();
  NotEmpty(
      download->add_option("--to", flags->to, "Where to; a folder that exists takes a file in. Default: its own name"))
      ->type_name("DEST");
  CLI::App* remove = AddAction(models, "delete", "Deletes one version of a model", context, exit_code, flags, Delete);
  remove->add_option("MODEL", flags->model, "NAME:VERSION")->type_name("")->required();
}

}  // namespace basin
