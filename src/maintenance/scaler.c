#include "maintenance/scaler.h"

uint32_t scaler_threshold(struct scaler_state *state, const struct scaler_config *config, struct pool *pool,
                          uint64_t now_us, double *utilization)
{
    *utilization = -1;
    if (state->since_us == 0) {
        pool_account(pool, now_us);
        *state = (struct scaler_state){.busy_integral = pool->busy_integral,
                                       .live_integral = pool->live_integral,
                                       .since_us = now_us,
                                       .changed_us = now_us};
        return pool->target;
    }
    if (now_us - state->since_us < config->interval_us)
        return pool->target;
    pool_account(pool, now_us);
    uint64_t busy = pool->busy_integral - state->busy_integral;
    uint64_t live = pool->live_integral - state->live_integral;
    state->busy_integral = pool->busy_integral;
    state->live_integral = pool->live_integral;
    state->since_us = now_us;
    if (live == 0)
        return pool->target;
    *utilization = 100.0 * (double)busy / (double)live;
    if (pool->pinned || pool->limits.on_demand || now_us - state->changed_us < config->cooldown_us)
        return pool->target;
    uint32_t target = pool->target;
    if (*utilization > config->up_percent && target < pool->limits.max)
        target++;
    else if (*utilization < config->down_percent && target > pool->limits.min)
        target--;
    if (target != pool->target)
        state->changed_us = now_us;
    return target;
}
