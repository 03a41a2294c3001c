#include "sim/traces.h"

#include <math.h>

const char *const trace_names[TRACE_KINDS] = {"poisson", "bursty", "daily", "fan-out"};

static uint64_t task_length(const struct world_config *config, struct chance *chance)
{
    return 1 + chance_exponential(chance, config->task_ms * MS);
}

/* Three tasks a second, one after the other. */
static uint64_t arrive_poisson(struct world_config *config, struct chance *chance, void *world, uint64_t now_us)
{
    world_submit(world, 0, task_length(config, chance), 2, false, false);
    return now_us + chance_exponential(chance, SECOND / 3.0);
}

/* Quiet, then 4 to 12 tasks within half a second; 20 to 120 seconds between two bursts. */
static uint64_t arrive_bursty(struct world_config *config, struct chance *chance, void *world, uint64_t now_us)
{
    static _Thread_local uint64_t left;
    if (now_us <= 11 * SECOND)
        left = 0; /* of an earlier run */
    if (left == 0)
        left = 4 + chance_below(chance, 9);
    world_submit(world, 0, task_length(config, chance), 2, false, false);
    if (--left > 0)
        return now_us + chance_below(chance, 100 * MS);
    return now_us + 20 * SECOND + chance_below(chance, 100 * SECOND);
}

/* A day of two hours: from nearly nothing to four tasks a second and back. */
static uint64_t arrive_daily(struct world_config *config, struct chance *chance, void *world, uint64_t now_us)
{
    double hour = (double)(now_us % (7200 * SECOND)) / (7200.0 * SECOND) * 2 * M_PI;
    double rate = 0.05 + 2.0 * (1 - cos(hour));
    world_submit(world, 0, task_length(config, chance), 2, false, false);
    return now_us + chance_exponential(chance, SECOND / rate);
}

/* A planner's task, then its swarm of 5 to 10 at once, twice or three times; then a minute or so of silence. */
static uint64_t arrive_fanout(struct world_config *config, struct chance *chance, void *world, uint64_t now_us)
{
    static _Thread_local uint64_t waves;
    if (now_us <= 11 * SECOND)
        waves = 0;
    if (waves == 0) {
        waves = 2 + chance_below(chance, 2);
        world_submit(world, 0, task_length(config, chance), 2, false, false);
        return now_us + SECOND + chance_below(chance, SECOND);
    }
    for (uint64_t n = 5 + chance_below(chance, 6); n > 0; n--)
        world_submit(world, 0, task_length(config, chance), 2, false, false);
    if (--waves > 0)
        return now_us + 3 * SECOND + chance_below(chance, 3 * SECOND);
    return now_us + 30 * SECOND + chance_below(chance, 60 * SECOND);
}

/* One of the kinds in each pool, told apart by the seed, with leases, priorities and the wish for fresh containers. */
static uint64_t arrive_mixed(struct world_config *config, struct chance *chance, void *world, uint64_t now_us)
{
    uint64_t kind = config->seed % (TRACE_KINDS + 1), count = 1, gap = chance_exponential(chance, 150.0 * MS);
    if (kind == TRACE_BURSTY || kind == TRACE_FANOUT) { /* silence, then many at once */
        count = 5 + chance_below(chance, 30);
        gap = SECOND + chance_exponential(chance, 4.0 * SECOND);
    } else if (kind == TRACE_DAILY) { /* a wave of a minute */
        gap = (uint64_t)((double)gap * (1.5 + sin((double)(now_us % (60 * SECOND)) / (60.0 * SECOND) * 2 * M_PI)));
    } else if (kind == TRACE_KINDS && chance_hit(chance, 0.1)) {
        count = chance_below(chance, 30);
    }
    for (; count > 0; count--) {
        bool lease = chance_hit(chance, 0.05);
        world_submit(world, (uint32_t)chance_below(chance, config->pools),
                     lease ? chance_exponential(chance, 5.0 * SECOND) : task_length(config, chance),
                     (unsigned)chance_below(chance, TASK_PRIORITIES), lease, chance_hit(chance, 0.05));
    }
    return now_us + gap;
}

void trace_use(struct world_config *config, enum trace_kind kind)
{
    static uint64_t (*const arrive[])(struct world_config *, struct chance *, void *,
                                      uint64_t) = {arrive_poisson, arrive_bursty, arrive_daily, arrive_fanout};
    config->arrive = arrive[kind];
    config->pools = 1;
}

void trace_use_mixed(struct world_config *config)
{
    config->arrive = arrive_mixed;
}
