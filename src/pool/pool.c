#include "pool/pool.h"

#include <stddef.h>

#define BACKOFF_BASE_US 200000U
#define BACKOFF_MAX_US  60000000U

void pool_init(struct pool *pool, struct pool_set *set, const struct pool_limits *limits, uint64_t now_us)
{
    *pool = (struct pool){.set = set, .limits = *limits, .accounted_us = now_us};
    list_init(&pool->link);
    for (unsigned i = 0; i < CONTAINER_STATES; i++)
        list_init(&pool->containers[i]);
    list_init(&pool->idle_unused);
    queue_init(&pool->queue);
    queue_init(&pool->fresh_queue);
    pool->target = limits->on_demand ? 0 : limits->size;
}

uint32_t pool_live(const struct pool *pool)
{
    return pool->count[CONTAINER_CREATING] + pool->count[CONTAINER_CONNECTING] + pool->count[CONTAINER_IDLE] +
           pool->count[CONTAINER_BUSY] + pool->count[CONTAINER_RESETTING];
}

void pool_account(struct pool *pool, uint64_t now_us)
{
    uint64_t elapsed = now_us - pool->accounted_us;
    pool->accounted_us = now_us;
    pool->busy_integral += elapsed * (pool->count[CONTAINER_BUSY] + pool->count[CONTAINER_RESETTING]);
    pool->live_integral += elapsed * pool_live(pool);
}

/* --- tasks ---------------------------------------------------------------------------------------- */

bool pool_submit(struct pool *pool, struct task *task, uint64_t now_us)
{
    if (pool->queue.length + pool->fresh_queue.length >= pool->limits.max_queue)
        return false;
    task->pool = pool;
    task->state = TASK_QUEUED;
    task->submitted_us = now_us;
    queue_push(task->fresh ? &pool->fresh_queue : &pool->queue, task);
    return true;
}

static struct container *first_on(const struct list *head)
{
    return list_empty(head) ? NULL : list_entry(head->next, struct container, link);
}

/* Of two queue heads, the one that comes first by priority, then by time. */
static bool comes_first(const struct task *a, const struct task *b)
{
    if (b == NULL)
        return true;
    if (a->priority != b->priority)
        return a->priority < b->priority;
    return a->submitted_us <= b->submitted_us;
}

struct task *pool_dispatch(struct pool *pool, uint64_t now_us)
{
    struct task *task = queue_peek(&pool->queue);
    struct task *fresh = queue_peek(&pool->fresh_queue);
    struct container *used = first_on(&pool->containers[CONTAINER_IDLE]);
    struct container *unused = first_on(&pool->idle_unused);
    struct container *container = NULL;

    if (fresh != NULL && unused != NULL && (task == NULL || used != NULL || comes_first(fresh, task))) {
        task = fresh;
        container = unused;
    } else if (task != NULL) {
        container = used != NULL ? used : unused;
    }
    if (container == NULL)
        return NULL;

    queue_remove(task->fresh ? &pool->fresh_queue : &pool->queue, task);
    task->hit = container->ready_us <= task->submitted_us;
    task->state = TASK_RUNNING;
    task->container = container;
    task->dispatched_us = now_us;
    container_enter(container, CONTAINER_BUSY, now_us);
    container->task = task;
    container->exec_count++;
    pool->counters.tasks++;
    if (task->hit)
        pool->counters.hits++;
    else
        pool->counters.misses++;
    return task;
}

void pool_withdraw(struct pool *pool, struct task *task)
{
    queue_remove(task->fresh ? &pool->fresh_queue : &pool->queue, task);
    task->state = TASK_ENDED;
}

void pool_task_ended(struct pool *pool, struct task *task, uint64_t now_us)
{
    (void)pool;
    task->container->last_used_us = now_us;
    task->container->task = NULL;
    task->container = NULL;
    task->state = TASK_ENDED;
}

bool pool_may_reuse(const struct pool *pool, const struct container *container)
{
    if (!pool->limits.reuse || pool->limits.on_demand)
        return false;
    return pool->limits.max_tasks_per_container == 0 || container->exec_count < pool->limits.max_tasks_per_container;
}

/* --- sizes ---------------------------------------------------------------------------------------- */

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* What waiting tasks ask for: a container each, beside those at work. A resetting one is about to be free. */
static uint32_t pool_demand(const struct pool *pool)
{
    uint32_t demand = pool->count[CONTAINER_BUSY] + pool->queue.length;
    if (pool->fresh_queue.length > 0) /* used idle containers are no use to these */
        demand += pool->fresh_queue.length + pool->count[CONTAINER_IDLE];
    return demand;
}

