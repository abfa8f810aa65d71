// How the page of a run looks, and its script. Text alone, so that the code that fills it stays readable.
#pragma once

namespace basin {

inline constexpr char kRunPageStyle[] = R"css(
:root { color-scheme: light dark; --bg: #f6f7f9; --card: #fff; --ink: #1b1f27; --soft: #5d6675; --line: #dfe3ea;
  --accent: #2563eb; --code: #f1f3f6; --good: #15803d; --bad: #b91c1c; --busy: #1d4ed8; --warn: #a16207; }
@media (prefers-color-scheme: dark) { :root { --bg: #11141a; --card: #191e27; --ink: #e6e9ef; --soft: #97a1b3;
  --line: #2b3240; --accent: #7aa5ff; --code: #12161d; --good: #4ade80; --bad: #f87171; --busy: #7aa5ff; --warn: #fbbf24; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
header { display: flex; flex-wrap: wrap; gap: 6px 16px; align-items: center; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; }
h1 small { display: block; font-size: 14px; font-weight: 400; color: var(--soft); }
h2 { font-size: 13px; margin: 0 0 12px; color: var(--soft); text-transform: uppercase; letter-spacing: .06em; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin-top: 18px; }
.pill { padding: 3px 14px; border-radius: 99px; font-weight: 600; border: 1.5px solid currentColor; margin-left: auto; }
.Completed { color: var(--good); } .Failed { color: var(--bad); } .Canceled, .CancelRequested, .NotResponding { color: var(--warn); }
.busy { color: var(--busy); }
.reason { margin: 14px 0 0; padding: 10px 14px; border-left: 4px solid var(--bad); background: var(--code); border-radius: 4px;
  overflow-wrap: anywhere; white-space: pre-wrap; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 14px 20px; margin: 0; }
.facts dt { color: var(--soft); font-size: 12.5px; } .facts dd { margin: 0; overflow-wrap: anywhere; }
.facts .wide { grid-column: 1 / -1; }
.steps { display: flex; flex-wrap: wrap; list-style: none; margin: 0; padding: 0; gap: 14px 0; }
.steps li { flex: 1 1 130px; border-top: 3px solid var(--accent); padding: 8px 14px 0 0; overflow-wrap: anywhere; }
.steps .last { border-color: currentColor; } .steps b { display: block; }
.steps span { color: var(--soft); font-size: 12.5px; display: block; }
.wide-table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 500; font-size: 12.5px; }
th, td { padding: 5px 18px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; } td { overflow-wrap: anywhere; } .number { text-align: right; white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 20px; margin-bottom: 16px; }
.charts figure { margin: 0; min-width: 0; } .charts figcaption { font-weight: 600; margin-bottom: 4px; overflow-wrap: anywhere; }
.charts div { height: 220px; position: relative; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
pre { background: var(--code); border-radius: 6px; padding: 12px 14px; margin: 8px 0 4px; overflow: auto; max-height: 420px;
  font: 12.5px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
details { border-top: 1px solid var(--line); padding: 8px 0; } details:first-of-type { border-top: 0; }
summary { cursor: pointer; } summary span { color: var(--soft); font-size: 12.5px; margin-left: 8px; }
.ok { color: var(--good); } .ended-badly { color: var(--bad); font-weight: 600; } .quiet { color: var(--soft); }
footer { color: var(--soft); font-size: 12.5px; margin-top: 18px; }
)css";

// Charts out of the element "series", and details that stay open over a refresh.
inline constexpr char kRunPageScript[] = R"js(
(function () {
  'use strict';
  document.querySelectorAll('details[data-key]').forEach(function (element) {
    var key = location.pathname + '#' + element.dataset.key;
    try {
      var kept = sessionStorage.getItem(key);
      if (kept !== null) element.open = kept === '1';
      element.addEventListener('toggle', function () { sessionStorage.setItem(key, element.open ? '1' : '0'); });
    } catch (e) { /* a browser that keeps nothing for files */ }
  });
  if (typeof Chart === 'undefined') return;
  var colors = ['#3b82f6', '#f97316', '#10b981', '#a855f7', '#ef4444', '#14b8a6', '#eab308', '#ec4899', '#64748b', '#84cc16'];
  function draw() {
    var style = getComputedStyle(document.documentElement);
    var ink = style.getPropertyValue('--soft').trim(), line = style.getPropertyValue('--line').trim();
    JSON.parse(document.getElementById('series').textContent).forEach(function (metric, number) {
      var canvas = document.getElementById('chart-' + number);
      var old = Chart.getChart(canvas);
      if (old) old.destroy();
      new Chart(canvas, {
        type: 'line',
        data: {datasets: metric.tasks.map(function (task, i) {
          return {label: task.task, data: task.points.map(function (p) { return {x: p[0], y: p[1]}; }),
            borderColor: colors[i % colors.length], backgroundColor: colors[i % colors.length], borderWidth: 1.7,
            pointRadius: task.points.length > 30 ? 0 : 2.5, pointHitRadius: 8, tension: 0};
        })},
        options: {animation: false, maintainAspectRatio: false, interaction: {mode: 'nearest', axis: 'x', intersect: false},
          scales: {x: {type: 'linear', title: {display: true, text: 'step', color: ink}, ticks: {color: ink, maxTicksLimit: 7},
                       grid: {color: line}},
                   y: {ticks: {color: ink, maxTicksLimit: 6}, grid: {color: line}}},
          plugins: {legend: {display: metric.tasks.length < 13, position: 'bottom',
                             labels: {color: ink, boxWidth: 12, boxHeight: 2}}}}
      });
    });
    document.documentElement.dataset.charts = document.querySelectorAll('canvas').length;
  }
  draw();
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
})();
)js";

}  // namespace basin
