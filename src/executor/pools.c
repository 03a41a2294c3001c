/* What can be asked of a pool and told to it: the operator's verbs. */
#include <stdarg.h>
#include <stdlib.h>

#include "base/clock.h"
#include "executor/internal.h"

void agent_pool_scaled(struct agent_pool *owner, const char *format, ...)
{
    if (owner->pool.target == owner->target_told)
        return;
    char why[160];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    log_info(owner->executor->log, "%s: scaled from %u to %u containers: %s", owner->profile->agent_type,
             owner->target_told, owner->pool.target, why);
    executor_event(owner->executor, &(struct event){.type = EVENT_POOL_SCALED,
                                                    .agent_type = owner->profile->agent_type,
                                                    .text = why,
                                                    .a = owner->target_told,
                                                    .b = owner->pool.target});
    owner->target_told = owner->pool.target;
}

void agent_pool_create_failed(struct agent_pool *owner, const struct error *error)
{
    bool open = pool_circuit_open(&owner->pool);
    pool_create_failed(&owner->pool, clock_us(), executor_random(owner->executor));
    if (open || !pool_circuit_open(&owner->pool))
        return;
    log_warn(owner->executor->log, "%s: %u containers in a row could not be made: from now on one is tried, seldom",
             owner->profile->agent_type, owner->pool.failures);
    executor_event(owner->executor, &(struct event){.type = EVENT_CIRCUIT_OPENED,
                                                    .agent_type = owner->profile->agent_type,
                                                    .text = error->message,
                                                    .a = owner->pool.failures});
}

void agent_pool_create_succeeded(struct agent_pool *owner)
{
    if (pool_circuit_open(&owner->pool))
        executor_event(owner->executor,
                       &(struct event){.type = EVENT_CIRCUIT_CLOSED, .agent_type = owner->profile->agent_type});
    pool_create_succeeded(&owner->pool);
}

void agent_pool_info(struct pool_info *info, const struct agent_pool *owner)
{
    const struct pool *pool = &owner->pool;
    *info = (struct pool_info){.agent_type = owner->profile->agent_type,
                               .target = pool->target,
                               .min = pool->limits.min,
                               .max = pool->limits.max,
                               .pinned = pool->pinned,
                               .paused = pool->paused,
                               .draining = pool->draining,
                               .reuse_stopped = pool->tainted,
                               .canaries = pool->counters.canaries,
                               .contaminations = pool->counters.contaminations,
                               .circuit_open = pool_circuit_open(pool),
                               .expiring = pool->expiring,
                               .total = pool_live(pool) + pool->count[CONTAINER_UNHEALTHY],
                               .creating = pool->count[CONTAINER_CREATING] + pool->count[CONTAINER_CONNECTING],
                               .idle = pool->count[CONTAINER_IDLE],
                               .busy = pool->count[CONTAINER_BUSY],
                               .resetting = pool->count[CONTAINER_RESETTING],
                               .unhealthy = pool->count[CONTAINER_UNHEALTHY],
                               .retiring = pool->count[CONTAINER_RETIRING] + pool->count[CONTAINER_REMOVING] +
                                           pool->count[CONTAINER_STUCK],
                               .healthy = pool_serving(pool),
                               .waiting = pool_waiting(pool),
                               .tasks = pool->counters.tasks,
                               .hits = pool->counters.hits,
                               .misses = pool->counters.misses,
                               .leases = pool->counters.leases,
                               .retries = pool->counters.retries,
                               .created = pool->counters.created,
                               .removed = pool->counters.removed,
                               .resets = pool->counters.resets,
                               .resets_failed = pool->counters.resets_failed,
                               .image = owner->profile->image,
                               .last_error = owner->last_error.code == ERROR_NONE ? "" : owner->last_error.message};
}

void executor_pools(const struct executor *executor, pool_info_fn *fn, void *user)
{
    list_for_each (node, &executor->pools) {
        struct pool_info info;
        agent_pool_info(&info, list_entry(node, struct agent_pool, link));
        fn(user, &info);
    }
}

int executor_pool(const struct executor *executor, const char *agent_type, struct pool_info *info, struct error *err)
{
    const struct agent_pool *owner = executor_pool_find(executor, agent_type);
    if (owner == NULL)
        return error_set(err, ERROR_NOT_FOUND, "there is no pool of agent type \"%.64s\"", agent_type);
    agent_pool_info(info, owner);
    return 0;
}

