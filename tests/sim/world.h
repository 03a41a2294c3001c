/* A world in simulated time around the real pool/ and maintenance/ code: engine, runners and clients that are slow,
 * fail, lose replies and die, by one seed. What the executor does with the pool's answers is done here in the same
 * order, as little as possible. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/heap.h"
#include "maintenance/janitor.h"
#include "maintenance/room.h"
#include "maintenance/scaler.h"
#include "pool/pool.h"

#define WORLD_POOLS 6U
#define MS          1000ULL
#define SECOND      1000000ULL

/* --- chance --------------------------------------------------------------------------------------------- */

struct chance {
    uint64_t state;
};
uint64_t chance_next(struct chance *chance);
double chance_unit(struct chance *chance);                    /* 0 to 1 */
uint64_t chance_below(struct chance *chance, uint64_t limit); /* 0 to limit-1 */
bool chance_hit(struct chance *chance, double probability);
uint64_t chance_exponential(struct chance *chance, double mean);

/* --- invariants and plants ------------------------------------------------------------------------------ */

enum invariant {
    SOUND,
    ONE_STATE_ONE_LIST,
    ONE_OWNER,
    ONE_END,
    OWN_TYPE,
    CLEAN,
    BOUNDS,
    ROOM,
    ORDER,
    NOTHING_FORGOTTEN,
    INVARIANTS
};
extern const char *const invariant_names[INVARIANTS];

/* A bug of the glue's, to see each invariant fail. */
enum plant {
    PLANT_NONE,
    PLANT_STATE_WITHOUT_LIST, /* a container changes state, not list */
    PLANT_TWO_OWNERS,         /* a busy container is handed to a second task */
    PLANT_DOUBLE_END,         /* a task ends again when its container dies */
    PLANT_NO_END,             /* a task whose container died is not told */
    PLANT_FOREIGN_TYPE,       /* a task runs in another type's container */
    PLANT_NO_RESET,           /* a container goes back without a reset */
    PLANT_ONE_TOO_MANY,       /* a container more than was asked for is made */
    PLANT_BUDGET,             /* the memory of a container is not counted */
    PLANT_YOUNGEST_FIRST,     /* of a queue the last one goes first */
    PLANT_LOST_WAKEUP,        /* a container gets idle and nobody looks at the queue */
    PLANT_LEAKED_CONTAINER,   /* a removal that failed is not tried again */
    PLANT_NO_ROOM,            /* idle containers of others never give way */
    PLANTS
};
extern const char *const plant_names[PLANTS];
extern const enum invariant plant_invariants[PLANTS]; /* which one has to find it */

/* --- the world ---------------------------------------------------------------------------------------------- */

enum policy { POLICY_FIXED, POLICY_THRESHOLD, POLICY_PREDICTIVE };

struct sim_task {
    struct task task;
    struct list all;
    uint64_t run_us;
    uint32_t type;
    uint8_t ends, retries;
    bool lease, is_running;
};

struct sim_container {
    struct container container;
    struct list all;
    uint64_t generation; /* events of an earlier life or state are void */
    bool dirty, deaf;    /* deaf: its replies are lost */
};

struct sim_pool {
    struct pool pool;
    struct scaler_state scaler;
    uint32_t fixed;
    uint64_t task_mean_us;
};

struct world_config {
    uint64_t seed;
    uint64_t duration_us; /* arrivals come until then */
    bool hostile;         /* failures, deaths, operators, clients that leave */
    enum policy policy;
    enum plant plant;
    uint32_t pools;
    struct pool_limits limits; /* of each; when hostile they are drawn */
    struct scaler_config scaler;
    struct janitor_config janitor;
    double create_ms, task_ms;
    /* Calls world_submit() and returns when it is to be called again, 0: never. */
    uint64_t (*arrive)(struct world_config *config, struct chance *chance, void *world, uint64_t now_us);
    void *arrive_user;
};

struct world_report {
    enum invariant broken;
    char what[256];
    uint64_t events, tasks, hits, misses, created, rejected, max_wait_us;
    double idle_seconds; /* of containers */
    double *waits_ms;    /* of the first WAITS_MAX dispatched tasks; owned by the caller */
    uint64_t wait_count;
};
#define WAITS_MAX 200000U

/* Runs to the end, when all is ended and removed, or to the first broken invariant. */
void world_run(struct world_config *config, struct world_report *report);
/* For `arrive`. */
void world_submit(void *world, uint32_t type, uint64_t run_us, unsigned priority, bool lease, bool fresh);
