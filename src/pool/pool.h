/* The containers of one agent type and the tasks that wait for them. Pure: time is an argument, and what has to be done
 * (make one, remove one, hand one to a task) is returned for the caller to do.
 *
 * Sizes. `target` is how many containers the pool wants. A miss (a task finds none idle) raises it, up to `max`; the
 * scaler and the janitor lower it; a pin fixes it. One surge container above is made while another is being replaced,
 * so that replacement never dips below the target. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "pool/container.h"
#include "pool/queue.h"

struct pool_limits {
    uint32_t size;     /* at the start */
    uint32_t min, max; /* containers */
    uint32_t max_queue;
    uint32_t max_tasks_per_container; /* 0: no limit */
    bool reuse;                       /* a container serves more than one task */
    bool on_demand;                   /* nothing is kept warm: containers are made for tasks only */
};

struct pool_counters {
    uint64_t tasks, hits, misses; /* dispatched tasks */
    uint64_t created, removed, create_failures, resets, resets_failed;
};

/* What all pools share. */
struct pool_set {
    uint32_t containers; /* of all pools, in every state but GONE */
    uint32_t max_containers;
    uint32_t creating; /* CREATING or CONNECTING */
    uint32_t max_creating;
};

struct pool {
    struct list link; /* for the owner */
    struct pool_set *set;
    struct pool_limits limits;
    struct pool_counters counters;
    struct list containers[CONTAINER_STATES]; /* IDLE: most recently used first */
    uint32_t count[CONTAINER_STATES];
    struct list idle_unused; /* IDLE containers that never served: the other half of the IDLE list */
    uint32_t expiring;       /* containers waiting for their replacement */
    uint32_t target;
    bool pinned;
    bool stopped;             /* makes no more containers (closing) */
    struct queue queue;       /* tasks that take any container */
    struct queue fresh_queue; /* tasks that take an unused one only */
    /* creation trouble */
    uint32_t failures; /* in a row */
    uint64_t retry_us; /* nothing is created before */
    /* integral of busy containers over time, for utilisation */
    uint64_t busy_integral, live_integral, accounted_us;
};

void pool_init(struct pool *pool, struct pool_set *set, const struct pool_limits *limits, uint64_t now_us);

/* Queues a task; false when the queue is full. Call pool_dispatch() next. */
bool pool_submit(struct pool *pool, struct task *task, uint64_t now_us);

/* Hands the next waiting task to an idle container: the container is BUSY, the task RUNNING. NULL when no pair can be
 * made. */
struct task *pool_dispatch(struct pool *pool, uint64_t now_us);

/* Takes a waiting task out of its queue (cancelled, timed out): it is ENDED. */
void pool_withdraw(struct pool *pool, struct task *task);

/* The task's end, before its container is reset or retired: both let go of each other. */
void pool_task_ended(struct pool *pool, struct task *task, uint64_t now_us);

/* May this container serve another task after the present one? */
bool pool_may_reuse(const struct pool *pool, const struct container *container);

/* How many containers to begin to make now, within every limit and the backoff. Raises `target` where waiting tasks
 * need it. */
uint32_t pool_creations(struct pool *pool, uint64_t now_us);

/* An idle or unhealthy container to retire now, or NULL: one whose replacement is there, or one beyond the target. */
struct container *pool_surplus(struct pool *pool);

/* CREATING, CONNECTING, IDLE, BUSY and RESETTING ones: those that serve or will. */
uint32_t pool_live(const struct pool *pool);

/* After a failed creation: waits `base` * 2^failures, at most a minute, times 0.5-1 by `random`. Success resets it. */
void pool_create_failed(struct pool *pool, uint64_t now_us, uint32_t random);
void pool_create_succeeded(struct pool *pool);

/* Pins `size` (clamped to 1..max), or releases. */
void pool_pin(struct pool *pool, uint32_t size);
void pool_unpin(struct pool *pool);

/* At least `size` (clamped to max) without pinning. */
void pool_warm(struct pool *pool, uint32_t size);

/* Brings the utilisation integrals up to date; container_enter() does it at each move. */
void pool_account(struct pool *pool, uint64_t now_us);
