/* What is looked at beside the flow: on a kick what pools need now, on each tick what time brought. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "executor/internal.h"
#include "maintenance/health.h"
#include "maintenance/room.h"

#define ORPHAN_SIGNS             4U /* signs of life within an orphanTimeout */
#define SLOTS_KEPT               2U /* free slots of a pool that keep their network */
#define FAILURES_UNTIL_REJECT    2U /* creations in a row, with nothing alive, until waiting tasks are told */
#define NETWORK_REMOVAL_TRIES    20U
#define NETWORK_REMOVAL_RETRY_MS 250U

/* --- slots ------------------------------------------------------------------------------------------- */

struct network_removal {
    struct executor *executor;
    struct slot *slot;
    unsigned tries;
    uv_timer_t timer;
};

static void network_removal_closed(uv_handle_t *handle)
{
    struct network_removal *removal = handle->data;
    struct executor *executor = removal->executor;
    slot_free(&executor->slots, removal->slot);
    free(removal);
    executor->networks_left--;
    executor_kick(executor);
}

static void network_removal_try(uv_timer_t *timer);

static void on_network_removed(void *user, const struct error *error)
{
    struct network_removal *removal = user;
    /* The engine may still hold the endpoint of a container that is just gone. */
    if (error != NULL && ++removal->tries < NETWORK_REMOVAL_TRIES) {
        uv_timer_start(&removal->timer, network_removal_try, NETWORK_REMOVAL_RETRY_MS, 0);
        return;
    }
    if (error != NULL)
        log_error(removal->executor->log, "the network %s could not be removed: %s", removal->slot->network_name,
                  error->message);
    uv_close((uv_handle_t *)&removal->timer, network_removal_closed);
}

static void network_removal_try(uv_timer_t *timer)
{
    struct network_removal *removal = timer->data;
    engine_network_remove(removal->executor->engine, removal->slot->network_name, on_network_removed, removal);
}

static void slot_drop(struct executor *executor, struct slot *slot)
{
    struct network_removal *removal = slot->subnet < 0 ? NULL : calloc(1, sizeof *removal);
    if (removal == NULL) {
        slot_free(&executor->slots, slot);
        return;
    }
    removal->executor = executor;
    removal->slot = slot;
    removal->timer.data = removal;
    uv_timer_init(executor->loop, &removal->timer);
    executor->networks_left++;
    network_removal_try(&removal->timer);
}

void slot_put(struct agent_pool *owner, struct slot *slot)
{
    struct executor *executor = owner->executor;
    bool keep = executor->config->optimize_networking && !executor->closing && slot->network_id[0] != '\0' &&
                slot->networks == owner->networks && owner->free_slot_count < SLOTS_KEPT;
    if (!keep) {
        slot_drop(executor, slot);
        return;
    }
    list_push_front(&owner->free_slots, &slot->link);
    owner->free_slot_count++;
}

void agent_pool_drop_networks(struct agent_pool *owner)
{
    owner->networks++;
    list_for_each_safe (node, &owner->free_slots) {
        struct slot *slot = list_entry(node, struct slot, link);
        list_remove(&slot->link);
        owner->free_slot_count--;
        slot_put(owner, slot); /* which drops it now */
    }
}

/* --- plan -------------------------------------------------------------------------------------------- */

static void warm_answer(struct agent_pool *owner)
{
    uint32_t serving =
        owner->pool.count[CONTAINER_IDLE] + owner->pool.count[CONTAINER_BUSY] + owner->pool.count[CONTAINER_RESETTING];
    bool failing = owner->pool.failures >= FAILURES_UNTIL_REJECT;
    struct error closing = ERROR_INIT, pinned = ERROR_INIT;
    uint32_t most = owner->pool.pinned ? owner->pool.target : owner->pool.limits.max;
    list_for_each_safe (node, &owner->warm_waits) {
        struct warm_wait *wait = list_entry(node, struct warm_wait, link);
        const struct error *error = NULL;
        if (owner->executor->closing) {
            error_set(&closing, ERROR_UNAVAILABLE, "warmpool is stopping");
            error = &closing;
        } else if (wait->size > most) {
            error_set(&pinned, ERROR_CONFLICT, "its size is %u now, %u containers cannot be warm", most, wait->size);
            error = &pinned;
        } else if (serving < wait->size) {
            if (!failing) {
                pool_warm(&owner->pool, wait->size); /* the scaler may have thought otherwise meanwhile */
                agent_pool_scaled(owner, "%u warm containers were asked for", wait->size);
                continue;
            }
            error = &owner->last_error;
        }
        list_remove(&wait->link);
        wait->done(wait->user, error);
        free(wait);
    }
}

