#include "estimator/job/one_document.h"

#include <algorithm>
#include <optional>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/format/yaml_fields.h"
#include "yaml-cpp/eventhandler.h"

namespace basin {
namespace {

// Looks at the events of a text before nodes are made of it. yaml-cpp's LoadAll is no alternative: for some texts its
// parser begins documents without an end, and it would collect them until memory is gone.
class Structure final : public YAML::EventHandler {
 public:
  // The place of an alias to a node that is still open.
  const std::optional<YAML::Mark>& inside_itself() const { return inside_itself_; }

  void OnDocumentStart(const YAML::Mark& /*mark*/) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& /*mark*/, YAML::anchor_t /*anchor*/) override {}
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (std::find(open_.begin(), open_.end(), anchor) != open_.end()) inside_itself_ = mark;
  }
  void OnScalar(const YAML::Mark& /*mark*/, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                const std::string& /*value*/) override {}
  void OnSequenceStart(const YAML::Mark& /*mark*/, const std::string& /*tag*/, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    open_.push_back(anchor);
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapStart(const YAML::Mark& /*mark*/, const std::string& /*tag*/, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    open_.push_back(anchor);
  }
  void OnMapEnd() override { open_.pop_back(); }

 private:
  std::vector<YAML::anchor_t> open_;  // 0: without an anchor, to which no alias leads
  std::optional<YAML::Mark> inside_itself_;
};

}  // namespace

absl::StatusOr<YAML::Node> LoadOneDocument(absl::string_view text, const std::string& file_name) {
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    Structure structure;
    int documents = 0;
    while (documents < 2 && parser.HandleNextDocument(structure)) ++documents;
    if (structure.inside_itself()) {
      return absl::InvalidArgumentError(
          absl::StrCat(MarkText(file_name, *structure.inside_itself()),
                       "an alias to what it stands in, which would have no end; write the value itself"));
    }
    if (documents != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(file_name, ": expected one document, found ", documents == 0 ? "none" : "more than one"));
    }
    return YAML::Load(std::string(text));
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(MarkText(file_name, error.mark), "not valid YAML or JSON: ", error.msg));
  }
}

}  // namespace basin
