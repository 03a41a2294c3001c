/* One task as the pool sees it: where it waits and whose container it has. The executor embeds it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/heap.h"
#include "base/list.h"

struct container;
struct pool;

#define TASK_PRIORITIES 5

enum task_state { TASK_QUEUED, TASK_RUNNING, TASK_ENDED };

struct task {
    struct list link; /* in the pool's queue while QUEUED */
    enum task_state state;
    struct pool *pool;
    struct container *container; /* RUNNING */
    unsigned priority;           /* 0 first */
    bool fresh;                  /* only a container that never served another */
    bool lease;                  /* wants the container itself, for tasks to come; RUNNING as long as it is held */
    bool hit;                    /* dispatched without waiting for a container to be made */
    uint64_t submitted_us, dispatched_us;
    struct heap_node deadline; /* in the pool's, while QUEUED with a deadline; its key is the time */
};