static uint32_t pool_ceiling(const struct pool *pool)
{
    return pool->pinned ? pool->target : pool->limits.max;
}

uint32_t pool_creations(struct pool *pool, uint64_t now_us)
{
    if (pool->stopped || now_us < pool->retry_us)
        return 0;
    uint32_t demand = smaller(pool_demand(pool), pool_ceiling(pool));
    uint32_t want = pool->target;
    if (demand > want) {
        want = demand;
        if (!pool->limits.on_demand)
            pool->target = demand;
    }
    uint32_t live = pool_live(pool);
    uint32_t creating = pool->count[CONTAINER_CREATING] + pool->count[CONTAINER_CONNECTING];
    /* One surge container while something is being replaced. */
    if (pool->expiring > 0 && live == want && want <= pool->limits.max)
        want++;
    if (live >= want)
        return 0;
    uint32_t missing = want - live;
    struct pool_set *set = pool->set;
    missing = smaller(missing, set->max_containers > set->containers ? set->max_containers - set->containers : 0);
    missing = smaller(missing, set->max_creating > set->creating ? set->max_creating - set->creating : 0);
    /* After a failure one attempt at a time. */
    if (pool->failures > 0)
        missing = creating > 0 ? 0 : smaller(missing, 1);
    return missing;
}

static struct container *last_on(const struct list *head)
{
    return list_empty(head) ? NULL : list_entry(head->prev, struct container, link);
}

static struct container *expiring_on(const struct list *head)
{
    list_for_each (node, head) {
        struct container *container = list_entry(node, struct container, link);
        if (container->expiring)
            return container;
    }
    return NULL;
}

struct container *pool_surplus(struct pool *pool)
{
    uint32_t serving = pool->count[CONTAINER_IDLE] + pool->count[CONTAINER_BUSY] + pool->count[CONTAINER_RESETTING];
    uint32_t want = pool->target;
    uint32_t demand = smaller(pool_demand(pool), pool_ceiling(pool));
    if (demand > want)
        want = demand;
    if (pool->expiring > 0) {
        struct container *sick = expiring_on(&pool->containers[CONTAINER_UNHEALTHY]);
        if (sick != NULL && (serving >= want || pool->stopped))
            return sick;
        if (serving > want) {
            struct container *old = expiring_on(&pool->containers[CONTAINER_IDLE]);
            if (old == NULL)
                old = expiring_on(&pool->idle_unused);
            if (old != NULL)
                return old;
        }
    }
    if (pool_live(pool) > want + (pool->expiring > 0)) {
        struct container *oldest = last_on(&pool->containers[CONTAINER_IDLE]);
        return oldest != NULL ? oldest : last_on(&pool->idle_unused);
    }
    /* Used containers that fresh tasks cannot take make room for ones that they can. */
    if (pool->fresh_queue.length > 0 && pool->count[CONTAINER_CREATING] + pool->count[CONTAINER_CONNECTING] == 0 &&
        pool_live(pool) >= pool_ceiling(pool) && list_empty(&pool->idle_unused) && pool->queue.length == 0)
        return last_on(&pool->containers[CONTAINER_IDLE]);
    return NULL;
}

void pool_create_failed(struct pool *pool, uint64_t now_us, uint32_t random)
{
    uint64_t delay = BACKOFF_BASE_US;
    for (uint32_t i = 0; i < pool->failures && delay < BACKOFF_MAX_US; i++)
        delay *= 2;
    if (delay > BACKOFF_MAX_US)
        delay = BACKOFF_MAX_US;
    pool->retry_us = now_us + delay / 2 + delay / 2 * (random % 1024) / 1024;
    pool->failures++;
    pool->counters.create_failures++;
}

void pool_create_succeeded(struct pool *pool)
{
    pool->failures = 0;
    pool->retry_us = 0;
}

void pool_pin(struct pool *pool, uint32_t size)
{
    if (size > pool->limits.max)
        size = pool->limits.max;
    pool->target = size < 1 ? 1 : size;
    pool->pinned = true;
}

void pool_unpin(struct pool *pool)
{
    pool->pinned = false;
    if (pool->target < pool->limits.min)
        pool->target = pool->limits.min;
}

void pool_warm(struct pool *pool, uint32_t size)
{
    size = smaller(size, pool_ceiling(pool));
    if (pool->target < size)
        pool->target = size;
}
