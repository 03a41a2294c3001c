#include "pool/pool.h"

#include <stddef.h>

#define BACKOFF_BASE_US 200000U
#define BACKOFF_MAX_US  60000000U

void pool_set_init(struct pool_set *set, uint32_t max_containers, uint32_t max_creating)
{
    *set = (struct pool_set){.max_containers = max_containers, .max_creating = max_creating};
    list_init(&set->pools);
}

void pool_init(struct pool *pool, struct pool_set *set, const struct pool_limits *limits, uint64_t now_us)
{
    *pool = (struct pool){.set = set, .limits = *limits, .accounted_us = now_us};
    list_push_back(&set->pools, &pool->link);
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

uint32_t pool_serving(const struct pool *pool)
{
    return pool->count[CONTAINER_IDLE] + pool->count[CONTAINER_BUSY] + pool->count[CONTAINER_RESETTING];
}

void pool_account(struct pool *pool, uint64_t now_us)
{
    uint64_t elapsed = now_us - pool->accounted_us;
    pool->accounted_us = now_us;
    pool->busy_integral += elapsed * (pool->count[CONTAINER_BUSY] + pool->count[CONTAINER_RESETTING]);
    pool->live_integral += elapsed * pool_live(pool);
}

/* --- tasks ---------------------------------------------------------------------------------------- */

static struct queue *queue_of(struct pool *pool, const struct task *task)
{
    return task->fresh ? &pool->fresh_queue : &pool->queue;
}

static void watch_deadline(struct pool *pool, struct task *task, uint64_t deadline_us)
{
    task->deadline = (struct heap_node){.key = deadline_us};
    if (deadline_us != 0)
        heap_add(&pool->deadlines, &task->deadline, deadline_us);
}

static void leave_queue(struct pool *pool, struct task *task)
{
    queue_remove(queue_of(pool, task), task);
    heap_remove(&pool->deadlines, &task->deadline);
}

bool pool_submit(struct pool *pool, struct task *task, uint64_t deadline_us, uint64_t now_us)
{
    if (pool_waiting(pool) >= pool->limits.max_queue)
        return false;
    task->pool = pool;
    task->state = TASK_QUEUED;
    task->submitted_us = now_us;
    queue_push(queue_of(pool, task), task);
    watch_deadline(pool, task, deadline_us);
    pool->counters.arrivals++;
    uint32_t demand = pool->count[CONTAINER_BUSY] + pool->count[CONTAINER_RESETTING] + pool_waiting(pool);
    if (demand > pool->demand_peak)
        pool->demand_peak = demand;
    return true;
}

uint32_t pool_waiting(const struct pool *pool)
{
    return pool->queue.length + pool->fresh_queue.length;
}

static struct container *first_on(const struct list *head)
{
    return list_empty(head) ? NULL : list_entry(head->next, struct container, link);
}

/* The container and the task know each other from now on, until pool_task_ended() or pool_lease_ended(). */
static void hand_out(struct pool *pool, struct container *container, struct task *task, uint64_t now_us)
{
    task->state = TASK_RUNNING;
    task->container = container;
    task->dispatched_us = now_us;
    container_enter(container, CONTAINER_BUSY, now_us);
    container->used = true;
    if (task->lease) {
        container->holder = task;
        pool->counters.leases++;
        return;
    }
    container->task = task;
    container->exec_count++;
    pool->counters.tasks++;
    if (task->hit)
        pool->counters.hits++;
    else
        pool->counters.misses++;
}

struct task *pool_dispatch(struct pool *pool, uint64_t now_us)
{
    struct task *task = queue_peek(&pool->queue);
    struct task *fresh = queue_peek(&pool->fresh_queue);
    struct container *used = first_on(&pool->containers[CONTAINER_IDLE]);
    struct container *unused = first_on(&pool->idle_unused);
    struct container *container = NULL;

    if (pool->paused)
        return NULL;
    if (fresh != NULL && unused != NULL && (task == NULL || used != NULL || queue_rank(fresh) <= queue_rank(task))) {
        task = fresh;
        container = unused;
    } else if (task != NULL) {
        container = used != NULL ? used : unused;
    }
    if (container == NULL)
        return NULL;

    leave_queue(pool, task);
    task->hit = container->ready_us <= task->submitted_us;
    hand_out(pool, container, task, now_us);
    return task;
}

void pool_withdraw(struct pool *pool, struct task *task)
{
    leave_queue(pool, task);
    task->state = TASK_ENDED;
}

uint64_t pool_next_deadline(const struct pool *pool)
{
    const struct heap_node *first = heap_first(&pool->deadlines);
    return first == NULL ? UINT64_MAX : first->key;
}

struct task *pool_overdue(const struct pool *pool, uint64_t now_us)
{
    struct heap_node *first = heap_first(&pool->deadlines);
    return first == NULL || now_us < first->key ? NULL : heap_entry(first, struct task, deadline);
}

void pool_task_ended(struct pool *pool, struct task *task, uint64_t now_us)
{
    (void)pool;
    task->container->last_used_us = now_us;
    task->container->task = NULL;
    task->container = NULL;
    task->state = TASK_ENDED;
}

void pool_put_back(struct pool *pool, struct task *task, uint64_t now_us)
{
    pool_task_ended(pool, task, now_us);
    pool->counters.tasks--; /* it counts when it is handed out for good */
    if (task->hit)
        pool->counters.hits--;
    else
        pool->counters.misses--;
    pool->counters.retries++;
    task->state = TASK_QUEUED;
    queue_put_back(queue_of(pool, task), task);
    watch_deadline(pool, task, task->deadline.key);
}

bool pool_lease_run(struct pool *pool, struct task *holder, struct task *task, uint64_t now_us)
{
    struct container *container = holder->container;
    if (container->task != NULL)
        return false;
    task->pool = pool;
    task->state = TASK_RUNNING;
    task->container = container;
    task->dispatched_us = now_us;
    task->hit = true;
    container->task = task;
    container->exec_count++;
    pool->counters.tasks++;
    pool->counters.hits++;
    return true;
}

void pool_take(struct pool *pool, struct container *container, struct task *task, uint64_t now_us)
{
    task->pool = pool;
    task->state = TASK_RUNNING;
    task->container = container;
    task->submitted_us = task->dispatched_us = now_us;
    container_enter(container, CONTAINER_BUSY, now_us);
    container->used = true;
    container->task = task;
}

void pool_give_back(struct pool *pool, struct container *container, uint64_t idle_since_us)
{
    struct list *head = &pool->containers[CONTAINER_IDLE];
    container->entered_us = idle_since_us;
    if (container->expiring)
        return; /* it is last anyway */
    list_remove(&container->link);
    struct list *after = head->prev;
    while (after != head && (list_entry(after, struct container, link)->expiring ||
                             list_entry(after, struct container, link)->entered_us < idle_since_us))
        after = after->prev;
    list_insert(after, &container->link);
}

void pool_lease_ended(struct pool *pool, struct task *holder, uint64_t now_us)
{
    (void)pool;
    holder->container->last_used_us = now_us;
    holder->container->holder = NULL;
    holder->container = NULL;
    holder->state = TASK_ENDED;
}

bool pool_replaced(const struct pool *pool, const struct container *container)
{
    bool serves = container->state != CONTAINER_UNHEALTHY; /* and so is one of those that are counted */
    return container->expiring && !pool->draining && !pool->stopped && pool_serving(pool) >= pool->target + serves &&
           pool_serving(pool) > 0;
}

bool pool_may_reuse(const struct pool *pool, const struct container *container)
{
    if (!pool->limits.reuse || pool->limits.on_demand || pool->tainted || pool_replaced(pool, container) ||
        (pool->draining && pool_waiting(pool) == 0))
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
    if (pool->paused) /* what waits, waits for an operator */
        return pool->count[CONTAINER_BUSY];
    if (pool->fresh_queue.length > 0) /* used idle containers are no use to these */
        demand += pool->fresh_queue.length + pool->count[CONTAINER_IDLE];
    return demand;
}

static uint32_t pool_ceiling(const struct pool *pool)
{
    return pool->pinned ? pool->target : pool->limits.max;
}

static uint32_t pool_wanted(const struct pool *pool)
{
    uint32_t want = pool->draining ? 0 : pool->target;
    uint32_t demand = smaller(pool_demand(pool), pool_ceiling(pool));
    return demand > want ? demand : want;
}

/* How many containers more the memory budget has room for. */
static uint32_t room_in_budget(const struct pool *pool)
{
    const struct pool_set *set = pool->set;
    if (set->memory_budget == 0 || pool->limits.memory_bytes == 0)
        return UINT32_MAX;
    uint64_t room = set->memory_budget > set->memory_bytes ? set->memory_budget - set->memory_bytes : 0;
    room /= pool->limits.memory_bytes;
    return room > UINT32_MAX ? UINT32_MAX : (uint32_t)room;
}

/* Under the caps that all pools share. */
static uint32_t room_in_set(const struct pool *pool)
{
    const struct pool_set *set = pool->set;
    return smaller(set->max_containers > set->containers ? set->max_containers - set->containers : 0,
                   room_in_budget(pool));
}

bool pool_held_back(const struct pool *pool, uint64_t now_us)
{
    const struct pool_set *set = pool->set;
    uint32_t demand = smaller(pool_demand(pool), pool_ceiling(pool));
    return !pool->stopped && now_us >= pool->retry_us && pool_waiting(pool) > 0 && demand > pool_live(pool) &&
           room_in_set(pool) == 0 && (set->memory_budget == 0 || pool->limits.memory_bytes <= set->memory_budget);
}

/* Those that serve although they are to be replaced. */
static uint32_t expiring_live(const struct pool *pool)
{
    return pool->expiring - smaller(pool->expiring, pool->count[CONTAINER_UNHEALTHY]);
}

uint32_t pool_creations(struct pool *pool, uint64_t now_us)
{
    if (pool->stopped || now_us < pool->retry_us)
        return 0;
    uint32_t want = pool_wanted(pool);
    if (want > pool->target && !pool->limits.on_demand && !pool->draining)
        pool->target = want;
    uint32_t live = pool_live(pool);
    uint32_t creating = pool->count[CONTAINER_CREATING] + pool->count[CONTAINER_CONNECTING];
    /* One surge container while something is being replaced. */
    if (expiring_live(pool) > 0 && live == want && want <= pool->limits.max && !pool->draining)
        want++;
    if (live >= want)
        return 0;
    uint32_t missing = want - live;
    struct pool_set *set = pool->set;
    missing = smaller(missing, set->max_creating > set->creating ? set->max_creating - set->creating : 0);
    missing = smaller(missing, room_in_set(pool));
    /* After a failure one attempt at a time. */
    if (pool->failures > 0)
        missing = creating > 0 ? 0 : smaller(missing, 1);
    return missing;
}

static struct container *last_on(const struct list *head)
{
    return list_empty(head) ? NULL : list_entry(head->prev, struct container, link);
}

/* Those are at the end. */
static struct container *expiring_on(const struct list *head)
{
    struct container *last = last_on(head);
    return last != NULL && last->expiring ? last : NULL;
}

struct container *pool_surplus(struct pool *pool)
{
    uint32_t serving = pool_serving(pool), want = pool_wanted(pool);
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
    if (pool_live(pool) > want + (expiring_live(pool) > 0)) {
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

bool pool_circuit_open(const struct pool *pool)
{
    return pool->failures >= POOL_CIRCUIT_FAILURES;
}

void pool_set_limits(struct pool *pool, const struct pool_limits *limits)
{
    bool follow = limits->size != pool->limits.size;
    pool->limits = *limits;
    if (limits->on_demand)
        return;
    if (follow && !pool->pinned)
        pool->target = limits->size;
    if (pool->target > limits->max)
        pool->target = limits->max;
    if (pool->target < limits->min && !pool->pinned)
        pool->target = limits->min;
}

bool pool_drained(const struct pool *pool)
{
    uint32_t left = pool_waiting(pool);
    for (unsigned state = 0; state < CONTAINER_GONE; state++)
        left += pool->count[state];
    return pool->draining && left == 0;
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
