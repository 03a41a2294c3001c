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
    uint64_t memory_bytes;            /* of one container */
    bool reuse;                       /* a container serves more than one task */
    bool on_demand;                   /* nothing is kept warm: containers are made for tasks only */
};

struct pool_counters {
    uint64_t arrivals;            /* tasks and leases that were submitted */
    uint64_t tasks, hits, misses; /* dispatched tasks */
    uint64_t leases, retries;
    uint64_t created, removed, create_failures, resets, resets_failed;
    uint64_t canaries, contaminations;
};

#define POOL_CIRCUIT_FAILURES 5U

/* What all pools share. */
struct pool_set {
    struct list pools;   /* by `link`; which one is planned first: maintenance/room.h */
    uint32_t containers; /* of all pools, in every state but GONE */
    uint32_t max_containers;
    uint32_t creating; /* CREATING or CONNECTING */
    uint32_t leaving;  /* RETIRING or REMOVING */
    uint32_t max_creating;
    uint64_t memory_bytes, memory_budget; /* limits of all containers together; budget 0: any */
};

struct pool {
    struct list link; /* of the set's pools */
    struct pool_set *set;
    struct pool_limits limits;
    struct pool_counters counters;
    struct list containers[CONTAINER_STATES]; /* IDLE: most recently used first */
    uint32_t count[CONTAINER_STATES];
    struct list idle_unused; /* IDLE containers that never served: the other half of the IDLE list */
    uint32_t expiring;       /* containers waiting for their replacement */
    uint32_t target;
    bool pinned;
    bool paused;              /* tasks wait, containers stay */
    bool draining;            /* takes no new tasks; when the last one has ended its containers go, and none is made */
    bool tainted;             /* a task met another one's residue: no container serves twice */
    bool stopped;             /* makes no more containers (closing) */
    struct queue queue;       /* tasks that take any container */
    struct queue fresh_queue; /* tasks that take an unused one only */
    struct heap deadlines;    /* of waiting tasks */
    /* creation trouble */
    uint32_t failures;    /* in a row */
    uint64_t retry_us;    /* nothing is created before */
    uint32_t demand_peak; /* the most containers that were wanted at once since the scaler last looked */
    /* integral of busy containers over time, for utilisation */
    uint64_t busy_integral, live_integral, accounted_us;
};

/* Nothing in it; the caps and the budget are for the caller to set, at any time. */
void pool_set_init(struct pool_set *set, uint32_t max_containers, uint32_t max_creating);

/* The pool belongs to `set` until the end of both. */
void pool_init(struct pool *pool, struct pool_set *set, const struct pool_limits *limits, uint64_t now_us);

/* Queues a task; false when the queue is full. Call pool_dispatch() next. `deadline_us`: until when it waits; 0: for
 * ever. */
bool pool_submit(struct pool *pool, struct task *task, uint64_t deadline_us, uint64_t now_us);

/* How many tasks wait. */
uint32_t pool_waiting(const struct pool *pool);

/* Hands the next waiting task to an idle container: the container is BUSY, the task RUNNING. NULL when no pair can be
 * made. */
struct task *pool_dispatch(struct pool *pool, uint64_t now_us);

/* Takes a waiting task out of its queue (cancelled, timed out): it is ENDED. */
void pool_withdraw(struct pool *pool, struct task *task);

/* The next deadline of a waiting task, UINT64_MAX when none has one; and a task whose deadline has come, NULL when none
 * has. */
uint64_t pool_next_deadline(const struct pool *pool);
struct task *pool_overdue(const struct pool *pool, uint64_t now_us);

/* The task's end, before its container is reset or retired: both let go of each other. */
void pool_task_ended(struct pool *pool, struct task *task, uint64_t now_us);

/* A RUNNING task that did not start for reasons of its container waits again, at its old place: both let go of each
 * other. */
void pool_put_back(struct pool *pool, struct task *task, uint64_t now_us);

/* Begins `task` (not queued) in the container that `holder`, a RUNNING lease, has. False when another task runs there.
 */
bool pool_lease_run(struct pool *pool, struct task *holder, struct task *task, uint64_t now_us);

/* The lease's end; no task may run in its container any more. */
void pool_lease_ended(struct pool *pool, struct task *holder, uint64_t now_us);

/* An idle container for a task that is neither queued nor counted, until pool_task_ended(). */
void pool_take(struct pool *pool, struct container *container, struct task *task, uint64_t now_us);

/* An idle container is where it was before pool_take(): below those that have been idle for less long. */
void pool_give_back(struct pool *pool, struct container *container, uint64_t idle_since_us);

/* May this container serve another task after the present one? Not when its replacement is there already. */
bool pool_may_reuse(const struct pool *pool, const struct container *container);

/* How many containers to begin to make now, within every limit and the backoff. Raises `target` where waiting tasks
 * need it. */
uint32_t pool_creations(struct pool *pool, uint64_t now_us);

/* Waiting tasks would have it make a container at once, but for the caps and the budget that all pools share. False as
 * well where its container is larger than the whole budget. */
bool pool_held_back(const struct pool *pool, uint64_t now_us);

/* Is another container there in its place? Else it is only marked, or not wanted any more. */
bool pool_replaced(const struct pool *pool, const struct container *container);

/* An idle or unhealthy container to retire now, or NULL: one whose replacement is there, or one beyond the target. */
struct container *pool_surplus(struct pool *pool);

/* CREATING, CONNECTING, IDLE, BUSY and RESETTING ones: those that serve or will. */
uint32_t pool_live(const struct pool *pool);

/* IDLE, BUSY and RESETTING ones: those that serve. */
uint32_t pool_serving(const struct pool *pool);

/* After a failed creation: waits `base` * 2^failures, at most a minute, times 0.5-1 by `random`. Success resets it.
 * From POOL_CIRCUIT_FAILURES in a row on the circuit is open: one attempt is made when that time has come, and no other
 * beside it. */
void pool_create_failed(struct pool *pool, uint64_t now_us, uint32_t random);
bool pool_circuit_open(const struct pool *pool);
void pool_create_succeeded(struct pool *pool);

/* New limits, as from a configuration that was read again: the target follows a changed size and stays within the
 * bounds. */
void pool_set_limits(struct pool *pool, const struct pool_limits *limits);

/* True when a draining pool has nothing left: no task, no container. */
bool pool_drained(const struct pool *pool);

/* Pins `size` (clamped to 1..max), or releases. */
void pool_pin(struct pool *pool, uint32_t size);
void pool_unpin(struct pool *pool);

/* At least `size` (clamped to max) without pinning. */
void pool_warm(struct pool *pool, uint32_t size);

/* Brings the utilisation integrals up to date; container_enter() does it at each move. */
void pool_account(struct pool *pool, uint64_t now_us);
