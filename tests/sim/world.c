#include "sim/world.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_US        (500 * MS)
#define FULL_CHECK     4096U /* events between two looks at everything */
#define RESET_LIMIT_US SECOND
#define CONNECT_LIMIT  (20 * SECOND)

const char *const invariant_names[INVARIANTS] = {"sound",
                                                 "one state, one list",
                                                 "no container with two owners",
                                                 "each task ends once",
                                                 "no type in another's container",
                                                 "no dirty container handed out",
                                                 "sizes within bounds",
                                                 "room is made",
                                                 "queue order kept",
                                                 "nothing forgotten"};

const char *const plant_names[PLANTS] = {
    "none",         "state without list", "two owners",   "double end",         "no end",
    "foreign type", "no reset",           "one too many", "budget not counted", "youngest first",
    "lost wakeup",  "leaked container",   "no room made"};

const enum invariant plant_invariants[PLANTS] = {
    SOUND, ONE_STATE_ONE_LIST, ONE_OWNER,         ONE_END, NOTHING_FORGOTTEN, OWN_TYPE, CLEAN, BOUNDS, BOUNDS,
    ORDER, NOTHING_FORGOTTEN,  NOTHING_FORGOTTEN, ROOM};

/* --- chance --------------------------------------------------------------------------------------------------- */