int executor_scale(struct executor *executor, const char *agent_type, int size, struct error *err)
{
    if (executor->closing)
        return error_set(err, ERROR_UNAVAILABLE, "warmpool is stopping");
    struct agent_pool *owner = executor_pool_get(executor, agent_type, err);
    if (owner == NULL)
        return -1;
    if (size == -1) {
        pool_unpin(&owner->pool);
        agent_pool_scaled(owner, "its size was released");
    } else if (size < 1 || (uint32_t)size > owner->pool.limits.max) {
        return error_set(err, ERROR_INVALID, "the size of %s must be 1 to %u (maxPoolSize), not %d", agent_type,
                         owner->pool.limits.max, size);
    } else {
        pool_pin(&owner->pool, (uint32_t)size);
        agent_pool_scaled(owner, "its size was pinned");
    }
    executor_kick(executor);
    return 0;
}

int executor_warm(struct executor *executor, const char *agent_type, uint32_t size,
                  void (*done)(void *user, const struct error *error), void *user, struct error *err)
{
    if (executor->closing)
        return error_set(err, ERROR_UNAVAILABLE, "warmpool is stopping");
    struct agent_pool *owner = executor_pool_get(executor, agent_type, err);
    if (owner == NULL)
        return -1;
    uint32_t most = owner->pool.pinned ? owner->pool.target : owner->pool.limits.max;
    if (size < 1 || size > most)
        return error_set(err, ERROR_INVALID, "%s can have 1 to %u containers (%s), not %u", agent_type, most,
                         owner->pool.pinned ? "its size is pinned" : "maxPoolSize", size);
    struct warm_wait *wait = calloc(1, sizeof *wait);
    if (wait == NULL)
        return error_set(err, ERROR_NOMEM, "out of memory");
    wait->size = size;
    wait->done = done;
    wait->user = user;
    list_push_back(&owner->warm_waits, &wait->link);
    pool_warm(&owner->pool, size);
    agent_pool_scaled(owner, "%u warm containers were asked for", size);
    executor_kick(executor);
    return 0;
}

static struct agent_pool *pool_to_change(struct executor *executor, const char *agent_type, struct error *err)
{
    if (!executor->closing)
        return executor_pool_get(executor, agent_type, err);
    error_set(err, ERROR_UNAVAILABLE, "warmpool is stopping");
    return NULL;
}

int executor_pause(struct executor *executor, const char *agent_type, struct error *err)
{
    struct agent_pool *owner = pool_to_change(executor, agent_type, err);
    if (owner == NULL)
        return -1;
    if (!owner->pool.paused) {
        log_info(executor->log, "%s: paused: tasks wait", agent_type);
        executor_event(executor, &(struct event){.type = EVENT_POOL_PAUSED, .agent_type = agent_type});
    }
    owner->pool.paused = true;
    return 0;
}

int executor_resume(struct executor *executor, const char *agent_type, struct error *err)
{
    struct agent_pool *owner = pool_to_change(executor, agent_type, err);
    if (owner == NULL)
        return -1;
    if (owner->pool.paused || owner->pool.draining || owner->pool.tainted) {
        log_info(executor->log, "%s: resumed", agent_type);
        executor_event(executor, &(struct event){.type = EVENT_POOL_RESUMED, .agent_type = agent_type});
    }
    owner->pool.paused = owner->pool.draining = owner->pool.tainted = false;
    agent_pool_dispatch(owner);
    executor_kick(executor);
    return 0;
}

int executor_drain(struct executor *executor, const char *agent_type,
                   void (*done)(void *user, const struct error *error), void *user, struct error *err)
{
    struct agent_pool *owner = pool_to_change(executor, agent_type, err);
    struct warm_wait *wait = owner == NULL ? NULL : calloc(1, sizeof *wait);
    if (owner == NULL)
        return -1;
    if (wait == NULL)
        return error_set(err, ERROR_NOMEM, "out of memory");
    if (!owner->pool.draining) {
        log_info(executor->log, "%s: draining: it takes no new tasks", agent_type);
        executor_event(executor, &(struct event){.type = EVENT_POOL_DRAINING, .agent_type = agent_type});
    }
    wait->done = done;
    wait->user = user;
    list_push_back(&owner->drain_waits, &wait->link);
    owner->pool.draining = true;
    owner->pool.paused = false; /* what waits is served first */
    agent_pool_dispatch(owner);
    executor_kick(executor);
    return 0;
}

static void expire(struct list *head)
{
    list_for_each_safe (node, head) { /* marking one may move it to the end */
        container_expire(list_entry(node, struct container, link));
    }
}

int executor_refresh_pool(struct executor *executor, const char *agent_type, struct error *err)
{
    struct agent_pool *owner = executor_pool_find(executor, agent_type);
    if (owner == NULL)
        return error_set(err, ERROR_NOT_FOUND, "there is no pool of agent type \"%.64s\"", agent_type);
    agent_pool_expire_all(owner);
    executor_kick(executor);
    return 0;
}

void agent_pool_expire_all(struct agent_pool *owner)
{
    for (unsigned state = CONTAINER_CREATING; state < CONTAINER_RETIRING; state++)
        expire(&owner->pool.containers[state]);
    expire(&owner->pool.idle_unused);
}
