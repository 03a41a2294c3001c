/* Who comes first, and who gives way, where the caps that all pools share do not allow what is wanted. Pure. */
#pragma once

#include <stdint.h>

#include "pool/pool.h"

enum room_need {
    ROOM_STARVED, /* tasks wait and there is no container that could ever take them */
    ROOM_WAITING, /* tasks wait */
    ROOM_CONTENT,
    ROOM_NEEDS
};

/* In this order pools are to be planned, and among equals in the order of the set's list, so that what gets free goes
 * where it is needed most. */
enum room_need room_need(const struct pool *pool);

/* It has just been given containers: among its equals it is the last from now on. */
void room_taken(struct pool *pool);

/* A container to retire so that another pool, which is put into `needy`, can make one: the one that has been idle for
 * longest, of a pool that is not pinned. For a starved pool it may be any; for one whose tasks will be served in time
 * it must have been idle for a while, in a pool above its minimum. The target of its pool goes down with it. NULL:
 * there is room, or something is on its way out already, or nothing can go. */
struct container *room_make(struct pool_set *set, uint64_t now_us, struct pool **needy);
