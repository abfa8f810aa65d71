#include "estimator/run/top_view.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "estimator/run/progress_view.h"

namespace basin {
namespace {

using Row = std::vector<std::string>;

// Columns as wide as their widest cell; the first and the last to the left, the others to the right.
void AppendTable(const std::vector<Row>& rows, std::string* out) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      if (i > 0) line += "  ";
      line += i == 0 || i + 1 == row.size() ? row[i] + padding : padding + row[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(out, line, "\n");
  }
}

std::string Bytes(int64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(units)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? absl::StrFormat("%d B", bytes) : absl::StrFormat("%.1f %s", value, units[unit]);
}

std::string Metric(const ClientStats& client, const char* name, const char* format_name) {
  const auto found = client.metrics.find(name);
  if (found == client.metrics.end()) return "-";
  return std::string_view(format_name) == "whole" ? absl::StrFormat("%.0f", found->second)
                                                  : absl::StrFormat("%.3f", found->second);
}

}  // namespace

std::string RenderTop(const ClusterStats& stats) {
  std::string out =
      absl::StrCat("run ", stats.run, "  ", stats.state, "  step ", stats.global_step, "  slowest clock ",
                   stats.min_clock, "  view ", stats.view, "  up ", ShortDuration(absl::Seconds(stats.uptime_s)));
  if (stats.progress) absl::StrAppend(&out, absl::StrFormat("  %.0f%%", *stats.progress * 100));
  absl::StrAppend(&out, "\n", "model ", stats.variables, " variables, ", stats.elements, " elements, ",
                  Bytes(stats.model_bytes), "\n");
  if (stats.tables > 0) {
    PsStats sum;
    for (const PsStats& ps : stats.ps) {
      sum.rows += ps.rows;
      sum.table_bytes += ps.table_bytes;
      sum.evicted += ps.evicted;
      sum.dropped_gradients += ps.dropped_gradients;
    }
    absl::StrAppend(&out, "tables ", stats.tables, ", ", sum.rows, " rows, ", Bytes(sum.table_bytes), ", ", sum.evicted,
                    " rows evicted, ", sum.dropped_gradients, " gradients dropped\n");
  }
  out += "\n";

  std::vector<Row> rows = {{"PS", "LANES", "DEVICE", "SHARDS", "APPLIED", "REFUSED", "IN", "OUT", "ADDRESS"}};
  for (const PsStats& ps : stats.ps) {
    rows.push_back({absl::StrCat("ps ", ps.index), absl::StrCat(ps.lanes),
                    ps.device_bytes > 0 ? absl::StrCat(ps.device, " ", Bytes(ps.device_bytes)) : ps.device,
                    absl::StrCat(ps.shards), absl::StrCat(ps.applied), absl::StrCat(ps.refused), Bytes(ps.bytes_in),
                    Bytes(ps.bytes_out), ps.address});
  }
  AppendTable(rows, &out);

  out += "\n";
  rows = {{"TASK", "STATE", "CLOCK", "LAG", "STALENESS", "MAX", "STEPS/S", "EXAMPLES/S", "LOSS", "TEST ACC", "HEARD",
           "PROCESS"}};
  for (const ClientStats& client : stats.clients) {
    const bool trains = client.trains();
    const auto if_trains = [trains](std::string text) { return trains ? text : std::string("-"); };
    rows.push_back({absl::StrCat(client.role, " ", client.index), client.state, if_trains(absl::StrCat(client.clock)),
                    if_trains(absl::StrCat(client.lag)), if_trains(absl::StrFormat("%.1f", client.staleness_mean)),
                    if_trains(absl::StrCat(client.staleness_max)),
                    if_trains(absl::StrFormat("%.1f", client.steps_per_s)), Metric(client, "examples_per_s", "whole"),
                    Metric(client, "loss", "fraction"), Metric(client, "test_accuracy", "fraction"),
                    absl::StrFormat("%.1fs ago", client.last_heard_s), absl::StrCat(client.host, ":", client.pid)});
  }
  AppendTable(rows, &out);

  if (!stats.inputs.empty()) {
    out += "\n";
    rows = {{"INPUT", "EPOCH", "DONE", "LEASED", "PIECES"}};
    for (const InputStats& input : stats.inputs) {
      rows.push_back({input.name, absl::StrCat(input.epoch, " of ", input.epochs), absl::StrCat(input.pieces_done),
                      absl::StrCat(input.pieces_leased), absl::StrCat(input.pieces_total)});
    }
    AppendTable(rows, &out);
  }

  std::string waits;
  for (const ClientStats& client : stats.clients) {
    if (!client.waiting_for.empty()) {
      absl::StrAppend(&waits, client.role, " ", client.index, " waits for ", client.waiting_for, "\n");
    }
  }
  if (!waits.empty()) absl::StrAppend(&out, "\n", waits);
  return out;
}

}  // namespace basin
