/* Leases: a container that one client keeps for several tasks, which share its files and background processes. A lease
 * waits in the queue as a task does, has its container BUSY all the time, and ends by release, by time, with its
 * connection or with its container; the container is then reset as after a task. Its tasks run one after the other. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "executor/internal.h"

#define LEASE_ID_BYTES 8

struct lease *lease_on(const struct worker *worker)
{
    return worker->container.holder == NULL ? NULL : lease_of(worker->container.holder);
}

static void make_id(struct executor *executor, char *id)
{
    uint8_t random[LEASE_ID_BYTES];
    executor_random_bytes(executor, random, sizeof random);
    *id++ = 'l';
    for (size_t i = 0; i < sizeof random; i++)
        id += sprintf(id, "%02x", random[i]);
}

/* Something is to be told or done from the loop. */
static void soon(struct lease *lease)
{
    struct executor *executor = lease->owner->executor;
    if (list_empty(&lease->soon))
        list_push_back(&executor->leases_soon, &lease->soon);
    executor_kick(executor);
}

static void renew(struct lease *lease, uint64_t now_us)
{
    lease->used_us = now_us;
    lease->used_wall_ms = clock_wall_ms();
}

/* When it ends by itself; 0: never. */
static uint64_t expiry(const struct lease *lease)
{
    return lease->ttl_ms == 0 ? 0 : lease->used_us + lease->ttl_ms * 1000;
}

static void free_lease(struct lease *lease)
{
    struct executor *executor = lease->owner->executor;
    hash_remove(&executor->leases_by_id, &lease->by_id);
    list_remove(&lease->link);
    list_remove(&lease->soon);
    free(lease);
    if (executor->closing)
        executor_kick(executor);
}

/* Its waiting tasks will not run. */
static void reject_waiting(struct lease *lease)
{
    list_for_each_safe (node, &lease->waiting) {
        struct job *job = job_of(list_entry(node, struct task, link));
        job_end_soon(job, TASK_REJECTED, lease->reason);
    }
}

/* Its container has been let go of: tells and frees. */
static void ended(struct lease *lease)
{
    log_info(lease->owner->executor->log, "lease %s of %s ended: %s", lease->id, lease->owner->profile->agent_type,
             lease->reason);
    reject_waiting(lease);
    executor_event(lease->owner->executor, &(struct event){.type = EVENT_LEASE_ENDED,
                                                           .agent_type = lease->owner->profile->agent_type,
                                                           .subject = lease->id,
                                                           .text = lease->reason,
                                                           .a = (int64_t)lease->tasks});
    if (lease->handler.ended != NULL && !lease->abandoned)
        lease->handler.ended(lease->user, lease, lease->reason);
    free_lease(lease);
}

/* --- begin ---------------------------------------------------------------------------------------------- */