static void drain_answer(struct agent_pool *owner)
{
    bool stopped = owner->executor->closing, again = !owner->pool.draining;
    struct error error = ERROR_INIT;
    if (!stopped && !again && !pool_drained(&owner->pool))
        return;
    if (stopped || again)
        error_set(&error, ERROR_UNAVAILABLE, stopped ? "warmpool is stopping" : "it was resumed before it was drained");
    else
        executor_event(owner->executor,
                       &(struct event){.type = EVENT_POOL_DRAINED, .agent_type = owner->profile->agent_type});
    list_for_each_safe (node, &owner->drain_waits) {
        struct warm_wait *wait = list_entry(node, struct warm_wait, link);
        list_remove(&wait->link);
        wait->done(wait->user, stopped || again ? &error : NULL);
        free(wait);
    }
}

static void create(struct agent_pool *owner, uint32_t count)
{
    struct image *image = owner->image;
    if (count == 0)
        return;
    switch (image->state) {
    case IMAGE_READY:
        for (; count > 0; count--)
            worker_new(owner);
        break;
    case IMAGE_FAILED: /* since the last attempt; the next one comes after the pool's backoff */
        owner->last_error = image->error;
        error_prefix(&owner->last_error, "image %s", image->reference);
        agent_pool_create_failed(owner, &owner->last_error);
        image->state = IMAGE_UNKNOWN;
        break;
    case IMAGE_UNKNOWN:
        image_want(image);
        break;
    case IMAGE_ASKING:
    case IMAGE_PULLING:
        break;
    }
}

static bool is_permanent(const struct error *error)
{
    return error->code == ERROR_NOT_FOUND || error->code == ERROR_DENIED || error->code == ERROR_INVALID;
}

static void replace_or_drop(struct worker *worker)
{
    if (!worker_replaced(worker))
        worker_retire(worker, "surplus");
}

static void plan_pool(struct agent_pool *owner, uint64_t now_us)
{
    for (struct container *surplus = pool_surplus(&owner->pool); surplus != NULL; surplus = pool_surplus(&owner->pool))
        replace_or_drop(worker_of(surplus));
    if (owner->executor->swept && owner->executor->engine_up) {
        uint32_t count = pool_creations(&owner->pool, now_us);
        create(owner, count);
        if (count > 0)
            room_taken(&owner->pool);
    }
    agent_pool_scaled(owner, "tasks waited");
    bool waiting = owner->pool.queue.length + owner->pool.fresh_queue.length > 0;
    /* What only somebody else can mend is told at once; else the engine may come round before their deadlines. */
    if (waiting && pool_live(&owner->pool) == 0 && owner->pool.failures >= FAILURES_UNTIL_REJECT &&
        is_permanent(&owner->last_error))
        agent_pool_reject_waiting(owner, TASK_REJECTED, &owner->last_error);
    if (!list_empty(&owner->warm_waits))
        warm_answer(owner);
    if (!list_empty(&owner->drain_waits))
        drain_answer(owner);
}

/* While the engine is down nothing can be made: who waits for warm containers is told, once that is sure. Tasks wait
 * until their deadline. */
static void plan_without_engine(struct agent_pool *owner)
{
    struct executor *executor = owner->executor;
    /* An unhealthy one may be one that only waits for the engine too. */
    if (executor->engine_error.code == ERROR_NONE || pool_live(&owner->pool) > 0 ||
        owner->pool.count[CONTAINER_UNHEALTHY] > 0)
        return;
    list_for_each_safe (node, &owner->warm_waits) {
        struct warm_wait *wait = list_entry(node, struct warm_wait, link);
        list_remove(&wait->link);
        wait->done(wait->user, &executor->engine_error);
        free(wait);
    }
}

/* Tasks of a type wait, and all that could be made is idle in other types' pools. */
static void make_room(struct executor *executor, uint64_t now_us)
{
    struct pool *needy;
    struct container *victim =
        executor->engine_up && executor->swept ? room_make(&executor->set, now_us, &needy) : NULL;
    if (victim == NULL)
        return;
    struct worker *worker = worker_of(victim);
    const char *type = list_entry(needy, struct agent_pool, pool)->profile->agent_type;
    agent_pool_scaled(worker->owner, "tasks of %s wait and there is no room for more containers", type);
    worker_retire(worker, "it made room for %s", type);
}

void maintain_plan(struct executor *executor, uint64_t now_us)
{
    for (enum room_need need = ROOM_STARVED; need < ROOM_NEEDS; need++) {
        const struct list *last = executor->set.pools.prev; /* those that took room go behind it: each has one turn */
        bool over = false;
        list_for_each_safe (node, &executor->set.pools) {
            if (over)
                break;
            over = node == last;
            struct agent_pool *owner = list_entry(node, struct agent_pool, pool.link);
            if (room_need(&owner->pool) != need)
                continue;
            plan_pool(owner, now_us);
            if (!executor->engine_up)
                plan_without_engine(owner);
        }
    }
    make_room(executor, now_us);
}

/* --- tick -------------------------------------------------------------------------------------------- */

