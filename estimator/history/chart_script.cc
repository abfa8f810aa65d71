// Chart.js within the program, so that wherever the program is, the page can be written. BASIN_CHART_JS: its path,
// found by CMake.
#include "estimator/history/run_page.h"

asm(".pushsection .rodata\n"
    ".global basin_chart_js_begin\nbasin_chart_js_begin:\n"
    ".incbin \"" BASIN_CHART_JS
    "\"\n"
    ".global basin_chart_js_end\nbasin_chart_js_end:\n"
    ".byte 0\n"
    ".popsection\n");

extern "C" {
extern const char basin_chart_js_begin[] __attribute__((visibility("hidden")));
extern const char basin_chart_js_end[] __attribute__((visibility("hidden")));
}

namespace basin {

absl::string_view ChartScript() {
  return {basin_chart_js_begin, static_cast<size_t>(basin_chart_js_end - basin_chart_js_begin)};
}

}  // namespace basin
