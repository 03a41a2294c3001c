/* The simulator's front:
 *
 *     sim check            at least ten million events over many seeds, and each planted bug found; prints TAP
 *     sim forever [SEED]   hostile worlds without end; stops at the first that breaks an invariant
 *     sim replay SEED      one of them
 *     sim costs            what a pool's operations cost, by its size; prints TAP
 *     sim compare [SVG]    the same arrivals under fixed sizes, the threshold and the predictive rule */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim/costs.h"
#include "sim/plot.h"
#include "sim/traces.h"

#define CHECK_EVENTS 20000000ULL
#define WAITS_ALL    (8U * WAITS_MAX)

static struct world_config hostile(uint64_t seed, enum plant plant)
{
    struct world_config config = {.seed = seed,
                                  .duration_us = 600 * SECOND,
                                  .hostile = true,
                                  .policy = seed % 3 == 0 ? POLICY_THRESHOLD : POLICY_PREDICTIVE,
                                  .plant = plant,
                                  .pools = 1 + (uint32_t)(seed % WORLD_POOLS),
                                  .scaler = {.interval_us = 2 * SECOND,
                                             .cooldown_us = 3 * SECOND,
                                             .up_percent = 80,
                                             .down_percent = 20,
                                             .hit_percent = 97},
                                  .janitor = {.max_age_us = 30 * SECOND, .idle_timeout_us = 20 * SECOND},
                                  .create_ms = 300,
                                  .task_ms = 150};
    trace_use_mixed(&config);
    return config;
}

