/* One warm container as the pool sees it: a state, a place in exactly one list, and some times.
 *
 *   CREATING -> CONNECTING -> IDLE -> BUSY -> RESETTING -> IDLE
 *                             IDLE -> UNHEALTHY (never picked) -> IDLE
 *      any state ------------------------------------------> RETIRING -> REMOVING -> GONE
 *                                                            REMOVING -> STUCK -> REMOVING
 *
 * One state is one list, and container_enter() is the only place where a container changes list. Pure: no I/O, no
 * clock. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct pool;
struct task;

enum container_state {
    CONTAINER_CREATING,   /* the engine is making it */
    CONTAINER_CONNECTING, /* started; its runner has not reported yet */
    CONTAINER_IDLE,
    CONTAINER_BUSY, /* owned by one task */
    CONTAINER_RESETTING,
    CONTAINER_UNHEALTHY, /* kept out of service until a check passes or its replacement is there */
    CONTAINER_RETIRING,  /* will never serve again */
    CONTAINER_REMOVING,  /* the engine was told to remove it */
    CONTAINER_STUCK,     /* the engine could not; it is tried again */
    CONTAINER_GONE,      /* on no list */
    CONTAINER_STATES
};

struct container {
    struct list link;
    enum container_state state;
    struct pool *pool;
    struct task *task;     /* BUSY: what runs in it; NULL between the tasks of a lease */
    struct task *holder;   /* BUSY: the lease that has it; NULL: none */
    uint64_t created_us;   /* asked for */
    uint64_t ready_us;     /* first IDLE; 0: not yet */
    uint64_t entered_us;   /* into the present state */
    uint64_t last_used_us; /* end of its last task, 0: none */
    uint64_t expires_us;   /* maxContainerAge with jitter */
    uint64_t memory_bytes; /* counted against the budget */
    uint32_t exec_count;   /* tasks handed to it */
    bool used;             /* handed out at least once, to a task or a lease */
    bool expiring;         /* to be retired as soon as its replacement is ready */
};

void container_init(struct container *container, struct pool *pool, uint64_t now_us);

/* Moves it to `state`'s list of its pool. Returns false, and changes nothing, when the edge is not in the diagram. */
bool container_enter(struct container *container, enum container_state state, uint64_t now_us);

/* Replaced as soon as possible, without a dip: the pool makes one more first. Idle, it is the last to be taken.
 * Idempotent. */
void container_expire(struct container *container);

bool container_edge_legal(enum container_state from, enum container_state to);

/* "idle"; static storage. */
const char *container_state_name(enum container_state state);
