// Any text is either refused with a message, or read into a cluster that round-trips and can be described.
#include <cstddef>
#include <cstdint>

#include "cluster_spec/cluster_spec.h"
#include "cluster_spec/cluster_view.h"
#include "cluster_spec/describe.h"
#include "cluster_spec/json_text.h"
#include "cluster_spec/tf_config.h"
#include "common/base/status_macros.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = basin::ParseTfConfig({reinterpret_cast<const char*>(data), size});
  if (!config.ok()) {
    BASIN_CHECK(!config.status().message().empty());
    return 0;
  }
  const auto again = basin::ClusterSpec::FromJson(config->cluster.ToText());
  BASIN_CHECK(again.ok() && *again == config->cluster);
  const auto view = basin::Resolve(*config);
  BASIN_CHECK(!basin::Describe(*config, view).empty());
  const auto described = basin::ParseJson(basin::DescribeJson(*config, view), "description");
  BASIN_CHECK(described.ok() && described->warnings.empty());
  static_cast<void>(config->master());
  if (view.ok()) {
    const auto formatted = basin::ParseTfConfig(basin::FormatTfConfig(config->cluster, view->self));
    BASIN_CHECK(formatted.ok());
    const auto same = basin::Resolve(*formatted);
    BASIN_CHECK(same.ok() && same->self == view->self && same->ps == view->ps);
  }
  return 0;
}
