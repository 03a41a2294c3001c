/* Leak canaries: on a spare container of each pool warmpool runs a hostile task of its own, has the container reset as
 * after any task, and looks for what was left with a second one, before anybody else gets the container. The task and
 * the look are in the runner's binary (runner/canary.c), so every image has them.
 *
 * What the look meets would have been met by a user's task: the pool's containers serve one task each from then on,
 * until an operator resumes it. */
#include <string.h>

#include "base/clock.h"
#include "executor/internal.h"

#define TASK_LIMIT_MS 5000
#define ALONE_US      10000000U /* a pool's only idle container is taken when it has been idle for so long */
#define TEXT_MAX      200U

static void run(struct worker *worker, const char *verb, const struct task_handler *handler)
{
    bool readable = worker->attached && worker->owner->gvisor;
    const char *const argv[] = {readable ? RUNNER_DIRECTORY "/" RUNNER_READABLE : RUNNER_DIRECTORY "/runner",
                                "--canary", verb, NULL};
    struct task_request request = {
        .argv = argv, .timeout_ms = TASK_LIMIT_MS, .kill_timeout_ms = -1, .max_output_bytes = 4096, .capture = true};
    if (!job_begin_own(worker, &request, handler, worker))
        worker->canary = CANARY_NONE;
}

/* The first line of what it printed, as a text for people. */
static void first_line(char text[TEXT_MAX], const uint8_t *data, size_t size)
{
    size_t length = 0;
    for (; length < size && length < TEXT_MAX - 1 && data[length] != '\n'; length++)
        text[length] = data[length] >= ' ' && data[length] < 0x7f ? (char)data[length] : '?';
    text[length] = '\0';
}

static void fouled(struct worker *worker, const char *what)
{
    struct agent_pool *owner = worker->owner;
    owner->pool.counters.contaminations++;
    log_error(owner->executor->log,
              "%s: a task's residue survived the reset: %s; no container of %s serves a second task until `warmpool "
              "resume %s`",
              worker->name, what, owner->profile->agent_type, owner->profile->agent_type);
    executor_event(owner->executor, &(struct event){.type = EVENT_CONTAMINATION,
                                                    .agent_type = owner->profile->agent_type,
                                                    .subject = worker->name,
                                                    .text = what});
    owner->pool.tainted = true;
    agent_pool_expire_all(owner);
    executor_kick(owner->executor);
}

static void on_looked(void *user, struct task *task, const struct task_result *result)
{
    struct worker *worker = user;
    char text[TEXT_MAX];
    (void)task;
    worker->canary = CANARY_LOOKED;
    worker->owner->pool.counters.canaries++;
    first_line(text, result->output, result->output_size);
    if (result->outcome == TASK_EXITED && result->exit_code == 1)
        fouled(worker, text);
    else if (result->outcome != TASK_EXITED || result->exit_code != 0)
        log_warn(worker->owner->executor->log, "%s: the canary's look did not end well: %s %s", worker->name,
                 task_outcome_name(result->outcome), result->message);
}

static void on_left(void *user, struct task *task, const struct task_result *result)
{
    struct worker *worker = user;
    char text[TEXT_MAX];
    (void)task;
    first_line(text, result->error, result->error_size);
    if (result->outcome == TASK_EXITED && result->exit_code == 0)
        return; /* canary_step() follows the reset */
    worker->canary = CANARY_NONE;
    log_warn(worker->owner->executor->log, "%s: the canary's task did not end well: %s, %s%s", worker->name,
             task_outcome_name(result->outcome), result->message, text);
}

bool canary_step(struct worker *worker)
{
    static const struct task_handler handler = {.ended = on_looked};
    enum canary_state state = worker->canary;
    worker->canary = CANARY_NONE;
    if (state == CANARY_LOOKED)
        pool_give_back(&worker->owner->pool, &worker->container, worker->canary_idle_us);
    if (state != CANARY_LEAVES)
        return false;
    worker->canary = CANARY_LOOKS;
    run(worker, "look", &handler);
    return worker->canary == CANARY_LOOKS;
}

static bool reuses(const struct agent_pool *owner)
{
    const struct pool *pool = &owner->pool;
    return pool->limits.reuse && !pool->limits.on_demand && !pool->tainted && !pool->draining && !pool->paused &&
           owner->executor->config->cleanup_between_tasks;
}

/* The one that will be missed least: the bottom of the stack. */
static struct worker *spare_of(const struct agent_pool *owner, uint64_t now_us)
{
    const struct pool *pool = &owner->pool;
    const struct list *heads[] = {&pool->containers[CONTAINER_IDLE], &pool->idle_unused};
    for (size_t i = 0; i < 2; i++) {
        if (list_empty(heads[i]))
            continue;
        struct container *container = list_entry(heads[i]->prev, struct container, link);
        struct worker *worker = worker_of(container);
        bool spare = pool->count[CONTAINER_IDLE] > 1 || now_us - container->entered_us >= ALONE_US;
        bool free = !container->expiring && runner_conn_ready(worker->conn) &&
                    !uv_is_active((uv_handle_t *)&worker->timer) && pool_waiting(pool) == 0;
        if (spare && free)
            return worker;
    }
    return NULL;
}

void canary_tick(struct agent_pool *owner, uint64_t now_us)
{
    static const struct task_handler handler = {.ended = on_left};
    uint64_t interval_us = owner->profile->canary_interval_ms * 1000;
    if (owner->canary_us == 0)
        owner->canary_us = now_us;
    if (interval_us == 0 || now_us - owner->canary_us < interval_us || !reuses(owner))
        return;
    struct worker *worker = spare_of(owner, now_us);
    if (worker == NULL)
        return; /* looked for again at the next tick */
    owner->canary_us = now_us;
    worker->canary = CANARY_LEAVES;
    worker->canary_idle_us = worker->container.entered_us;
    run(worker, "leave", &handler);
}