static void check_health(struct agent_pool *owner, struct list *head, uint64_t now_us)
{
    uint64_t interval_us = owner->profile->health_check_interval_ms * 1000;
    if (interval_us == 0)
        return;
    list_for_each_safe (node, head) {
        struct worker *worker = worker_of(list_entry(node, struct container, link));
        if (health_due(&worker->container, worker->answered_us, interval_us, now_us) &&
            !uv_is_active((uv_handle_t *)&worker->timer))
            worker_ping(worker);
    }
}

/* A runner on the attach stream cannot see that its daemon has gone: it has to hear from it. And neither a client that
 * brings or takes no files nor a runner that hangs must keep a container for ever. */
static void keep_alive(struct worker *worker, void *user)
{
    const uint64_t *now_us = user;
    struct job *job = worker->container.task == NULL ? NULL : job_of(worker->container.task);
    if (job != NULL && transfer_stalled(job, *now_us)) {
        transfer_give_up(job, "nothing moved for a minute");
        return;
    }
    if (job != NULL && worker->detached_us == 0 && job_overdue(job, *now_us)) {
        worker_retire(worker, "its runner did not end a task at its deadline");
        return;
    }
    if (job != NULL && job->phase == JOB_RUNNING && worker->attached && runner_conn_ready(worker->conn))
        worker_probe(worker, *now_us);
    uint64_t interval_us = worker->owner->executor->config->orphan_timeout_ms * 1000 / ORPHAN_SIGNS;
    if (!worker->attached || !runner_conn_ready(worker->conn) || *now_us - worker->spoken_us < interval_us)
        return;
    worker->spoken_us = *now_us;
    runner_conn_keepalive(worker->conn);
    runner_conn_flush(worker->conn);
}

static void scale(struct agent_pool *owner, uint64_t now_us)
{
    const struct profile *profile = owner->profile;
    struct scaler_config scaler = {.interval_us = profile->scaling_interval_ms * 1000,
                                   .cooldown_us = profile->scale_cooldown_ms * 1000,
                                   .up_percent = profile->scale_up_threshold,
                                   .down_percent = profile->scale_down_threshold,
                                   .hit_percent = profile->target_hit_rate};
    if (profile->scaling_policy == SCALING_PREDICTIVE) {
        owner->pool.target = scaler_predictive(&owner->scaler, &scaler, &owner->pool, now_us);
        agent_pool_scaled(owner, "so many the demand of the last minutes needs at a hit rate of %u %%",
                          profile->target_hit_rate);
        return;
    }
    double utilization;
    owner->pool.target = scaler_threshold(&owner->scaler, &scaler, &owner->pool, now_us, &utilization);
    agent_pool_scaled(owner, "utilisation was %.0f %%", utilization);
}

static void tick_pool(struct agent_pool *owner, uint64_t now_us)
{
    const struct profile *profile = owner->profile;
    struct janitor_config janitor = {.max_age_us = profile->max_container_age_ms * 1000,
                                     .idle_timeout_us = profile->container_idle_timeout_ms * 1000};
    janitor_pass(&janitor, &owner->pool, now_us);
    agent_pool_scaled(owner, "containers were idle for longer than containerIdleTimeout");
    check_health(owner, &owner->pool.containers[CONTAINER_IDLE], now_us);
    check_health(owner, &owner->pool.idle_unused, now_us);
    check_health(owner, &owner->pool.containers[CONTAINER_UNHEALTHY], now_us);
    if (!profile->auto_scaling)
        return;
    scale(owner, now_us);
}

static void on_probed(void *user, const struct error *error)
{
    struct executor *executor = user;
    struct error mismatch = ERROR_INIT;
    if (error == NULL && executor_engine_check(executor, &mismatch) < 0)
        error = &mismatch;
    if (error != NULL) {
        executor_engine_failed(executor, error);
        return;
    }
    executor_engine_answers(executor);
    log_info(executor->log, "the engine answers");
    if (!executor->swept && !executor->sweeping)
        sweep_begin(executor);
    else
        sweep_reconcile(executor);
    executor_kick(executor);
}

void maintain_tick(struct executor *executor, uint64_t now_us)
{
    if (!executor->engine_up && executor->engine_opened && executor->engine_retry_us != 0 &&
        now_us >= executor->engine_retry_us) {
        executor->engine_retry_us = 0; /* set again when it fails */
        engine_probe(executor->engine, on_probed, executor);
    }
    if (!executor->closing) {
        list_for_each (node, &executor->pools) {
            tick_pool(list_entry(node, struct agent_pool, link), now_us);
        }
    }
    executor_each_worker(executor, keep_alive, &now_us);
    if (!executor->closing) { /* behind keep_alive(), for which what begins now would be of the future */
        list_for_each (node, &executor->pools) {
            canary_tick(list_entry(node, struct agent_pool, link), now_us);
        }
    }
    lease_tick(executor, now_us);
    maintain_plan(executor, now_us);
}