uint64_t chance_next(struct chance *chance) /* splitmix64 */
{
    uint64_t z = (chance->state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

double chance_unit(struct chance *chance)
{
    return (double)(chance_next(chance) >> 11) / 9007199254740992.0;
}

uint64_t chance_below(struct chance *chance, uint64_t limit)
{
    return chance_next(chance) % limit;
}

bool chance_hit(struct chance *chance, double probability)
{
    return chance_unit(chance) < probability;
}

uint64_t chance_exponential(struct chance *chance, double mean)
{
    return (uint64_t)(-log(1.0 - chance_unit(chance)) * mean);
}

/* --- events ----------------------------------------------------------------------------------------------------- */

enum happening {
    ARRIVALS,
    TICK,
    MADE,      /* the engine has made and started it */
    CONNECTED, /* its runner said HELLO */
    TASK_ENDS,
    RESET_DONE,
    DIES,
    REMOVED,
    CLIENT_LEAVES,
    LEASE_ENDS,
    OPERATOR,
};

struct happens {
    struct heap_node node;
    enum happening what;
    void *whom;
    uint64_t generation;
};

struct world {
    struct world_config *config;
    struct world_report *report;
    struct chance chance;
    uint64_t now;
    struct heap future;
    struct happens *free_events;
    struct pool_set set;
    struct sim_pool pools[WORLD_POOLS];
    struct list containers, tasks; /* all that live */
    struct list spare_containers, spare_tasks;
    uint64_t live_containers, live_tasks;
    uint64_t idle_us, idle_since, idle_count; /* integral of idle containers */
    bool closing;
};

static void broken(struct world *world, enum invariant which, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void broken(struct world *world, enum invariant which, const char *format, ...)
{
    if (world->report->broken != SOUND)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(world->report->what, sizeof world->report->what, format, args);
    va_end(args);
    world->report->broken = which;
}

static void later(struct world *world, uint64_t delay_us, enum happening what, void *whom, uint64_t generation)
{
    struct happens *happens = world->free_events;
    if (happens != NULL)
        world->free_events = happens->whom;
    else if ((happens = calloc(1, sizeof *happens)) == NULL)
        abort();
    *happens = (struct happens){.what = what, .whom = whom, .generation = generation};
    heap_add(&world->future, &happens->node, world->now + delay_us);
}

static struct sim_container *sim_of(struct container *container)
{
    return list_entry(container, struct sim_container, container);
}

static struct sim_task *sim_task_of(struct task *task)
{
    return list_entry(task, struct sim_task, task);
}

static uint32_t type_of(const struct world *world, const struct pool *pool)
{
    return (uint32_t)(list_entry(pool, struct sim_pool, pool) - world->pools);
}

/* --- what is always true -------------------------------------------------------------------------------------------
 */

static void check_list(struct world *world, struct pool *pool, struct list *head, unsigned state, uint32_t *count)
{
    list_for_each (node, head) {
        struct container *container = list_entry(node, struct container, link);
        ++*count;
        if (container->state != state || container->pool != pool)
            broken(world, ONE_STATE_ONE_LIST, "a container in state %s is on the list of %s",
                   container_state_name(container->state), container_state_name((enum container_state)state));
        bool owned = container->task != NULL || container->holder != NULL;
        if (state != CONTAINER_BUSY && owned)
            broken(world, ONE_OWNER, "a container that is %s has an owner", container_state_name(container->state));
        if (state == CONTAINER_BUSY && !owned)
            broken(world, ONE_OWNER, "a busy container has no owner");
        if (container->task != NULL && container->task->container != container)
            broken(world, ONE_OWNER, "a container's task is in another one");
    }
}

static void check_pool(struct world *world, struct pool *pool)
{
    for (unsigned state = 0; state < CONTAINER_GONE; state++) {
        uint32_t count = 0;
        check_list(world, pool, &pool->containers[state], state, &count);
        if (state == CONTAINER_IDLE)
            check_list(world, pool, &pool->idle_unused, state, &count);
        if (count != pool->count[state])
            broken(world, ONE_STATE_ONE_LIST, "%u containers are on the list of %s, %u are counted", count,
                   container_state_name((enum container_state)state), pool->count[state]);
    }
    struct queue *queues[] = {&pool->queue, &pool->fresh_queue};
    for (int i = 0; i < 2; i++) {
        uint32_t length = 0;
        for (unsigned priority = 0; priority < TASK_PRIORITIES; priority++) {
            uint64_t before = 0;
            list_for_each (node, &queues[i]->tasks[priority]) {
                struct task *task = list_entry(node, struct task, link);
                length++;
                if (task->submitted_us < before)
                    broken(world, ORDER, "a queue has a younger task before an older one");
                before = task->submitted_us;
                if (task->state != TASK_QUEUED || task->priority != priority)
                    broken(world, ONE_STATE_ONE_LIST, "a task that does not wait is in a queue");
            }
        }
        if (length != queues[i]->length)
            broken(world, NOTHING_FORGOTTEN, "%u tasks are in a queue, %u are counted", length, queues[i]->length);
    }
}

static void check_everything(struct world *world)
{
    uint32_t containers = 0;
    uint64_t memory = 0;
    for (uint32_t i = 0; i < world->config->pools; i++)
        check_pool(world, &world->pools[i].pool);
    list_for_each (node, &world->containers) {
        containers++;
        memory += list_entry(node, struct sim_container, all)->container.pool->limits.memory_bytes;
    }
    if (containers != world->set.containers)
        broken(world, NOTHING_FORGOTTEN, "%u containers are there, %u are counted", containers, world->set.containers);
    if (memory != world->set.memory_bytes)
        broken(world, BOUNDS, "the containers' memory is not what is counted");
}

static void check_bounds(struct world *world, const struct pool *pool)
{
    uint32_t live = pool_live(pool), most = pool->limits.max > pool->target ? pool->limits.max : pool->target;
    const struct pool_set *set = &world->set;
    if (live > most + 1)
        broken(world, BOUNDS, "a pool has %u containers, at most %u and one surge container are allowed", live, most);
    if (set->containers > set->max_containers || set->creating > set->max_creating)
        broken(world, BOUNDS, "%u containers of %u, %u being made of %u", set->containers, set->max_containers,
               set->creating, set->max_creating);
    if (set->memory_budget != 0 && set->memory_bytes > set->memory_budget)
        broken(world, BOUNDS, "the containers' memory is above the budget");
}

/* Nobody waits while a container that would do is idle. */
static void check_wakeup(struct world *world, const struct pool *pool)
{
    bool any = pool->count[CONTAINER_IDLE] > 0, unused = !list_empty(&pool->idle_unused);
    if (pool->paused)
        return;
    if ((pool->queue.length > 0 && any) || (pool->fresh_queue.length > 0 && unused))
        broken(world, NOTHING_FORGOTTEN, "a task waits while a container is idle");
}

/* The one that goes is the first of all that wait for its kind of container. */
static void check_order(struct world *world, const struct pool *pool, const struct task *task)
{
    const struct queue *queue = task->fresh ? &pool->fresh_queue : &pool->queue;
    const struct task *next = queue_peek(queue);
    if (next != NULL && queue_rank(next) < queue_rank(task))
        broken(world, ORDER, "a task of rank %llu was served before one of rank %llu",
               (unsigned long long)queue_rank(task), (unsigned long long)queue_rank(next));
}

/* --- tasks
 * ------------------------------------------------------------------------------------------------------------ */

static void plan(struct world *world);

static void count_idle(struct world *world)
{
    uint64_t idle = 0;
    world->idle_us += world->idle_count * (world->now - world->idle_since);
    for (uint32_t i = 0; i < world->config->pools; i++)
        idle += world->pools[i].pool.count[CONTAINER_IDLE];
    world->idle_since = world->now;
    world->idle_count = idle;
}

static void task_ended(struct world *world, struct sim_task *task)
{
    if (++task->ends > 1) {
        broken(world, ONE_END, "a task has ended twice");
        return;
    }
    world->live_tasks--;
    list_remove(&task->all);
    list_push_back(&world->spare_tasks, &task->all);
}

static void task_begin(struct world *world, struct pool *pool, struct task *given)
{
    struct sim_task *task = sim_task_of(given);
    struct sim_container *container = sim_of(given->container);
    struct world_report *report = world->report;
    uint64_t waited = world->now - given->submitted_us;
    if (type_of(world, container->container.pool) != task->type || pool != container->container.pool)
        broken(world, OWN_TYPE, "a task of type %u got a container of type %u", task->type,
               type_of(world, container->container.pool));
    if (container->container.state != CONTAINER_BUSY)
        broken(world, ONE_STATE_ONE_LIST, "a container that was handed out is %s",
               container_state_name(container->container.state));
    if (container->container.task != given && container->container.holder != given)
        broken(world, ONE_OWNER, "a container was handed out and does not know to whom");
    if (task->is_running)
        broken(world, ONE_OWNER, "a task that runs was handed a container");
    if (container->dirty)
        broken(world, CLEAN, "a container that was not reset was handed out");
    if (given->fresh && container->container.exec_count > 1)
        broken(world, CLEAN, "a used container was handed to a task that wanted a fresh one");
    check_order(world, pool, given);
    task->is_running = true;
    container->dirty = true;
    if (waited > report->max_wait_us)
        report->max_wait_us = waited;
    if (report->waits_ms != NULL && report->wait_count < WAITS_MAX)
        report->waits_ms[report->wait_count++] = (double)waited / 1000;
    later(world, task->run_us, task->lease ? LEASE_ENDS : TASK_ENDS, container, container->generation);
}

static struct task *plant_order(struct world *world, struct pool *pool)
{
    if (world->config->plant != PLANT_YOUNGEST_FIRST || pool->queue.length < 3)
        return NULL;
    for (unsigned i = 0; i < TASK_PRIORITIES; i++) { /* the youngest waits where the oldest should */
        struct list *head = &pool->queue.tasks[i];
        if (!list_empty(head) && head->next != head->prev) {
            struct list *last = head->prev;
            list_remove(last);
            list_push_front(head, last);
            return NULL;
        }
    }
    return NULL;
}

static void dispatch(struct world *world, struct pool *pool)
{
    count_idle(world);
    plant_order(world, pool);
    for (struct task *task = pool_dispatch(pool, world->now); task != NULL; task = pool_dispatch(pool, world->now)) {
        if (world->config->plant == PLANT_FOREIGN_TYPE && world->config->pools > 1 && chance_hit(&world->chance, 0.01))
            sim_task_of(task)->type = (sim_task_of(task)->type + 1) % world->config->pools;
        task_begin(world, pool, task);
        if (world->config->plant == PLANT_TWO_OWNERS && chance_hit(&world->chance, 0.01)) {
            struct sim_task *other = sim_task_of(task);
            task_begin(world, pool, &other->task);
        }
    }
    count_idle(world);
    check_wakeup(world, pool);
}

void world_submit(void *user, uint32_t type, uint64_t run_us, unsigned priority, bool lease, bool fresh)
{
    struct world *world = user;
    struct pool *pool = &world->pools[type].pool;
    if (pool->draining || world->closing)
        return;
    struct sim_task *task;
    if (!list_empty(&world->spare_tasks) && (world->report->tasks & 63) != 0) { /* old ones rest for a while */
        task = list_entry(world->spare_tasks.next, struct sim_task, all);
        list_remove(&task->all);
    } else if ((task = malloc(sizeof *task)) == NULL) {
        abort();
    }
    *task = (struct sim_task){.type = type, .run_us = run_us, .lease = lease};
    task->task.priority = priority;
    task->task.fresh = fresh;
    task->task.lease = lease;
    list_init(&task->task.link);
    list_push_back(&world->tasks, &task->all);
    world->live_tasks++;
    world->report->tasks++;
    uint64_t deadline = world->config->hostile ? world->now + (1 + chance_below(&world->chance, 60)) * SECOND : 0;
    if (!pool_submit(pool, &task->task, deadline, world->now)) {
        world->report->rejected++;
        task_ended(world, task);
        return;
    }
    if (world->config->hostile && chance_hit(&world->chance, 0.02))
        later(world, chance_exponential(&world->chance, 2 * SECOND), CLIENT_LEAVES, task, task->task.submitted_us);
    dispatch(world, pool);
}

static void overdue(struct world *world, struct pool *pool)
{
    for (struct task *task = pool_overdue(pool, world->now); task != NULL; task = pool_overdue(pool, world->now)) {
        pool_withdraw(pool, task);
        world->report->rejected++;
        task_ended(world, sim_task_of(task));
    }
}

/* --- containers
 * ---------------------------------------------------------------------------------------------------------- */

static void removal(struct world *world, struct sim_container *container)
{
    container_enter(&container->container, CONTAINER_REMOVING, world->now);
    later(world, 20 * MS + chance_exponential(&world->chance, 100.0 * MS), REMOVED, container, container->generation);
}

static void retire(struct world *world, struct sim_container *container)
{
    struct pool *pool = container->container.pool;
    struct task *task = container->container.task, *holder = container->container.holder;
    enum plant plant = world->config->plant;
    if (container->container.state >= CONTAINER_RETIRING)
        return;
    container->generation++; /* nothing that was under way is heard of again */
    if (task != NULL) {
        struct sim_task *lost = sim_task_of(task);
        bool again =
            world->config->hostile && lost->retries++ < 1 && !world->closing && chance_hit(&world->chance, 0.5);
        lost->is_running = false;
        if (again) {
            pool_put_back(pool, task, world->now);
        } else {
            pool_task_ended(pool, task, world->now);
            if (plant != PLANT_NO_END)
                task_ended(world, lost);
            if (plant == PLANT_DOUBLE_END)
                task_ended(world, lost);
        }
    }
    if (holder != NULL) {
        pool_lease_ended(pool, holder, world->now);
        task_ended(world, sim_task_of(holder));
    }
    count_idle(world);
    container_enter(&container->container, CONTAINER_RETIRING, world->now);
    count_idle(world);
    removal(world, container);
}

static void make(struct world *world, struct pool *pool)
{
    struct sim_container *container;
    if (!list_empty(&world->spare_containers)) {
        container = list_entry(world->spare_containers.next, struct sim_container, all);
        list_remove(&container->all);
    } else if ((container = calloc(1, sizeof *container)) == NULL) {
        abort();
    }
    container->generation++;
    container->dirty = container->deaf = false;
    container_init(&container->container, pool, world->now);
    if (world->config->plant == PLANT_BUDGET)
        world->set.memory_bytes -= container->container.memory_bytes;
    list_push_back(&world->containers, &container->all);
    world->live_containers++;
    double mean = world->config->create_ms * MS;
    later(world, (uint64_t)(mean * 0.5) + chance_exponential(&world->chance, mean * 0.5), MADE, container,
          container->generation);
}

static void made(struct world *world, struct sim_container *container)
{
    struct pool *pool = container->container.pool;
    if (world->config->hostile && chance_hit(&world->chance, 0.05)) { /* the engine refuses */
        pool_create_failed(pool, world->now, (uint32_t)chance_next(&world->chance));
        retire(world, container);
        return;
    }
    container_enter(&container->container, CONTAINER_CONNECTING, world->now);
    bool lost = world->config->hostile && chance_hit(&world->chance, 0.01);
    later(world, lost ? CONNECT_LIMIT : chance_exponential(&world->chance, 30.0 * MS), CONNECTED, container,
          container->generation);
    container->deaf = lost;
}

static void may_die(struct world *world, struct sim_container *container)
{
    if (world->config->hostile && chance_hit(&world->chance, 0.002))
        later(world, chance_exponential(&world->chance, 200.0 * MS), DIES, container, container->generation);
}

static void idle_now(struct world *world, struct sim_container *container)
{
    struct pool *pool = container->container.pool;
    count_idle(world);
    container_enter(&container->container, CONTAINER_IDLE, world->now);
    if (world->config->plant == PLANT_STATE_WITHOUT_LIST && chance_hit(&world->chance, 0.001))
        container->container.state = CONTAINER_RESETTING;
    may_die(world, container);
    if (world->config->plant == PLANT_LOST_WAKEUP && pool_waiting(pool) > 0 && chance_hit(&world->chance, 0.01)) {
        check_wakeup(world, pool); /* as after any event */
        return;
    }
    dispatch(world, pool);
}

static void connected(struct world *world, struct sim_container *container)
{
    struct pool *pool = container->container.pool;
    if (container->deaf) {
        pool_create_failed(pool, world->now, (uint32_t)chance_next(&world->chance));
        retire(world, container);
        return;
    }
    container->container.expires_us =
        janitor_expiry(&world->config->janitor, world->now, (uint32_t)chance_next(&world->chance));
    pool_create_succeeded(pool);
    pool->counters.created++;
    world->report->created++;
    idle_now(world, container);
}

static void release(struct world *world, struct sim_container *container)
{
    if (janitor_due(&container->container, world->now))
        container_expire(&container->container);
    if (!pool_may_reuse(container->container.pool, &container->container)) {
        retire(world, container);
        return;
    }
    container_enter(&container->container, CONTAINER_RESETTING, world->now);
    if (world->config->plant == PLANT_NO_RESET && chance_hit(&world->chance, 0.01)) {
        idle_now(world, container);
        return;
    }
    uint64_t delay = 300 + chance_exponential(&world->chance, 500);
    if (world->config->hostile && chance_hit(&world->chance, 0.01))
        delay = RESET_LIMIT_US; /* no answer in time */
    later(world, delay, RESET_DONE, container, container->generation);
}

static void run_ends(struct world *world, struct sim_container *container)
{
    struct task *task = container->container.task, *holder = container->container.holder;
    if (task != NULL) {
        sim_task_of(task)->is_running = false;
        pool_task_ended(container->container.pool, task, world->now);
        task_ended(world, sim_task_of(task));
    }
    if (holder != NULL) {
        pool_lease_ended(container->container.pool, holder, world->now);
        task_ended(world, sim_task_of(holder));
    }
    release(world, container);
}

static void reset_done(struct world *world, struct sim_container *container)
{
    bool late = world->now - container->container.entered_us >= RESET_LIMIT_US;
    if (late || (world->config->hostile && chance_hit(&world->chance, 0.005))) {
        retire(world, container); /* not proven clean */
        return;
    }
    container->dirty = false;
    idle_now(world, container);
}

static void removed(struct world *world, struct sim_container *container)
{
    if (world->config->hostile && chance_hit(&world->chance, 0.1)) { /* the engine could not */
        container_enter(&container->container, CONTAINER_STUCK, world->now);
        if (world->config->plant == PLANT_LEAKED_CONTAINER)
            return;
        removal(world, container);
        return;
    }
    container_enter(&container->container, CONTAINER_GONE, world->now);
    container->generation++;
    world->live_containers--;
    list_remove(&container->all);
    list_push_back(&world->spare_containers, &container->all);
}

/* --- plan, tick, operators
 * -------------------------------------------------------------------------------------------------- */

static void plan_pool(struct world *world, struct pool *pool)
{
    for (struct container *surplus = pool_surplus(pool); surplus != NULL; surplus = pool_surplus(pool))
        retire(world, sim_of(surplus));
    uint32_t missing = pool_creations(pool, world->now);
    if (missing > 0 && pool->draining && pool_waiting(pool) == 0)
        broken(world, BOUNDS, "a pool that drains makes %u containers though nobody waits", missing);
    if (missing > 0)
        room_taken(pool);
    if (missing > 0 && world->config->plant == PLANT_ONE_TOO_MANY)
        missing += 2;
    for (; missing > 0; missing--)
        make(world, pool);
    check_bounds(world, pool);
}

/* Nobody waits without a container, nor anything on its way, while a container that may go is idle elsewhere. */
static void check_room(struct world *world)
{
    const struct pool_set *set = &world->set;
    uint32_t idle = 0, leaving = 0;
    for (uint32_t i = 0; i < world->config->pools; i++) {
        const struct pool *pool = &world->pools[i].pool;
        leaving += pool->count[CONTAINER_RETIRING] + pool->count[CONTAINER_REMOVING];
        idle += pool->pinned || pool->fresh_queue.length > 0 ? 0 : pool->count[CONTAINER_IDLE];
    }
    if (leaving != set->leaving)
        broken(world, NOTHING_FORGOTTEN, "%u containers are on their way out, %u are counted", leaving, set->leaving);
    for (uint32_t i = 0; i < world->config->pools && leaving == 0 && idle > 0; i++) {
        const struct pool *pool = &world->pools[i].pool;
        bool waits = pool_waiting(pool) > 0 && !pool->paused && !pool->stopped && world->now >= pool->retry_us;
        bool fits = set->memory_budget == 0 || pool->limits.memory_bytes <= set->memory_budget;
        if (waits && fits && pool_live(pool) == 0 && set->creating < set->max_creating)
            broken(world, ROOM, "a task waits without any container for it while %u of others are idle", idle);
    }
}

static void plan(struct world *world)
{
    for (enum room_need need = ROOM_STARVED; need < ROOM_NEEDS; need++) {
        list_for_each_safe (node, &world->set.pools) {
            struct pool *pool = list_entry(node, struct pool, link);
            if (room_need(pool) == need)
                plan_pool(world, pool);
        }
    }
    struct pool *needy;
    struct container *victim =
        world->config->plant == PLANT_NO_ROOM ? NULL : room_make(&world->set, world->now, &needy);
    if (victim != NULL)
        retire(world, sim_of(victim));
    check_room(world);
}

static void check_health(struct world *world, struct pool *pool)
{
    struct list *heads[] = {&pool->containers[CONTAINER_IDLE], &pool->containers[CONTAINER_UNHEALTHY]};
    for (int i = 0; i < 2; i++) {
        if (list_empty(heads[i]) || !chance_hit(&world->chance, 0.002))
            continue;
        struct sim_container *container = sim_of(list_entry(heads[i]->next, struct container, link));
        count_idle(world);
        if (i == 0) {
            container_enter(&container->container, CONTAINER_UNHEALTHY, world->now);
            container_expire(&container->container);
        } else {
            idle_now(world, container);
        }
        count_idle(world);
    }
}

static void scale(struct world *world, struct sim_pool *owner)
{
    double utilization;
    const struct scaler_config *config = &world->config->scaler;
    if (world->config->policy == POLICY_THRESHOLD)
        owner->pool.target = scaler_threshold(&owner->scaler, config, &owner->pool, world->now, &utilization);
    else if (world->config->policy == POLICY_PREDICTIVE)
        owner->pool.target = scaler_predictive(&owner->scaler, config, &owner->pool, world->now);
}

static void tick(struct world *world)
{
    for (uint32_t i = 0; i < world->config->pools; i++) {
        struct sim_pool *owner = &world->pools[i];
        overdue(world, &owner->pool);
        if (world->config->policy != POLICY_FIXED)
            janitor_pass(&world->config->janitor, &owner->pool, world->now);
        if (world->config->hostile)
            check_health(world, &owner->pool);
        scale(world, owner);
    }
    bool over = world->now > world->config->duration_us;
    if (over && !world->closing && world->live_tasks == 0) {
        world->closing = true;
        for (uint32_t i = 0; i < world->config->pools; i++) {
            struct pool *pool = &world->pools[i].pool;
            pool->stopped = true;
            pool->pinned = pool->paused = false;
            for (unsigned state = 0; state < CONTAINER_RETIRING; state++) {
                struct list *heads[] = {&pool->containers[state], state == CONTAINER_IDLE ? &pool->idle_unused : NULL};
                for (int j = 0; j < 2 && heads[j] != NULL; j++)
                    while (!list_empty(heads[j]))
                        retire(world, sim_of(list_entry(heads[j]->next, struct container, link)));
            }
        }
    }
    if (!over)
        plan(world);
    else
        for (uint32_t i = 0; i < world->config->pools; i++) { /* what still waits has to get through */
            world->pools[i].pool.paused = false;
            dispatch(world, &world->pools[i].pool);
        }
    if (over && !world->closing)
        plan(world);
    if (!world->closing || world->live_containers > 0)
        later(world, TICK_US, TICK, NULL, 0);
}

static void operate(struct world *world)
{
    struct chance *chance = &world->chance;
    struct sim_pool *owner = &world->pools[chance_below(chance, world->config->pools)];
    struct pool *pool = &owner->pool;
    struct pool_limits limits = pool->limits;
    switch (chance_below(chance, 8)) {
    case 0:
        pool_pin(pool, 1 + (uint32_t)chance_below(chance, limits.max));
        break;
    case 1:
        pool_unpin(pool);
        break;
    case 2:
        pool->paused = true;
        break;
    case 3:
        pool->paused = pool->draining = false;
        dispatch(world, pool);
        break;
    case 4:
        pool->draining = chance_hit(chance, 0.2);
        break;
    case 5:
        pool_warm(pool, 1 + (uint32_t)chance_below(chance, limits.max));
        break;
    case 6: /* refresh */
        for (unsigned state = CONTAINER_CREATING; state < CONTAINER_RETIRING; state++) {
            list_for_each_safe (node, &pool->containers[state]) {
                container_expire(list_entry(node, struct container, link));
            }
        }
        list_for_each_safe (node, &pool->idle_unused) {
            container_expire(list_entry(node, struct container, link));
        }
        break;
    default: /* a reload, never to fewer than there are, so that bounds stay simple */
        limits.size = 1 + (uint32_t)chance_below(chance, limits.max);
        limits.max_tasks_per_container = (uint32_t)chance_below(chance, 20);
        pool_set_limits(pool, &limits);
    }
    plan(world);
    if (world->now < world->config->duration_us)
        later(world, chance_exponential(chance, 3 * SECOND), OPERATOR, NULL, 0);
}

/* --- the loop
 * ---------------------------------------------------------------------------------------------------------------- */

static void happen(struct world *world, enum happening what, void *whom, uint64_t generation)
{
    struct sim_container *container = whom;
    struct sim_task *task = whom;
    bool about_container = what != ARRIVALS && what != TICK && what != CLIENT_LEAVES && what != OPERATOR;
    if (about_container && container->generation != generation)
        return;
    switch (what) {
    case ARRIVALS: {
        uint64_t next = world->config->arrive(world->config, &world->chance, world, world->now);
        if (next != 0 && next < world->config->duration_us)
            later(world, next > world->now ? next - world->now : 1, ARRIVALS, NULL, 0);
        plan(world);
        return;
    }
    case TICK:
        tick(world);
        return;
    case MADE:
        made(world, container);
        break;
    case CONNECTED:
        connected(world, container);
        break;
    case TASK_ENDS:
    case LEASE_ENDS:
        run_ends(world, container);
        break;
    case RESET_DONE:
        reset_done(world, container);
        break;
    case DIES:
        retire(world, container);
        break;
    case REMOVED:
        removed(world, container);
        break;
    case CLIENT_LEAVES:
        if (task->ends == 0 && task->task.state == TASK_QUEUED && task->task.submitted_us == generation) {
            pool_withdraw(task->task.pool, &task->task);
            task_ended(world, task);
        }
        break;
    case OPERATOR:
        operate(world);
        return;
    }
    plan(world);
}

static void world_open(struct world *world)
{
    struct world_config *config = world->config;
    list_init(&world->containers);
    list_init(&world->tasks);
    list_init(&world->spare_containers);
    list_init(&world->spare_tasks);
    world->now = SECOND;
    world->idle_since = world->now;
    pool_set_init(&world->set, 1000, 8);
    if (config->hostile) {
        world->set.max_containers = 10 + (uint32_t)chance_below(&world->chance, 30);
        world->set.max_creating = 1 + (uint32_t)chance_below(&world->chance, 6);
        world->set.memory_budget = chance_hit(&world->chance, 0.5) ? 0 : (4 + chance_below(&world->chance, 20)) << 28;
    }
    for (uint32_t i = 0; i < config->pools; i++) {
        struct pool_limits limits = config->limits;
        if (config->hostile) {
            limits.max = 1 + (uint32_t)chance_below(&world->chance, 8);
            limits.min = (uint32_t)chance_below(&world->chance, limits.max + 1);
            limits.size = limits.min + (uint32_t)chance_below(&world->chance, limits.max - limits.min + 1);
            limits.max_queue = 1 + (uint32_t)chance_below(&world->chance, 50);
            limits.max_tasks_per_container =
                chance_hit(&world->chance, 0.3) ? 1 + (uint32_t)chance_below(&world->chance, 9) : 0;
            limits.reuse = chance_hit(&world->chance, 0.8);
            limits.memory_bytes = (1 + chance_below(&world->chance, 4)) << 27;
        }
        pool_init(&world->pools[i].pool, &world->set, &limits, world->now);
    }
    plan(world);
    later(world, TICK_US, TICK, NULL, 0);
    later(world, 10 * SECOND, ARRIVALS, NULL, 0); /* the pools are warm by then */
    if (config->hostile)
        later(world, SECOND, OPERATOR, NULL, 0);
}

static void free_list(struct list *head, size_t offset)
{
    while (!list_empty(head)) {
        struct list *node = head->next;
        list_remove(node);
        free((char *)node - offset);
    }
}

static void world_close(struct world *world)
{
    for (struct heap_node *node = heap_first(&world->future); node != NULL; node = heap_first(&world->future)) {
        heap_remove(&world->future, node);
        free(heap_entry(node, struct happens, node));
    }
    while (world->free_events != NULL) {
        struct happens *next = world->free_events->whom;
        free(world->free_events);
        world->free_events = next;
    }
    free_list(&world->containers, offsetof(struct sim_container, all));
    free_list(&world->spare_containers, offsetof(struct sim_container, all));
    free_list(&world->tasks, offsetof(struct sim_task, all));
    free_list(&world->spare_tasks, offsetof(struct sim_task, all));
}

void world_run(struct world_config *config, struct world_report *report)
{
    struct world *world = calloc(1, sizeof *world);
    if (world == NULL)
        abort();
    world->config = config;
    world->report = report;
    world->chance.state = config->seed;
    world_open(world);
    uint64_t limit = config->duration_us + 3600 * SECOND; /* what is not over by then is forgotten */
    for (struct heap_node *node = heap_first(&world->future); node != NULL && report->broken == SOUND;
         node = heap_first(&world->future)) {
        struct happens *happens = heap_entry(node, struct happens, node);
        heap_remove(&world->future, node);
        world->now = node->key;
        if (world->now > limit)
            break;
        enum happening what = happens->what;
        void *whom = happens->whom;
        uint64_t generation = happens->generation;
        happens->whom = world->free_events;
        world->free_events = happens;
        happen(world, what, whom, generation);
        if (++report->events % FULL_CHECK == 0)
            check_everything(world);
    }
    check_everything(world);
    if (world->live_tasks > 0)
        broken(world, NOTHING_FORGOTTEN, "%llu tasks never ended", (unsigned long long)world->live_tasks);
    if (world->live_containers > 0)
        broken(world, NOTHING_FORGOTTEN, "%llu containers were never removed",
               (unsigned long long)world->live_containers);
    count_idle(world);
    report->idle_seconds = (double)world->idle_us / 1e6;
    for (uint32_t i = 0; i < config->pools; i++) {
        report->hits += world->pools[i].pool.counters.hits;
        report->misses += world->pools[i].pool.counters.misses;
    }
    world_close(world);
    free(world);
}
