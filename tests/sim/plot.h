/* Hit rate against idle container-seconds, a picture per trace, as SVG. */
#pragma once

#include <stdint.h>

#define PLOT_WAYS 5U

struct figures {
    double hit_percent, p99_ms, idle_seconds;
    uint64_t misses;
};

int plot(const char *path, const char *const traces[], unsigned trace_count, const char *const ways[PLOT_WAYS],
         struct figures figures[][PLOT_WAYS]);