struct lease *executor_lease(struct executor *executor, const struct lease_request *request,
                             const struct lease_handler *handler, void *user, struct error *err)
{
    if (executor->closing) {
        error_set(err, ERROR_UNAVAILABLE, "warmpool is stopping and gives no more leases");
        return NULL;
    }
    struct agent_pool *owner = executor_pool_get(executor, request->agent_type, err);
    if (owner == NULL || agent_pool_refuses(owner, err))
        return NULL;
    struct lease *lease = calloc(1, sizeof *lease);
    if (lease == NULL) {
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    uint64_t now = clock_us();
    const struct profile *profile = owner->profile;
    uint64_t wait_ms = request->queue_timeout_ms >= 0 ? (uint64_t)request->queue_timeout_ms : profile->queue_timeout_ms;
    list_init(&lease->holder.link);
    list_init(&lease->soon);
    list_init(&lease->waiting);
    lease->holder.lease = true;
    lease->holder.priority = (unsigned)request->priority;
    lease->holder.fresh = request->fresh || owner->pool.limits.on_demand;
    lease->owner = owner;
    lease->handler = *handler;
    lease->user = user;
    lease->held = request->held;
    lease->ttl_ms = request->ttl_ms >= 0 ? (uint64_t)request->ttl_ms : request->held ? 0 : profile->lease_ttl_ms;
    lease->begun_wall_ms = clock_wall_ms();
    make_id(executor, lease->id);
    if (!hash_add(&executor->leases_by_id, &lease->by_id, lease->id)) {
        free(lease);
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    list_push_back(&executor->leases, &lease->link);
    if (!pool_submit(&owner->pool, &lease->holder, wait_ms == 0 ? 0 : now + wait_ms * 1000, now)) {
        free_lease(lease);
        error_set(err, ERROR_LIMIT, "the queue of %s is full (%u wait)", profile->agent_type,
                  owner->pool.limits.max_queue);
        return NULL;
    }
    agent_pool_dispatch(owner);
    agent_pool_watch_queue(owner, now);
    executor_kick(executor);
    return lease;
}

/* Its container is BUSY with it. Its handler hears from the loop. */
void lease_begin(struct lease *lease)
{
    struct worker *worker = worker_of(lease->holder.container);
    struct executor *executor = lease->owner->executor;
    uint64_t now = clock_us();
    if (uv_is_active((uv_handle_t *)&worker->timer)) /* of a health check */
        uv_timer_stop(&worker->timer);
    lease->begun_us = now;
    lease->begun_wall_ms = clock_wall_ms();
    renew(lease, now);
    histogram_add(&executor->queue, lease->holder.dispatched_us - lease->holder.submitted_us);
    lease->begun_due = true;
    executor_event(executor, &(struct event){.type = EVENT_LEASE_TAKEN,
                                             .agent_type = lease->owner->profile->agent_type,
                                             .subject = lease->id,
                                             .other = worker->name});
    soon(lease);
}

/* Never got a container. */
static void fail(struct lease *lease, enum error_code code)
{
    struct error error = ERROR_INIT;
    error_set(&error, code, "%s", lease->reason);
    if (!lease->abandoned)
        lease->handler.begun(lease->user, lease, &error);
    free_lease(lease);
}

void lease_reject(struct lease *lease, enum error_code code, const char *message)
{
    if (lease->holder.state != TASK_QUEUED)
        return;
    pool_withdraw(&lease->owner->pool, &lease->holder);
    snprintf(lease->reason, sizeof lease->reason, "%s", message);
    lease->failed = code;
    soon(lease);
}

/* --- its tasks ------------------------------------------------------------------------------------------- */

struct lease *executor_lease_find(const struct executor *executor, const char *id)
{
    struct hash_node *node = hash_find(&executor->leases_by_id, id);
    struct lease *lease = node == NULL ? NULL : hash_entry(node, struct lease, by_id);
    return lease != NULL && lease->holder.state == TASK_RUNNING && !lease->ending ? lease : NULL;
}

int lease_submit(struct lease *lease, struct job *job, uint64_t now_us, struct error *err)
{
    struct pool *pool = &lease->owner->pool;
    job->task.submitted_us = now_us;
    renew(lease, now_us);
    if (list_empty(&lease->waiting) && pool_lease_run(pool, &lease->holder, &job->task, now_us))
        return 0;
    if (lease->waiting_count >= pool->limits.max_queue)
        return error_set(err, ERROR_LIMIT, "%u tasks wait in the lease", lease->waiting_count);
    job->lease = lease;
    job->task.pool = pool;
    job->task.state = TASK_QUEUED;
    list_push_back(&lease->waiting, &job->task.link);
    lease->waiting_count++;
    return 0;
}

void lease_withdraw(struct job *job)
{
    list_remove(&job->task.link);
    job->lease->waiting_count--;
    job->lease = NULL;
    job->task.state = TASK_ENDED;
}

static void let_go(struct lease *lease)
{
    struct worker *worker = worker_of(lease->holder.container);
    pool_lease_ended(&lease->owner->pool, &lease->holder, clock_us());
    ended(lease);
    worker_release(worker, 0);
}

void lease_task_ended(struct lease *lease)
{
    uint64_t now = clock_us();
    renew(lease, now);
    lease->tasks++;
    if (lease->ending) {
        let_go(lease);
        return;
    }
    if (list_empty(&lease->waiting))
        return;
    struct job *next = job_of(list_entry(lease->waiting.next, struct task, link));
    lease_withdraw(next);
    pool_lease_run(&lease->owner->pool, &lease->holder, &next->task, now);
    job_dispatched(next);
}

/* --- the end ---------------------------------------------------------------------------------------------- */

void lease_end(struct lease *lease, const char *reason)
{
    if (lease->ending)
        return;
    snprintf(lease->reason, sizeof lease->reason, "%s", reason);
    if (lease->holder.state == TASK_QUEUED) {
        lease_reject(lease, ERROR_CANCELLED, reason);
        return;
    }
    lease->ending = true;
    reject_waiting(lease);
    struct task *running = lease->holder.container->task;
    if (running != NULL) {
        executor_task_cancel(running);
        executor_task_cancel(running); /* without grace */
    }
    soon(lease);
}

void executor_lease_release(struct lease *lease)
{
    lease_end(lease, "it was released");
}

void executor_lease_abandon(struct lease *lease)
{
    lease->abandoned = true;
    lease_end(lease, "the connection that held it was closed");
}

void lease_lost(struct lease *lease, const char *reason)
{
    snprintf(lease->reason, sizeof lease->reason, "its container was lost: %s", reason);
    pool_lease_ended(&lease->owner->pool, &lease->holder, clock_us());
    ended(lease);
}

void executor_lease_renew(struct lease *lease, int64_t ttl_ms)
{
    if (ttl_ms >= 0)
        lease->ttl_ms = (uint64_t)ttl_ms;
    renew(lease, clock_us());
}

/* --- from the loop ------------------------------------------------------------------------------------------ */

void lease_soon(struct executor *executor)
{
    while (!list_empty(&executor->leases_soon)) {
        struct lease *lease = list_entry(executor->leases_soon.next, struct lease, soon);
        list_remove(&lease->soon);
        if (lease->begun_due) {
            lease->begun_due = false;
            if (!lease->abandoned)
                lease->handler.begun(lease->user, lease, NULL);
        }
        if (lease->failed != ERROR_NONE)
            fail(lease, lease->failed);
        else if (lease->ending && lease->holder.container->task == NULL)
            let_go(lease);
    }
}

static void look_at(struct lease *lease, uint64_t now_us)
{
    const struct profile *profile = lease->owner->profile;
    bool busy = lease->holder.container->task != NULL;
    bool leaving = lease->owner->pool.draining || lease->owner->executor->closing;
    char reason[96];
    if (busy)
        renew(lease, now_us);
    if (!lease->ending && leaving && !busy && lease->waiting_count == 0) {
        lease_end(lease, lease->owner->executor->closing ? "warmpool is stopping" : "its pool is being drained");
    } else if (!lease->ending && expiry(lease) != 0 && now_us >= expiry(lease)) {
        snprintf(reason, sizeof reason, "it was not used for %" PRIu64 " ms (its time to live)", lease->ttl_ms);
        lease_end(lease, reason);
    } else if (!lease->leak_told && profile->lease_warn_after_ms != 0 &&
               now_us - lease->begun_us >= profile->lease_warn_after_ms * 1000) {
        lease->leak_told = true;
        executor_event(lease->owner->executor, &(struct event){.type = EVENT_LEASE_OVERDUE,
                                                               .agent_type = profile->agent_type,
                                                               .subject = lease->id,
                                                               .other = worker_of(lease->holder.container)->name,
                                                               .a = (int64_t)((now_us - lease->begun_us) / 1000)});
        log_warn(lease->owner->executor->log,
                 "lease %s of %s is held for %" PRIu64
                 " s already (leaseWarnAfter): forgotten? `warmpool release %s` ends it",
                 lease->id, profile->agent_type, (now_us - lease->begun_us) / 1000000, lease->id);
    }
}

void lease_tick(struct executor *executor, uint64_t now_us)
{
    list_for_each_safe (node, &executor->leases) {
        struct lease *lease = list_entry(node, struct lease, link);
        if (lease->holder.state == TASK_RUNNING)
            look_at(lease, now_us);
    }
}

/* --- looking -------------------------------------------------------------------------------------------------- */

const char *executor_lease_id(const struct lease *lease)
{
    return lease->id;
}

void executor_lease_info(const struct lease *lease, struct lease_info *info)
{
    const struct worker *worker = lease->holder.state == TASK_RUNNING ? worker_of(lease->holder.container) : NULL;
    *info = (struct lease_info){
        .id = lease->id,
        .agent_type = lease->owner->profile->agent_type,
        .state = lease->ending || lease->failed != ERROR_NONE ? "ending"
                 : worker == NULL                             ? "waiting"
                                                              : "held",
        .container_id = worker != NULL ? worker->id : "",
        .container_name = worker != NULL ? worker->name : "",
        .task_id = worker != NULL && worker->container.task != NULL ? executor_task_id(worker->container.task) : "",
        .begun_ms = lease->begun_wall_ms,
        .used_ms = lease->used_wall_ms,
        .ttl_ms = lease->ttl_ms,
        .tasks = lease->tasks,
        .waiting = lease->waiting_count,
        .held = lease->held,
        .overdue = lease->leak_told};
}

void executor_leases(const struct executor *executor, void (*fn)(void *user, const struct lease_info *info), void *user)
{
    list_for_each (node, &executor->leases) {
        struct lease_info info;
        executor_lease_info(list_entry(node, struct lease, link), &info);
        fn(user, &info);
    }
}
