#include "pool/container.h"

#include <stddef.h>

#include "pool/pool.h"

#define BIT(state) (1U << (state))

/* Where each state may lead; RETIRING is open to all that are not on their way out. */
static const unsigned edges[CONTAINER_STATES] = {
    [CONTAINER_CREATING] = BIT(CONTAINER_CONNECTING) | BIT(CONTAINER_RETIRING),
    [CONTAINER_CONNECTING] = BIT(CONTAINER_IDLE) | BIT(CONTAINER_UNHEALTHY) | BIT(CONTAINER_RETIRING),
    [CONTAINER_IDLE] =
        BIT(CONTAINER_CONNECTING) | BIT(CONTAINER_BUSY) | BIT(CONTAINER_UNHEALTHY) | BIT(CONTAINER_RETIRING),
    [CONTAINER_BUSY] = BIT(CONTAINER_RESETTING) | BIT(CONTAINER_RETIRING),
    [CONTAINER_RESETTING] = BIT(CONTAINER_IDLE) | BIT(CONTAINER_RETIRING),
    [CONTAINER_UNHEALTHY] = BIT(CONTAINER_IDLE) | BIT(CONTAINER_RETIRING),
    [CONTAINER_RETIRING] = BIT(CONTAINER_REMOVING),
    [CONTAINER_REMOVING] = BIT(CONTAINER_GONE) | BIT(CONTAINER_STUCK),
    [CONTAINER_STUCK] = BIT(CONTAINER_REMOVING),
};

bool container_edge_legal(enum container_state from, enum container_state to)
{
    return from < CONTAINER_STATES && to < CONTAINER_STATES && (edges[from] & BIT(to)) != 0;
}

static bool state_is_creation(enum container_state state)
{
    return state == CONTAINER_CREATING || state == CONTAINER_CONNECTING;
}

static bool state_is_leaving(enum container_state state)
{
    return state == CONTAINER_RETIRING || state == CONTAINER_REMOVING;
}

static void container_link(struct container *container)
{
    struct pool *pool = container->pool;
    struct list *head = &pool->containers[container->state];
    if (container->state == CONTAINER_IDLE && !container->used)
        head = &pool->idle_unused;
    pool->count[container->state]++;
    if (state_is_creation(container->state))
        pool->set->creating++;
    if (state_is_leaving(container->state))
        pool->set->leaving++;
    if (container->expiring)
        list_push_back(head, &container->link);
    else
        list_push_front(head, &container->link);
}

static void container_unlink(struct container *container)
{
    struct pool *pool = container->pool;
    pool->count[container->state]--;
    if (state_is_creation(container->state))
        pool->set->creating--;
    if (state_is_leaving(container->state))
        pool->set->leaving--;
    list_remove(&container->link);
}

void container_init(struct container *container, struct pool *pool, uint64_t now_us)
{
    *container =
        (struct container){.pool = pool, .state = CONTAINER_CREATING, .created_us = now_us, .entered_us = now_us};
    list_init(&container->link);
    pool_account(pool, now_us);
    pool->set->containers++;
    container->memory_bytes = pool->limits.memory_bytes;
    pool->set->memory_bytes += container->memory_bytes;
    container_link(container);
}

bool container_enter(struct container *container, enum container_state state, uint64_t now_us)
{
    if (!container_edge_legal(container->state, state))
        return false;
    pool_account(container->pool, now_us);
    container_unlink(container);
    container->state = state;
    container->entered_us = now_us;
    if (state == CONTAINER_RETIRING && container->expiring) {
        container->expiring = false;
        container->pool->expiring--;
    }
    if (state == CONTAINER_GONE) {
        container->pool->set->containers--;
        container->pool->set->memory_bytes -= container->memory_bytes;
        return true;
    }
    if (state == CONTAINER_IDLE && container->ready_us == 0)
        container->ready_us = now_us;
    container_link(container);
    return true;
}

void container_expire(struct container *container)
{
    if (container->expiring || container->state >= CONTAINER_RETIRING)
        return;
    container->expiring = true;
    container->pool->expiring++;
    if (container->state == CONTAINER_IDLE || container->state == CONTAINER_UNHEALTHY) {
        struct pool *pool = container->pool;
        bool unused = container->state == CONTAINER_IDLE && !container->used;
        list_remove(&container->link);
        list_push_back(unused ? &pool->idle_unused : &pool->containers[container->state], &container->link);
    }
}

const char *container_state_name(enum container_state state)
{
    static const char *const names[] = {
        [CONTAINER_CREATING] = "creating", [CONTAINER_CONNECTING] = "connecting", [CONTAINER_IDLE] = "idle",
        [CONTAINER_BUSY] = "busy",         [CONTAINER_RESETTING] = "resetting",   [CONTAINER_UNHEALTHY] = "unhealthy",
        [CONTAINER_RETIRING] = "retiring", [CONTAINER_REMOVING] = "removing",     [CONTAINER_STUCK] = "stuck",
        [CONTAINER_GONE] = "gone",
    };
    return state < CONTAINER_STATES ? names[state] : "unknown";
}