static bool run_seed(uint64_t seed, enum plant plant, struct world_report *report)
{
    struct world_config config = hostile(seed, plant);
    *report = (struct world_report){.broken = SOUND};
    world_run(&config, report);
    return report->broken == SOUND;
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The seed that finds it, at most so many tried. */
static bool find_plant(enum plant plant, uint64_t *seed, struct world_report *report)
{
    for (*seed = 1; *seed <= 40; ++*seed)
        if (!run_seed(*seed, plant, report))
            return true;
    return false;
}

static bool same(const struct world_report *a, const struct world_report *b)
{
    return a->events == b->events && a->tasks == b->tasks && a->hits == b->hits && a->misses == b->misses &&
           a->created == b->created && a->idle_seconds == b->idle_seconds;
}

static int check(void)
{
    struct world_report report, again;
    uint64_t events = 0, seeds = 0, tasks = 0, ran = 0, seed;
    int failed = 0, number = 0;
    double begun = seconds_now();
    for (; events < CHECK_EVENTS && failed == 0; seeds++) {
        bool sound = run_seed(seeds + 1, PLANT_NONE, &report);
        events += report.events;
        tasks += report.tasks;
        ran += report.hits + report.misses;
        if (!sound) {
            printf("# seed %llu: %s: %s\n", (unsigned long long)seeds + 1, invariant_names[report.broken], report.what);
            failed++;
        }
    }
    printf("%s %d - %llu events, %llu tasks (%llu ran) over %llu seeds in %.1f s keep every invariant\n",
           failed ? "not ok" : "ok", ++number, (unsigned long long)events, (unsigned long long)tasks,
           (unsigned long long)ran, (unsigned long long)seeds, seconds_now() - begun);
    run_seed(7, PLANT_NONE, &report);
    run_seed(7, PLANT_NONE, &again);
    bool replays = same(&report, &again);
    failed += !replays;
    printf("%s %d - a seed replays exactly\n", replays ? "ok" : "not ok", ++number);
    for (unsigned plant = PLANT_NONE + 1; plant < PLANTS; plant++) {
        bool found = find_plant((enum plant)plant, &seed, &report) && report.broken == plant_invariants[plant];
        failed += !found;
        printf("%s %d - planted: %s: found by \"%s\" (%s)\n", found ? "ok" : "not ok", ++number, plant_names[plant],
               invariant_names[report.broken], report.what);
    }
    return failed > 0;
}

static int forever(uint64_t seed)
{
    struct world_report report;
    double begun = seconds_now(), said = begun;
    uint64_t events = 0;
    for (;; seed++) {
        if (!run_seed(seed, PLANT_NONE, &report)) {
            printf("seed %llu after %llu events: %s: %s\nagain: sim replay %llu\n", (unsigned long long)seed,
                   (unsigned long long)report.events, invariant_names[report.broken], report.what,
                   (unsigned long long)seed);
            return 1;
        }
        events += report.events;
        if (seconds_now() - said > 10) {
            said = seconds_now();
            printf("%llu events, up to seed %llu, %.0f s\n", (unsigned long long)events, (unsigned long long)seed,
                   said - begun);
            fflush(stdout);
        }
    }
}

static int replay(uint64_t seed)
{
    struct world_report report;
    bool sound = run_seed(seed, PLANT_NONE, &report);
    printf("seed %llu: %llu events, %llu tasks, %llu containers: %s%s%s\n", (unsigned long long)seed,
           (unsigned long long)report.events, (unsigned long long)report.tasks, (unsigned long long)report.created,
           sound ? "sound" : invariant_names[report.broken], sound ? "" : ": ", report.what);
    return !sound;
}

/* --- comparison --------------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static void compare_one(enum trace_kind kind, enum policy policy, uint32_t size, uint64_t first, uint64_t last,
                        struct figures *out)
{
    static double waits[WAITS_ALL];
    uint64_t hits = 0, misses = 0, count = 0;
    *out = (struct figures){0};
    for (uint64_t seed = first; seed <= last; seed++) {
        struct world_config config = {.seed = seed * 7919 + kind,
                                      .duration_us = (kind == TRACE_DAILY ? 14400 : 3600) * SECOND,
                                      .policy = policy,
                                      .limits = {.size = size, .min = 1, .max = 20, .max_queue = 100000, .reuse = true},
                                      .scaler = {.interval_us = 10 * SECOND,
                                                 .cooldown_us = 30 * SECOND,
                                                 .up_percent = 80,
                                                 .down_percent = 20,
                                                 .hit_percent = 97},
                                      .janitor = {.idle_timeout_us = 1800 * SECOND},
                                      .create_ms = 400,
                                      .task_ms = 800};
        if (policy == POLICY_FIXED)
            config.limits.min = config.limits.max = size;
        struct world_report report = {.broken = SOUND, .waits_ms = waits + count};
        trace_use(&config, kind);
        if (count + WAITS_MAX > WAITS_ALL)
            report.waits_ms = NULL;
        world_run(&config, &report);
        hits += report.hits;
        misses += report.misses;
        out->idle_seconds += report.idle_seconds;
        count += report.wait_count;
    }
    qsort(waits, count, sizeof *waits, ascending);
    out->hit_percent = 100.0 * (double)hits / (double)(hits + misses);
    out->misses = misses;
    out->p99_ms = count > 0 ? waits[count * 99 / 100] : 0;
}

static int compare(const char *svg)
{
    static const struct {
        const char *name;
        enum policy policy;
        uint32_t size;
    } ways[] = {{"fixed 2", POLICY_FIXED, 2},
                {"fixed 5", POLICY_FIXED, 5},
                {"fixed 10", POLICY_FIXED, 10},
                {"threshold", POLICY_THRESHOLD, 2},
                {"predictive", POLICY_PREDICTIVE, 2}};
    static struct figures figures[TRACE_KINDS][PLOT_WAYS];
    const char *names[PLOT_WAYS];
    _Static_assert(sizeof ways / sizeof ways[0] == PLOT_WAYS, "one bar for each");
    for (int round = 0; round < 2; round++) {
        uint64_t first = round == 0 ? 1 : 21;
        printf("%strace seeds %llu to %llu%s\n%-10s %-12s %10s %10s %14s %20s\n", round > 0 ? "\n" : "",
               (unsigned long long)first, (unsigned long long)first + 19,
               round == 0 ? " (tuned on these)" : " (reported)", "trace", "policy", "hit rate", "misses",
               "p99 queue ms", "idle container-s");
        for (unsigned kind = 0; kind < TRACE_KINDS; kind++) {
            for (unsigned way = 0; way < PLOT_WAYS; way++) {
                struct figures *now = &figures[kind][way];
                names[way] = ways[way].name;
                compare_one((enum trace_kind)kind, ways[way].policy, ways[way].size, first, first + 19, now);
                printf("%-10s %-12s %9.2f%% %10llu %14.1f %20.0f\n", trace_names[kind], ways[way].name,
                       now->hit_percent, (unsigned long long)now->misses, now->p99_ms, now->idle_seconds);
                fflush(stdout);
            }
        }
    }
    return svg == NULL ? 0 : plot(svg, trace_names, TRACE_KINDS, names, figures);
}

int main(int argc, char *argv[])
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "check") == 0)
        return check();
    if (strcmp(verb, "forever") == 0)
        return forever(argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL));
    if (strcmp(verb, "replay") == 0 && argc == 3)
        return replay(strtoull(argv[2], NULL, 10));
    if (strcmp(verb, "costs") == 0)
        return costs();
    if (strcmp(verb, "compare") == 0)
        return compare(argc > 2 ? argv[2] : NULL);
    fprintf(stderr, "usage: sim check | costs | forever [SEED] | replay SEED | compare [FILE.svg]\n");
    return 2;
}
