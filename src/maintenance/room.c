#include "maintenance/room.h"

#include <stddef.h>

#define IDLE_ENOUGH_US 5000000U /* many times what it costs to make it again */

enum room_need room_need(const struct pool *pool)
{
    if (pool->paused || pool_waiting(pool) == 0)
        return ROOM_CONTENT;
    return pool_live(pool) == 0 ? ROOM_STARVED : ROOM_WAITING;
}

void room_taken(struct pool *pool)
{
    list_remove(&pool->link);
    list_push_back(&pool->set->pools, &pool->link);
}

static struct container *idle_longest(const struct pool *pool)
{
    const struct list *heads[] = {&pool->containers[CONTAINER_IDLE], &pool->idle_unused};
    struct container *oldest = NULL;
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        struct container *last =
            list_empty(heads[i]) ? NULL : list_entry(heads[i]->prev, struct container, link); /* the stack's bottom */
        if (last != NULL && (oldest == NULL || last->entered_us < oldest->entered_us))
            oldest = last;
    }
    return oldest;
}

static struct container *victim_for(const struct pool *needy, uint64_t now_us)
{
    bool starved = room_need(needy) == ROOM_STARVED;
    struct container *victim = NULL;
    list_for_each (node, &needy->set->pools) {
        const struct pool *pool = list_entry(node, struct pool, link);
        if (pool == needy || pool->pinned || room_need(pool) != ROOM_CONTENT)
            continue;
        struct container *oldest = idle_longest(pool);
        if (oldest == NULL || (victim != NULL && victim->entered_us <= oldest->entered_us))
            continue;
        bool spare = pool_live(pool) > pool->limits.min && now_us - oldest->entered_us >= IDLE_ENOUGH_US;
        if (starved || spare)
            victim = oldest;
    }
    return victim;
}

struct container *room_make(struct pool_set *set, uint64_t now_us, struct pool **needy)
{
    if (set->leaving > 0)
        return NULL;
    for (enum room_need need = ROOM_STARVED; need <= ROOM_WAITING; need++) {
        list_for_each (node, &set->pools) {
            struct pool *pool = list_entry(node, struct pool, link);
            if (room_need(pool) != need || !pool_held_back(pool, now_us))
                continue;
            struct container *victim = victim_for(pool, now_us);
            if (victim == NULL)
                continue;
            if (victim->pool->target > victim->pool->limits.min)
                victim->pool->target--;
            *needy = pool;
            return victim;
        }
    }
    return NULL;
}
