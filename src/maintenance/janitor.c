#include "maintenance/janitor.h"

uint64_t janitor_expiry(const struct janitor_config *config, uint64_t now_us, uint32_t random)
{
    if (config->max_age_us == 0)
        return 0;
    return now_us + config->max_age_us - config->max_age_us / 10 * (random % 1024) / 1024;
}

bool janitor_due(const struct container *container, uint64_t now_us)
{
    return container->expires_us != 0 && now_us >= container->expires_us && !container->expiring;
}

static uint32_t janitor_list(const struct janitor_config *config, struct pool *pool, struct list *head, uint64_t now_us)
{
    uint32_t acted = 0;
    list_for_each_safe (node, head) { /* marking one moves it to the end */
        struct container *container = list_entry(node, struct container, link);
        if (janitor_due(container, now_us)) {
            container_expire(container);
            acted++;
            continue;
        }
        bool idle_too_long = config->idle_timeout_us != 0 && now_us - container->entered_us > config->idle_timeout_us;
        if (idle_too_long && !pool->pinned && pool->target > pool->limits.min && pool_live(pool) >= pool->target) {
            pool->target--;
            acted++;
        }
    }
    return acted;
}

uint32_t janitor_pass(const struct janitor_config *config, struct pool *pool, uint64_t now_us)
{
    return janitor_list(config, pool, &pool->containers[CONTAINER_IDLE], now_us) +
           janitor_list(config, pool, &pool->idle_unused, now_us);
}
