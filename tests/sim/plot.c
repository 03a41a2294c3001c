#include "sim/plot.h"

#include <stdio.h>

#define WIDTH  330
#define HEIGHT 240
#define LEFT   50
#define BELOW  44
#define ABOVE  28

static const char *const colours[PLOT_WAYS] = {"#bbb", "#999", "#666", "#d95f02", "#1b9e77"};

static void one(FILE *out, int x, const char *trace, const char *const ways[PLOT_WAYS], const struct figures *figures)
{
    double most = 0, least = 100;
    for (unsigned i = 0; i < PLOT_WAYS; i++) {
        most = figures[i].idle_seconds > most ? figures[i].idle_seconds : most;
        least = figures[i].hit_percent < least ? figures[i].hit_percent : least;
    }
    double low = least > 95 ? 95 : least - 3, width = WIDTH - LEFT - 20, height = HEIGHT - ABOVE - BELOW;
    fprintf(out, "<g transform=\"translate(%d,0)\"><text x=\"%d\" y=\"18\" class=\"t\">%s</text>\n", x, LEFT, trace);
    fprintf(out, "<path d=\"M%d %dV%dH%d\" fill=\"none\" stroke=\"#888\"/>\n", LEFT, ABOVE, HEIGHT - BELOW, WIDTH - 20);
    for (int i = 0; i <= 2; i++) {
        double y = ABOVE + height * i / 2;
        fprintf(out, "<text x=\"%d\" y=\"%.0f\" text-anchor=\"end\">%.0f %%</text>\n", LEFT - 4, y + 4,
                100 - (100 - low) * i / 2);
    }
    fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">idle container-hours: 0 to %.0f</text>\n",
            LEFT + (int)width / 2, HEIGHT - BELOW + 16, most / 3600);
    for (unsigned i = 0; i < PLOT_WAYS; i++) {
        double px = LEFT + figures[i].idle_seconds / most * width;
        double py = ABOVE + (100 - figures[i].hit_percent) / (100 - low) * height;
        fprintf(out,
                "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"6\" fill=\"%s\"><title>%s: hit rate %.2f %%, idle %.0f s, p99 "
                "%.0f ms</title></circle>\n",
                px, py, colours[i], ways[i], figures[i].hit_percent, figures[i].idle_seconds, figures[i].p99_ms);
    }
    fprintf(out, "</g>\n");
}

int plot(const char *path, const char *const traces[], unsigned trace_count, const char *const ways[PLOT_WAYS],
         struct figures figures[][PLOT_WAYS])
{
    FILE *out = fopen(path, "w");
    if (out == NULL) {
        perror(path);
        return 1;
    }
    fprintf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%d\" font-family=\"sans-serif\" "
        "font-size=\"11\">\n"
        "<style>.t{font-size:14px;font-weight:bold}</style><rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
        trace_count * WIDTH, HEIGHT + 20);
    for (unsigned i = 0; i < trace_count; i++)
        one(out, (int)i * WIDTH, traces[i], ways, figures[i]);
    for (unsigned i = 0; i < PLOT_WAYS; i++)
        fprintf(out, "<circle cx=\"%d\" cy=\"%d\" r=\"5\" fill=\"%s\"/><text x=\"%d\" y=\"%d\">%s</text>\n",
                60 + (int)i * 120, HEIGHT, colours[i], 70 + (int)i * 120, HEIGHT + 4, ways[i]);
    fprintf(out, "</svg>\n");
    return fclose(out) == 0 ? 0 : 1;
}
