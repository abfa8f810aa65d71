#include "estimator/history/run_page.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "estimator/history/bytes_text.h"
#include "estimator/history/record_json.h"
#include "estimator/history/run_page_style.h"
#include "estimator/history/url_path.h"

namespace basin {
namespace {

constexpr int kRefreshSeconds = 5;
constexpr absl::Duration kTimeShown = absl::Milliseconds(100);

std::string DurationText(absl::Duration duration) {
  const bool is_long = duration >= absl::Minutes(1);
  return absl::FormatDuration(absl::Trunc(duration, is_long ? absl::Seconds(1) : kTimeShown));
}

std::string TimeElement(absl::Time time) {
  return absl::StrCat("<time datetime=\"", TimeToText(time), "\">",
                      absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", time, absl::UTCTimeZone()), "</time>");
}

// A path below the page as a relative URL.
std::string Url(absl::string_view path) { return absl::StrCat("./", UrlPath(path)); }

std::string StateClass(const std::string& state) {
  for (const char* named : {"Completed", "Failed", "Canceled", "CancelRequested", "NotResponding"}) {
    if (state == named) return state;
  }
  return "busy";
}

std::string Fact(absl::string_view name, absl::string_view html, bool wide = false) {
  return absl::StrCat("<div", wide ? " class=\"wide\"" : "", "><dt>", name, "</dt><dd>", html, "</dd></div>\n");
}

std::string Head(const PageContent& content, const std::string& state) {
  const RunRecord& record = content.record;
  std::string html =
      absl::StrCat("<header><h1><small>", EscapeHtml(record.experiment), "</small>", EscapeHtml(record.run_id),
                   "</h1><span class=\"pill ", StateClass(state), "\" id=\"state\">", state, "</span></header>\n");
  if (!record.reason.empty()) absl::StrAppend(&html, "<p class=\"reason\">", EscapeHtml(record.reason), "</p>\n");
  absl::StrAppend(&html, "<section><dl class=\"facts\">\n", Fact("created", TimeElement(record.created)));
  if (record.ended) {
    absl::StrAppend(&html, Fact("ended", TimeElement(*record.ended)));
    absl::StrAppend(&html, Fact("duration", DurationText(*record.ended - record.created)));
  } else {
    absl::StrAppend(&html, Fact("running for", DurationText(content.written - record.created)));
  }
  if (!record.target.empty()) absl::StrAppend(&html, Fact("target", EscapeHtml(record.target)));
  if (record.exit_code) absl::StrAppend(&html, Fact("exit code", absl::StrCat(*record.exit_code)));
  for (const auto& [name, value] : record.git) {
    absl::StrAppend(
        &html, Fact(EscapeHtml(absl::StrReplaceAll(name, {{"azureml.git.", "git "}, {"_", " "}})), EscapeHtml(value),
                    /*wide=*/absl::EndsWith(name, "uri")));
  }
  absl::StrAppend(&html, Fact("folder", EscapeHtml(record.folder), /*wide=*/true));
  return html + "</dl></section>\n";
}

std::string States(const PageContent& content) {
  const std::vector<StateChange>& history = content.record.history;
  std::string html = "<section><h2>States</h2><ol class=\"steps\">\n";
  for (size_t i = 0; i < history.size(); ++i) {
    const bool last = i + 1 == history.size();
    const std::string name = RunPhaseName(history[i].phase);
    const std::string css = last ? absl::StrCat(" class=\"last ", StateClass(name), "\"") : "";
    absl::StrAppend(&html, "<li", css, "><b>", name, "</b><span>", TimeElement(history[i].time), "</span>");
    if (!IsFinal(history[i].phase)) {
      const absl::Time until = last ? content.written : history[i + 1].time;
      absl::StrAppend(&html, "<span>", last ? "for " : "", DurationText(until - history[i].time), "</span>");
    }
    if (!history[i].reason.empty()) absl::StrAppend(&html, "<span>", EscapeHtml(history[i].reason), "</span>");
    html += "</li>\n";
  }
  return html + "</ol></section>\n";
}

std::string Number(double value) { return absl::StrFormat("%.6g", value); }

std::string Metrics(const PageContent& content) {
  if (content.series == nullptr || content.series->empty()) return "";
  std::string charts, rows;
  int number = 0;
  for (const auto& [name, tasks] : *content.series) {
    absl::StrAppend(&charts, "<figure><figcaption>", EscapeHtml(name), "</figcaption><div><canvas id=\"chart-",
                    number++, "\"></canvas></div></figure>\n");
    for (const auto& [task, series] : tasks) {
      absl::StrAppend(&rows, "<tr><td>", EscapeHtml(name), "</td><td>", task.Sentence(), "</td>");
      for (const std::string& cell :
           {Number(series.last().value), Number(series.min()), Number(series.max()), absl::StrCat(series.count())}) {
        absl::StrAppend(&rows, "<td class=\"number\">", cell, "</td>");
      }
      rows += "</tr>\n";
    }
  }
  return absl::StrCat(
      "<section><h2>Metrics</h2><div class=\"charts\">", charts,
      "</div><details data-key=\"values\"><summary>Values</summary><div class=\"wide-table\"><table><tr>"
      "<th>metric</th><th>task</th><th class=\"number\">last</th><th class=\"number\">least</th>"
      "<th class=\"number\">greatest</th><th class=\"number\">points</th></tr>\n",
      rows, "</table></div></details></section>\n");
}

std::string Tasks(const PageContent& content) {
  std::string html =
      "<section><h2>Tasks</h2><div class=\"wide-table\"><table><tr><th>task</th><th>host</th><th>address</th>"
      "<th class=\"number\">process</th><th>end</th></tr>\n";
  for (const TaskRecord& task : content.record.tasks) {
    std::string end = "<td class=\"quiet\">not started</td>";
    if (task.exit) {
      end = absl::StrCat("<td class=\"", task.exit->ok() ? "ok" : "ended-badly", "\">", task.exit->Text(), "</td>");
    } else if (task.pid != 0) {
      end = IsFinal(content.record.phase) ? "<td class=\"quiet\">unknown</td>" : "<td class=\"busy\">running</td>";
    }
    absl::StrAppend(&html, "<tr><td>", task.name.Sentence(), "</td><td>", EscapeHtml(task.host), "</td><td>",
                    EscapeHtml(task.address), "</td><td class=\"number\">", task.pid == 0 ? "" : absl::StrCat(task.pid),
                    "</td>", end, "</tr>\n");
  }
  return html + "</table></div></section>\n";
}

// Its log is what is looked for first.
bool EndedBadly(const PageContent& content, const std::string& log) {
  for (const TaskRecord& task : content.record.tasks) {
    if (task.exit && !task.exit->ok() && log == absl::StrCat("logs/", FileNameOf(task.name), ".txt")) return true;
  }
  return false;
}

std::string Logs(const PageContent& content) {
  if (content.logs.empty()) return "";
  std::string html = "<section><h2>Logs</h2>\n";
  for (const PageLog& log : content.logs) {
    absl::StrAppend(&html, "<details data-key=\"", EscapeHtml(log.path), "\"",
                    EndedBadly(content, log.path) ? " open" : "", "><summary><a href=\"", Url(log.path), "\">",
                    EscapeHtml(log.path), "</a><span>", BytesText(log.bytes), "</span></summary>");
    if (!log.tail.empty()) absl::StrAppend(&html, "<pre>", EscapeHtml(absl::StrJoin(log.tail, "\n")), "</pre>");
    html += "</details>\n";
  }
  return html + "</section>\n";
}

std::string Outputs(const PageContent& content) {
  if (content.outputs.empty()) return "";
  std::string html = "<section><h2>Outputs</h2><table>\n";
  for (const PageLog& file : content.outputs) {
    absl::StrAppend(&html, "<tr><td><a href=\"", Url(file.path), "\">", EscapeHtml(file.path),
                    "</a></td><td class=\"number\">", BytesText(file.bytes), "</td></tr>\n");
  }
  html += "</table>";
  if (content.outputs_cut) html += "<p class=\"quiet\">There are more; see the <a href=\"./outputs/\">folder</a>.</p>";
  return html + "</section>\n";
}

// JSON inside a script element: nothing in it may end the element.
std::string SeriesJson(const SeriesMap* series) {
  OrderedJson all = OrderedJson::array();
  if (series == nullptr) return "[]";
  for (const auto& [name, tasks] : *series) {
    OrderedJson lines = OrderedJson::array();
    for (const auto& [task, one] : tasks) {
      OrderedJson points = OrderedJson::array();
      for (const Series::Point& point : one.Points()) {
        points.push_back({point.step, std::isfinite(point.value) ? OrderedJson(point.value) : OrderedJson(nullptr)});
      }
      lines.push_back({{"task", task.Sentence()}, {"points", points}});
    }
    all.push_back({{"name", name}, {"tasks", lines}});
  }
  return absl::StrReplaceAll(Line(all), {{"<", "\\u003c"}, {">", "\\u003e"}, {"&", "\\u0026"}});
}

}  // namespace

std::string EscapeHtml(absl::string_view text) {
  // Through JSON, which replaces what is no UTF-8.
  const std::string sound = OrderedJson::parse(Line(OrderedJson(std::string(text)))).get<std::string>();
  std::string html;
  for (const char c : sound) {
    switch (c) {
      case '&':
        html += "&amp;";
        break;
      case '<':
        html += "&lt;";
        break;
      case '>':
        html += "&gt;";
        break;
      case '"':
        html += "&quot;";
        break;
      case '\'':
        html += "&#39;";
        break;
      case '\n':
      case '\t':
        html += c;
        break;
      default:
        html += absl::ascii_iscntrl(static_cast<unsigned char>(c)) ? "\xEF\xBF\xBD" : std::string(1, c);
    }
  }
  return html;
}

std::string RenderRunPage(const PageContent& content) {
  const RunRecord& record = content.record;
  const std::string state = RunPhaseName(record.phase);
  const bool over = IsFinal(record.phase);
  std::string html = absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src "
      "'nonce-",
      content.nonce, "'; base-uri 'none'; form-action 'none'\">\n",
      over ? "" : absl::StrCat("<meta http-equiv=\"refresh\" content=\"", kRefreshSeconds, "\">\n"),
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>", EscapeHtml(record.run_id),
      ": ", state, "</title>\n<style>", kRunPageStyle, "</style></head>\n<body><main>\n");
  absl::StrAppend(&html, Head(content, state), States(content), Metrics(content), Tasks(content), Logs(content),
                  Outputs(content));
  if (!content.job_json.empty()) {
    absl::StrAppend(&html, "<section><h2>Job</h2><details data-key=\"job\"><summary>As it was resolved</summary><pre>",
                    EscapeHtml(content.job_json), "</pre></details></section>\n");
  }
  absl::StrAppend(&html, "<footer>Written ", TimeElement(content.written),
                  over ? "." : absl::StrCat("; refreshed every ", kRefreshSeconds, " s while the run goes on."),
                  " For programs: <a href=\"./run.json\">run.json</a>, <a href=\"./metrics.jsonl\">metrics.jsonl</a>, "
                  "<a href=\"./journal.jsonl\">journal.jsonl</a>.</footer>\n</main>\n");
  absl::StrAppend(&html, "<script type=\"application/json\" id=\"series\">", SeriesJson(content.series),
                  "</script>\n<script nonce=\"", content.nonce, "\" src=\"chart.js\"></script>\n<script nonce=\"",
                  content.nonce, "\">", kRunPageScript, "</script>\n</body></html>\n");
  return html;
}

}  // namespace basin
