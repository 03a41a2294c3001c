/* One container's life: slot and directory, network, create, start, the runner's HELLO; then tasks and resets; then
 * removal.
 *
 * A worker is freed only after its timer handle is closed, and that is begun only when no engine request names it any
 * more
 * (`pending`), so that every callback finds it alive. worker_retire() is the one way out, from any state. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "executor/internal.h"
#include "maintenance/health.h"
#include "wire/weaken.h"

#define REMOVAL_BACKOFF_MS     500U
#define REMOVAL_BACKOFF_MAX_MS 60000U
#define SUBNET_TRIES           64U
#define REMOVALS_WHEN_CLOSING  4U  /* attempts; then stopping goes on without */
#define ATTACH_AGAIN_MS        50U /* doubled up to five times */
#define HELLO_TIMEOUT_MS       3000U
#define DETACHED_MAX_US        60000000U /* then the container is given up */
#define PROBE_INTERVAL_US      30000000U
#define DETACHED_SERVING_US    2000000U /* then its place in the pool is given to another */

static void worker_remove(struct worker *worker);
static void worker_removal_begin(struct worker *worker);
static void on_timer(uv_timer_t *timer);
static void attach(struct worker *worker);
static bool converse(struct worker *worker, const struct carrier_ops *ops, void *carrier);
static void reset_begin(struct worker *worker, uint32_t unacknowledged);
static void detached(struct worker *worker, const struct error *error);
static void break_stream(struct worker *worker, const struct error *error);

static bool worker_ending(const struct worker *worker)
{
    return worker->container.state >= CONTAINER_RETIRING;
}

void worker_timer(struct worker *worker, uint64_t milliseconds)
{
    uv_timer_start(&worker->timer, on_timer, milliseconds, 0);
}

/* --- creation --------------------------------------------------------------------------------------- */

/* A failure that shows that engine and daemon do not see the same files or processes, rather than any other. */
static bool tells_of_transport(const struct error *error)
{
    return error->code == ERROR_TIMEOUT || strstr(error->message, "mount") != NULL ||
           strstr(error->message, "bind source") != NULL || strstr(error->message, ".warmpool") != NULL;
}

static void creation_failed(struct worker *worker, const struct error *error)
{
    struct agent_pool *owner = worker->owner;
    struct executor *executor = owner->executor;
    if (!worker->attached && owner->transport != TRANSPORT_USE_SOCKET && tells_of_transport(error)) {
        if (owner->transport == TRANSPORT_UNDECIDED)
            executor_transport_chosen(owner, TRANSPORT_USE_ATTACH, error->message);
        worker_retire(worker, "the socket transport does not work with this engine: %s", error->message);
        executor_kick(executor);
        return;
    }
    if (error->code == ERROR_NOT_FOUND && worker->id[0] == '\0' && worker->asked)
        image_lost(owner->image);
    if (worker->attached && strstr(error->message, ".warmpool") != NULL) /* somebody removed or emptied it */
        executor->volume.state = executor->volume.state == VOLUME_READY ? VOLUME_ABSENT : executor->volume.state;
    owner->last_error = *error;
    agent_pool_create_failed(owner, error);
    log_warn(executor->log, "%s: a container could not be made: %s", owner->profile->agent_type, error->message);
    if (error->code == ERROR_UNAVAILABLE && !worker->stream_ended)
        executor_engine_failed(executor, error);
    worker_retire(worker, "could not be made: %s", error->message);
    executor_kick(executor);
}

/* Every engine callback begins here: true when the worker goes on. */
static bool answered(struct worker *worker, const struct error *error)
{
    worker->pending--;
    if (worker_ending(worker)) {
        worker_removal_begin(worker);
        return false;
    }
    if (error != NULL) {
        creation_failed(worker, error);
        return false;
    }
    return true;
}

static void on_inspected(void *user, const struct container_status *status, const struct error *error)
{
    struct worker *worker = user;
    if (!answered(worker, error))
        return;
    struct error failure = ERROR_INIT;
    if (!status->running || status->pid <= 0) {
        error_set(&failure, ERROR_ENGINE, "it ended at once with code %d%s%s", status->exit_code,
                  status->error[0] != '\0' ? ": " : "", status->error);
        creation_failed(worker, &failure);
        return;
    }
    worker->pid = status->pid;
    snprintf(worker->network_id, sizeof worker->network_id, "%s", status->network_id);
    if (worker->stream_ended) {
        error_set(&failure, ERROR_UNAVAILABLE, "the engine ended its attach stream");
        creation_failed(worker, &failure);
        return;
    }
    if (!worker->attached && socket_listener_start(worker->listener, worker->pid, &failure) < 0)
        creation_failed(worker, &failure);
}

static void on_started(void *user, const struct error *error)
{
    struct worker *worker = user;
    if (!answered(worker, error))
        return;
    container_enter(&worker->container, CONTAINER_CONNECTING, clock_us());
    bool trying = !worker->attached && worker->owner->transport == TRANSPORT_UNDECIDED;
    worker_timer(worker, trying ? PROBE_TIMEOUT_MS : CONNECT_TIMEOUT_MS);
    if (worker->attachment != NULL) /* else it ended already: what the engine says of it is waited for */
        converse(worker, &attachment_carrier, worker->attachment);
    worker->pending++;
    engine_container_inspect(worker->owner->executor->engine, worker->id, on_inspected, worker);
}

static void on_created(void *user, const char *id, const struct error *error)
{
    struct worker *worker = user;
    if (id != NULL)
        snprintf(worker->id, sizeof worker->id, "%s", id);
    if (!answered(worker, error))
        return;
    if (worker->attached) { /* before the start, so that nothing is missed */
        attach(worker);
        return;
    }
    worker->pending++;
    engine_container_start(worker->owner->executor->engine, worker->id, on_started, worker);
}

static void create_container(struct worker *worker)
{
    worker->pending++;
    worker_create(worker, on_created);
}

static void create_network(struct worker *worker);

static void on_network(void *user, const char *id, const struct error *error)
{
    struct worker *worker = user;
    struct slot *slot = worker->slot;
    if (id != NULL)
        snprintf(slot->network_id, sizeof slot->network_id, "%s", id);
    bool overlap = error != NULL && error->code == ERROR_CONFLICT;
    if (overlap && !worker_ending(worker) && ++worker->checks < SUBNET_TRIES) {
        worker->pending--;
        slot_subnet_foreign(slot);
        create_network(worker);
        return;
    }
    if (!answered(worker, error))
        return;
    create_container(worker);
}

static void create_network(struct worker *worker)
{
    struct executor *executor = worker->owner->executor;
    struct slot *slot = worker->slot;
    char cidr[24];
    if (slot_take_subnet(&executor->slots, executor->config, slot, cidr) < 0) {
        struct error error = ERROR_INIT;
        error_set(&error, ERROR_LIMIT, "networkSubnetPool has no free /29 network left; make it larger");
        creation_failed(worker, &error);
        return;
    }
    struct engine_label labels[] = {{LABEL_INSTANCE, executor->state.instance},
                                    {LABEL_TYPE, worker->owner->profile->agent_type}};
    struct network_spec spec = {.name = slot->network_name,
                                .subnet = cidr,
                                .internal = strcmp(worker->owner->profile->network_mode, "internal") == 0,
                                .labels = labels,
                                .label_count = 2};
    worker->pending++;
    engine_network_create(executor->engine, &spec, on_network, worker);
}

static bool wants_own_network(const struct profile *profile)
{
    return strcmp(profile->network_mode, "isolated") == 0 || strcmp(profile->network_mode, "bridge") == 0 ||
           strcmp(profile->network_mode, "internal") == 0;
}

/* --- the runner's words ------------------------------------------------------------------------------ */

static struct job *job_on(const struct worker *worker)
{
    return worker->container.task == NULL ? NULL : job_of(worker->container.task);
}

static void worker_ready(struct worker *worker)
{
    struct agent_pool *owner = worker->owner;
    uint64_t now = clock_us();
    uv_timer_stop(&worker->timer);
    container_enter(&worker->container, CONTAINER_IDLE, now);
    worker->answered_us = now;
    worker->container.expires_us =
        janitor_expiry(&(struct janitor_config){.max_age_us = owner->profile->max_container_age_ms * 1000}, now,
                       executor_random(owner->executor));
    agent_pool_create_succeeded(owner);
    owner->pool.counters.created++;
    executor_event(owner->executor, &(struct event){.type = EVENT_CONTAINER_CREATED,
                                                    .agent_type = owner->profile->agent_type,
                                                    .subject = worker->name,
                                                    .a = (int64_t)((now - worker->container.created_us) / 1000)});
    owner->last_error = (struct error)ERROR_INIT;
    histogram_add(&owner->executor->create, now - worker->container.created_us);
    log_debug(owner->executor->log, "%s: ready after %" PRIu64 " ms", worker->name,
              (now - worker->container.created_us) / 1000);
    agent_pool_dispatch(owner);
    executor_kick(owner->executor);
}

/* Back after a time without a connection, in the middle of a task. */
static void task_found_again(struct worker *worker, struct job *job, const struct message_hello *hello)
{
    /* Of the task before, in a lease, it may not have heard that its end is known. */
    bool before =
        hello->task_state == HELLO_TASK_EXITED && hello->task == worker->last_task && hello->task != job->number;
    bool untouched =
        (hello->task_state == HELLO_TASK_NONE || before) && hello->generation + 1 == worker->container.exec_count;
    uv_timer_stop(&worker->timer);
    if (transfer_broken(job))
        return;
    if (before)
        runner_conn_ack(worker->conn, hello->task);
    if (!untouched && (hello->task != job->number || hello->task_state == HELLO_TASK_NONE))
        worker_retire(worker, "its runner came back without the task it had");
    else if (job_resume(job, hello, untouched) < 0)
        worker_retire(worker, "its runner came back with a task that cannot be the one it had");
    else if (job->cancelled) /* it may not have heard */
        executor_task_cancel(&job->task);
    if (worker->conn != NULL)
        runner_conn_flush(worker->conn);
}

/* Between two tasks of a lease. An EXIT that it says again is acknowledged as one that is known. */
static void lease_found_again(struct worker *worker, const struct message_hello *hello)
{
    uv_timer_stop(&worker->timer);
    worker->answered_us = clock_us();
    if (hello->generation != worker->container.exec_count || hello->task_state == HELLO_TASK_RUNNING ||
        (hello->task_state == HELLO_TASK_EXITED && hello->task != worker->last_task)) {
        worker_retire(worker, "its runner had run tasks that were not ours");
        return;
    }
    if (hello->task_state == HELLO_TASK_EXITED) {
        runner_conn_ack(worker->conn, hello->task);
        runner_conn_flush(worker->conn);
    }
}

/* It was heard again before anybody missed it, or as an unhealthy one, of which the next check decides. */
static void idle_again(struct worker *worker, uint64_t now)
{
    uv_timer_stop(&worker->timer);
    worker->answered_us = now;
    if (worker->container.state == CONTAINER_UNHEALTHY) {
        worker_ping(worker);
        return;
    }
    container_enter(&worker->container, CONTAINER_IDLE, now);
    agent_pool_dispatch(worker->owner);
    executor_kick(worker->owner->executor);
}

static void on_hello(void *user, const struct message_hello *hello)
{
    struct worker *worker = user;
    struct agent_pool *owner = worker->owner;
    struct job *job = job_on(worker);
    uint64_t now = clock_us();
    bool again = worker->detached_us != 0;
    worker->detached_us = 0;
    worker->probed_us = 0;
    worker->spoken_us = now;
    switch (worker->container.state) {
    case CONTAINER_CONNECTING:
    case CONTAINER_UNHEALTHY:
        if (!again && worker->container.state == CONTAINER_UNHEALTHY)
            break;
        if (hello->flags != 0 || hello->task_state != HELLO_TASK_NONE ||
            hello->generation != worker->container.exec_count) {
            worker_retire(worker, "its runner had run tasks that were not ours");
            return;
        }
        if (again) {
            idle_again(worker, now);
            return;
        }
        worker->baseline = hello->baseline;
        if (owner->transport == TRANSPORT_UNDECIDED)
            executor_transport_chosen(owner, worker->attached ? TRANSPORT_USE_ATTACH : TRANSPORT_USE_SOCKET,
                                      "it works");
        worker_ready(worker);
        return;
    case CONTAINER_BUSY:
        if (job != NULL)
            task_found_again(worker, job, hello);
        else
            lease_found_again(worker, hello);
        return;
    case CONTAINER_RESETTING: /* of the attach stream only, as below */
        uv_timer_stop(&worker->timer);
        reset_begin(worker, hello->task_state == HELLO_TASK_EXITED ? hello->task : 0);
        return;
    case CONTAINER_IDLE:
    case CONTAINER_CREATING:
    case CONTAINER_RETIRING:
    case CONTAINER_REMOVING:
    case CONTAINER_STUCK:
    case CONTAINER_GONE:
    case CONTAINER_STATES:
        break;
    }
    worker_retire(worker, "its runner connected again when %s", container_state_name(worker->container.state));
}

static void on_output(void *user, uint32_t task, int stream, const uint8_t *data, size_t size, bool eof)
{
    struct worker *worker = user;
    struct job *job = job_on(worker);
    if ((job == NULL || job->number != task) && task != 0 && task == worker->last_task)
        return; /* said again on a new connection */
    if (job == NULL || job->number != task) {
        worker_retire(worker, "its runner sent output of a task that it does not have");
        return;
    }
    (void)eof;
    if (size > job->granted[stream == 2] - job->received[stream == 2]) {
        worker_retire(worker, "its runner sent more output than it may");
        return;
    }
    if (size > 0)
        job_output(job, stream, data, size);
}

static void on_credit(void *user, uint32_t task, uint32_t bytes)
{
    struct worker *worker = user;
    struct job *job = job_on(worker);
    if (job != NULL && job->number == task)
        job_stdin_credit(job, bytes);
}

static void on_exit_frame(void *user, uint32_t task, const struct message_exit *message)
{
    struct worker *worker = user;
    struct job *job = job_on(worker);
    if (job != NULL && job->number == task && job->phase == JOB_RUNNING)
        job_exited(job, message);
    else if ((job != NULL && job->number == task && job->phase > JOB_RUNNING) || task == worker->last_task)
        ; /* said again on a new connection */
    else
        worker_retire(worker, "its runner ended a task that it does not have");
}

static void on_file(void *user, uint32_t task, const uint8_t *data, size_t size, bool eof)
{
    struct job *job = job_on(user);
    if (job != NULL && job->number == task) /* else of a transfer that was given up */
        transfer_file(job, data, size, eof);
}

static void on_file_credit(void *user, uint32_t task, uint32_t bytes)
{
    struct job *job = job_on(user);
    if (job != NULL && job->number == task)
        transfer_credit(job, bytes);
}

static void on_file_result(void *user, uint32_t task, const struct message_file_result *result)
{
    struct job *job = job_on(user);
    if (job != NULL && job->number == task)
        transfer_result(job, result);
}

static void on_receipt(void *user, const struct receipt *receipt)
{
    struct worker *worker = user;
    struct agent_pool *owner = worker->owner;
    if (!worker->receipt_due || worker->container.state != CONTAINER_RESETTING) {
        worker_retire(worker, "its runner sent a receipt that nobody asked for");
        return;
    }
    worker->receipt_due = false;
    uv_timer_stop(&worker->timer);
    uint64_t now = clock_us();
    histogram_add(&owner->executor->reset, now - worker->reset_begun_us);
    owner->pool.counters.resets++;
    char difference[160];
    if (!weakened(owner->profile->agent_type, "receipt") &&
        receipt_differs(&worker->baseline, receipt, difference, sizeof difference)) {
        owner->pool.counters.resets_failed++;
        worker_retire(worker, "not clean after its task: %s", difference);
        executor_kick(owner->executor);
        return;
    }
    container_enter(&worker->container, CONTAINER_IDLE, now);
    worker->answered_us = now;
    if (worker->canary != CANARY_NONE && canary_step(worker))
        return;
    if (owner->pool.queue.length + owner->pool.fresh_queue.length > 0)
        agent_pool_dispatch(owner);
    if (worker->container.expiring || owner->executor->closing)
        executor_kick(owner->executor);
}

bool worker_replaced(struct worker *worker)
{
    struct agent_pool *owner = worker->owner;
    if (!pool_replaced(&owner->pool, &worker->container))
        return false;
    executor_event(owner->executor, &(struct event){.type = EVENT_CONTAINER_REFRESHED,
                                                    .agent_type = owner->profile->agent_type,
                                                    .subject = worker->name,
                                                    .text = "another one is there in its place"});
    worker_retire(worker, "replaced");
    return true;
}

void worker_unhealthy(struct worker *worker, const char *reason)
{
    struct agent_pool *owner = worker->owner;
    log_warn(owner->executor->log, "%s: unhealthy: %s", worker->name, reason);
    container_enter(&worker->container, CONTAINER_UNHEALTHY, clock_us());
    container_expire(&worker->container);
    executor_event(owner->executor, &(struct event){.type = EVENT_CONTAINER_UNHEALTHY,
                                                    .agent_type = owner->profile->agent_type,
                                                    .subject = worker->name,
                                                    .text = reason});
    executor_kick(owner->executor);
}

static void on_pong(void *user, const struct message_pong *pong)
{
    struct worker *worker = user;
    struct agent_pool *owner = worker->owner;
    if (pong->nonce > worker->ping_nonce) {
        worker_retire(worker, "its runner answered a question that nobody asked");
        return;
    }
    worker->answered_us = clock_us();
    enum container_state state = worker->container.state;
    if (pong->nonce != worker->ping_nonce || (state != CONTAINER_IDLE && state != CONTAINER_UNHEALTHY))
        return;
    uv_timer_stop(&worker->timer);
    struct health_report report = {.spawn_errno = pong->spawn_errno,
                                   .memory_bytes = pong->memory_bytes,
                                   .memory_limit = pong->memory_limit,
                                   .pids = pong->pids,
                                   .pids_limit = pong->pids_limit};
    const char *verdict = health_verdict(&report);
    if (verdict != NULL && state == CONTAINER_IDLE) {
        worker_unhealthy(worker, verdict);
    } else if (verdict == NULL && state == CONTAINER_UNHEALTHY) {
        log_info(owner->executor->log, "%s: healthy again", worker->name);
        container_enter(&worker->container, CONTAINER_IDLE, worker->answered_us);
        agent_pool_dispatch(owner);
    }
}

static void on_log(void *user, int level, const char *text)
{
    struct worker *worker = user;
    if (level == LOG_LEVEL_ERROR) {
        worker_retire(worker, "its runner says: %.128s", text);
        return;
    }
    log_write(worker->owner->executor->log, level <= LOG_LEVEL_WARN ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG,
              "%s: runner: %s", worker->name, text);
}

static void on_lost(void *user, const struct error *error)
{
    struct worker *worker = user;
    if (worker->attached && error->code != ERROR_PROTOCOL) {
        worker_attach_closed(worker, error);
        return;
    }
    if (worker->container.state == CONTAINER_CONNECTING)
        return; /* it may connect again before its deadline */
    if (worker->container.state == CONTAINER_BUSY && error->code != ERROR_PROTOCOL) {
        worker->checks = 0;
        worker_timer(worker, RECONNECT_CHECK_MS);
        return;
    }
    worker_retire(worker, "%s", error->message);
    executor_kick(worker->owner->executor);
}

static const struct runner_handler runner_handler = {
    .hello = on_hello,
    .output = on_output,
    .credit = on_credit,
    .exited = on_exit_frame,
    .file = on_file,
    .file_credit = on_file_credit,
    .file_result = on_file_result,
    .receipt = on_receipt,
    .pong = on_pong,
    .log = on_log,
    .lost = on_lost,
};

/* Begins a conversation, the first or another, over a carrier that is there. */
static bool converse(struct worker *worker, const struct carrier_ops *ops, void *carrier)
{
    struct job *job = job_on(worker);
    worker->conn = runner_conn_free(worker->conn);
    struct message_sync sync = {.task = 0};
    if (job != NULL)
        job_sync(job, &sync);
    else if (worker->last_task != 0) /* its end is known: no output is wanted again */
        sync = (struct message_sync){.task = worker->last_task, .received = {UINT64_MAX, UINT64_MAX}};
    executor_random_bytes(worker->owner->executor, sync.marker, sizeof sync.marker);
    worker->conn =
        runner_conn_new(ops, carrier, &sync, worker->attached ? worker->token : NULL, &runner_handler, worker);
    if (worker->conn == NULL) {
        ops->close(carrier);
        return false;
    }
    if (worker->attached)
        attachment_bind(carrier, worker->conn);
    else
        socket_carrier_bind(carrier, worker->conn);
    runner_conn_flush(worker->conn);
    return true;
}

static void on_accepted(void *user, const struct carrier_ops *ops, void *carrier)
{
    struct worker *worker = user;
    if (worker_ending(worker) || runner_conn_ready(worker->conn))
        ops->close(carrier);
    else
        converse(worker, ops, carrier);
}

/* In a fresh container only the runner connects: somebody else is the runner as another pid namespace numbers it. */
static void on_refused(void *user, int64_t pid)
{
    struct worker *worker = user;
    if (worker->owner->transport == TRANSPORT_USE_SOCKET || worker->container.state != CONTAINER_CONNECTING)
        return;
    struct error error = ERROR_INIT;
    error_set(&error, ERROR_TIMEOUT, "the runner connected as process %lld, the engine says it is %lld", (long long)pid,
              (long long)worker->pid);
    creation_failed(worker, &error);
}

/* --- the attach stream ------------------------------------------------------------------------------- */

static void attach(struct worker *worker)
{
    worker->attachment = attachment_open(worker);
    if (worker->attachment != NULL)
        return;
    struct error error = ERROR_INIT;
    error_set(&error, ERROR_NOMEM, "out of memory");
    worker_attach_closed(worker, &error);
}

void worker_attach_opened(struct worker *worker)
{
    if (worker->container.state == CONTAINER_CREATING) {
        worker->pending++;
        engine_container_start(worker->owner->executor->engine, worker->id, on_started, worker);
    } else {
        worker_timer(worker, HELLO_TIMEOUT_MS);
        converse(worker, &attachment_carrier, worker->attachment);
    }
}

/* The stream is gone, the container may be as well as ever. What it does is waited for; it gets no new work before it
 * is heard again. */
static void detached(struct worker *worker, const struct error *error)
{
    struct executor *executor = worker->owner->executor;
    uint64_t now = clock_us();
    if (worker->detached_us == 0) {
        worker->detached_us = now;
        worker->checks = 0;
        log_info(executor->log, "%s: the attach stream broke: %s", worker->name, error->message);
    }
    if (worker->container.state == CONTAINER_IDLE)
        container_enter(&worker->container, CONTAINER_CONNECTING, now);
    if (worker->container.state == CONTAINER_CONNECTING && executor->engine_up &&
        now - worker->detached_us > DETACHED_SERVING_US) {
        worker_unhealthy(worker, "its attach stream is broken");
    }
    if (now - worker->detached_us > DETACHED_MAX_US)
        worker_retire(worker, "its attach stream did not come back: %s", error->message);
    else
        worker_timer(worker, ATTACH_AGAIN_MS << (worker->checks < 5 ? worker->checks++ : 5));
    executor_kick(executor);
}

/* One over which nothing comes, though the engine keeps it open. */
static void break_stream(struct worker *worker, const struct error *error)
{
    if (worker->conn != NULL)
        runner_conn_stop(worker->conn);
    attachment_close(worker->attachment);
    detached(worker, error);
}

void worker_probe(struct worker *worker, uint64_t now_us)
{
    struct error error = ERROR_INIT;
    if (now_us - worker->probed_us < PROBE_INTERVAL_US)
        return;
    if (worker->probed_us > worker->answered_us && worker->probed_us > worker->container.task->dispatched_us) {
        worker->probed_us = 0;
        error_set(&error, ERROR_TIMEOUT, "its runner gave no answer for %u s", PROBE_INTERVAL_US / 1000000);
        break_stream(worker, &error);
        return;
    }
    worker->probed_us = now_us;
    runner_conn_ping(worker->conn, ++worker->ping_nonce);
    runner_conn_flush(worker->conn);
}

void worker_attach_closed(struct worker *worker, const struct error *error)
{
    if (worker_ending(worker))
        return;
    if (worker->container.state == CONTAINER_CREATING && worker->pending > 0) {
        worker->stream_ended = true; /* why, the answer to the start will say */
        return;
    }
    bool is_new = worker->container.state == CONTAINER_CREATING || worker->container.state == CONTAINER_CONNECTING;
    if (is_new && worker->detached_us == 0 && worker->container.state == CONTAINER_CONNECTING &&
        error->code == ERROR_UNAVAILABLE && !worker->stream_ended) {
        worker->stream_ended = true; /* with the container, most likely: the engine says how */
        worker->pending++;
        engine_container_inspect(worker->owner->executor->engine, worker->id, on_inspected, worker);
    } else if (is_new && worker->detached_us == 0)
        creation_failed(worker, error);
    else if (error->code == ERROR_NOT_FOUND || error->code == ERROR_CONFLICT)
        worker_check(worker); /* which says how it ended */
    else
        detached(worker, error);
}

/* --- begin ------------------------------------------------------------------------------------------- */

static struct slot *take_slot(struct agent_pool *owner, struct error *err)
{
    if (!list_empty(&owner->free_slots)) {
        struct slot *slot = list_entry(owner->free_slots.next, struct slot, link);
        list_remove(&slot->link);
        owner->free_slot_count--;
        return slot;
    }
    struct executor *executor = owner->executor;
    struct slot *slot = slot_new(&executor->slots, executor->config, executor->state.instance, err);
    if (slot != NULL)
        slot->networks = owner->networks;
    return slot;
}

static void create(struct worker *worker)
{
    if (wants_own_network(worker->owner->profile) && worker->slot->network_id[0] == '\0')
        create_network(worker);
    else
        create_container(worker);
}

/* Without a byte 0, see wire/frame.h. */
static void make_token(struct worker *worker)
{
    for (size_t i = 0; i < sizeof worker->token; i++)
        do
            executor_random_bytes(worker->owner->executor, &worker->token[i], 1);
        while (worker->token[i] == 0);
}

void worker_volume_ready(struct worker *worker, const struct error *error)
{
    if (answered(worker, error))
        create(worker);
}

void worker_new(struct agent_pool *owner)
{
    struct executor *executor = owner->executor;
    struct error error = ERROR_INIT;
    uint64_t now = clock_us();
    struct slot *slot = take_slot(owner, &error);
    struct worker *worker = slot == NULL ? NULL : calloc(1, sizeof *worker);
    if (worker == NULL) {
        if (slot != NULL)
            slot_put(owner, slot);
        if (error.code == ERROR_NONE)
            error_set(&error, ERROR_NOMEM, "out of memory");
        owner->last_error = error;
        agent_pool_create_failed(owner, &error);
        return;
    }
    worker->owner = owner;
    worker->slot = slot;
    worker->dir_fd = -1;
    worker->created_wall_ms = clock_wall_ms();
    container_init(&worker->container, &owner->pool, now);
    uv_timer_init(executor->loop, &worker->timer);
    worker->timer.data = worker;
    snprintf(worker->name, sizeof worker->name, "wp-%.6s-%s-%06x", executor->state.instance, owner->profile->agent_type,
             executor_random(executor) & 0xffffffU);

    list_init(&worker->volume_wait);
    worker->attached = owner->transport == TRANSPORT_USE_ATTACH;
    if (worker->attached) {
        make_token(worker);
        worker->pending++;
        runner_volume_want(worker);
        return;
    }
    uint32_t uid = worker_has_own_user(owner->profile) ? slot->uid : 0;
    worker->dir_fd = state_dir_container_new(&executor->state, worker->name, uid, &error);
    if (worker->dir_fd >= 0)
        worker->listener =
            socket_listener_new(executor->loop, worker->dir_fd, "sock", on_accepted, on_refused, worker, &error);
    if (worker->listener == NULL)
        creation_failed(worker, &error);
    else
        create(worker);
}

/* --- work -------------------------------------------------------------------------------------------- */

/* Asks for a reset and its receipt; once more after a broken stream, when `unacknowledged` says what did not arrive. */
static void reset_begin(struct worker *worker, uint32_t unacknowledged)
{
    if (unacknowledged != 0)
        runner_conn_ack(worker->conn, unacknowledged);
    worker->reset_begun_us = clock_us();
    worker->receipt_due = true;
    worker_timer(worker, worker->owner->profile->reset_timeout_ms);
    runner_conn_reset(worker->conn);
    runner_conn_flush(worker->conn);
}

void worker_release(struct worker *worker, uint32_t task_number)
{
    struct agent_pool *owner = worker->owner;
    struct lease *lease = lease_on(worker);
    if (task_number != 0) {
        worker->last_task = task_number;
        runner_conn_ack(worker->conn, task_number);
    }
    if (lease != NULL) {
        runner_conn_flush(worker->conn);
        lease_task_ended(lease);
        return;
    }
    if (!runner_conn_ready(worker->conn)) {
        worker_retire(worker, "its runner was away when its lease ended");
        executor_kick(owner->executor);
        return;
    }
    if (janitor_due(&worker->container, clock_us())) { /* under full load nobody finds it idle */
        container_expire(&worker->container);
        executor_kick(owner->executor);
    }
    if (!pool_may_reuse(&owner->pool, &worker->container)) {
        runner_conn_flush(worker->conn);
        if (!worker_replaced(worker))
            worker_retire(worker, "it has served its tasks");
        executor_kick(owner->executor);
        return;
    }
    uint64_t now = clock_us();
    container_enter(&worker->container, CONTAINER_RESETTING, now);
    worker->last_used_wall_ms = clock_wall_ms();
    if (!owner->executor->config->cleanup_between_tasks) {
        runner_conn_flush(worker->conn);
        container_enter(&worker->container, CONTAINER_IDLE, now);
        agent_pool_dispatch(owner);
        return;
    }
    reset_begin(worker, 0);
}

void worker_ping(struct worker *worker)
{
    worker_timer(worker, PING_TIMEOUT_MS);
    runner_conn_ping(worker->conn, ++worker->ping_nonce);
    runner_conn_flush(worker->conn);
}

static void on_checked(void *user, const struct container_status *status, const struct error *error)
{
    struct worker *worker = user;
    worker->pending--;
    if (worker_ending(worker)) {
        worker_removal_begin(worker);
        return;
    }
    if (error != NULL && error->code == ERROR_NOT_FOUND) {
        worker_died(worker, NULL);
    } else if (error == NULL && !status->running && worker->container.state != CONTAINER_CREATING) {
        worker_died(worker, status);
    } else if (worker->attached) {
        if (worker->attachment == NULL && !uv_is_active((uv_handle_t *)&worker->timer)) {
            struct error again = ERROR_INIT;
            error_set(&again, ERROR_UNAVAILABLE, "the engine refused it for a moment");
            detached(worker, error != NULL ? error : &again);
        }
    } else if (worker->container.state == CONTAINER_BUSY && !runner_conn_ready(worker->conn)) {
        if (++worker->checks > RECONNECT_CHECKS)
            worker_retire(worker, "its runner did not come back");
        else
            worker_timer(worker, RECONNECT_CHECK_MS);
    }
}

void worker_check(struct worker *worker)
{
    if (worker_ending(worker) || worker->id[0] == '\0')
        return;
    worker->pending++;
    engine_container_inspect(worker->owner->executor->engine, worker->id, on_checked, worker);
}

void worker_died(struct worker *worker, const struct container_status *status)
{
    struct job *job = job_on(worker);
    if (worker_ending(worker))
        return;
    if (job != NULL && status != NULL && status->oom_killed && status->exit_code == 137)
        job_end(job, TASK_OOM_KILLED, "out of memory: the whole container was killed");
    if (status != NULL)
        worker_retire(worker, "its container ended with code %d", status->exit_code);
    else
        worker_retire(worker, "its container was removed by somebody else");
    executor_kick(worker->owner->executor);
}

static void on_timer(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    struct agent_pool *owner = worker->owner;
    struct error error = ERROR_INIT;
    if (worker->detached_us != 0 && !worker_ending(worker)) {
        if (worker->attachment == NULL) {
            attach(worker);
            return;
        }
        error_set(&error, ERROR_TIMEOUT, "its runner did not answer on the new one");
        break_stream(worker, &error);
        return;
    }
    switch (worker->container.state) {
    case CONTAINER_CONNECTING:
        error_set(&error, ERROR_TIMEOUT, "its runner did not report in time");
        creation_failed(worker, &error);
        break;
    case CONTAINER_BUSY:
        worker_check(worker);
        break;
    case CONTAINER_RESETTING:
        owner->pool.counters.resets_failed++;
        worker_retire(worker, "its reset took longer than %" PRIu64 " ms", owner->profile->reset_timeout_ms);
        executor_kick(owner->executor);
        break;
    case CONTAINER_IDLE:
        worker_unhealthy(worker, "it does not answer");
        break;
    case CONTAINER_STUCK:
        worker_remove(worker);
        break;
    case CONTAINER_CREATING:
    case CONTAINER_UNHEALTHY:
    case CONTAINER_RETIRING:
    case CONTAINER_REMOVING:
    case CONTAINER_GONE:
    case CONTAINER_STATES:
        break;
    }
}

/* --- the way out ------------------------------------------------------------------------------------- */

void worker_retire(struct worker *worker, const char *format, ...)
{
    if (worker_ending(worker))
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(worker->retire_reason, sizeof worker->retire_reason, format, args);
    va_end(args);
    uv_timer_stop(&worker->timer);
    log_info(worker->owner->executor->log, "%s: retired: %s", worker->name, worker->retire_reason);
    if (worker->conn != NULL)
        runner_conn_stop(worker->conn);
    worker->listener = socket_listener_free(worker->listener);
    attachment_close(worker->attachment); /* an open stream would freeze the container's removal */
    struct job *job = job_on(worker);
    if (job != NULL)
        job_lost(job, "the container was lost while the task ran: %s", worker->retire_reason);
    struct lease *lease = lease_on(worker);
    if (lease != NULL)
        lease_lost(lease, worker->retire_reason);
    container_enter(&worker->container, CONTAINER_RETIRING, clock_us());
    worker_removal_begin(worker);
}

static void worker_closed(uv_handle_t *handle)
{
    struct worker *worker = handle->data;
    struct executor *executor = worker->owner->executor;
    runner_conn_free(worker->conn);
    executor->handles--;
    free(worker);
    executor_kick(executor);
}

static void worker_gone(struct worker *worker)
{
    struct agent_pool *owner = worker->owner;
    container_enter(&worker->container, CONTAINER_GONE, clock_us());
    owner->pool.counters.removed++;
    if (worker->asked)
        executor_event(owner->executor, &(struct event){.type = EVENT_CONTAINER_REMOVED,
                                                        .agent_type = owner->profile->agent_type,
                                                        .subject = worker->name,
                                                        .text = worker->retire_reason,
                                                        .a = worker->container.exec_count});
    if (worker->dir_fd >= 0)
        close(worker->dir_fd);
    state_dir_container_remove(&owner->executor->state, worker->name);
    slot_put(owner, worker->slot);
    worker->slot = NULL;
    owner->executor->handles++;
    uv_close((uv_handle_t *)&worker->timer, worker_closed);
}

static void on_removed(void *user, const struct error *error)
{
    struct worker *worker = user;
    struct executor *executor = worker->owner->executor;
    worker->pending--;
    if (error == NULL) {
        worker_gone(worker);
        return;
    }
    uint64_t delay = REMOVAL_BACKOFF_MS << (worker->removal_failures < 7 ? worker->removal_failures : 7);
    if (delay > REMOVAL_BACKOFF_MAX_MS)
        delay = REMOVAL_BACKOFF_MAX_MS;
    worker->removal_failures++;
    log_warn(executor->log, "%s: could not be removed (attempt %u): %s", worker->name, worker->removal_failures,
             error->message);
    if (executor->closing && worker->removal_failures >= REMOVALS_WHEN_CLOSING) {
        log_error(executor->log, "%s: left to the next start or to `warmpool doctor --repair`", worker->name);
        worker_gone(worker);
        return;
    }
    container_enter(&worker->container, CONTAINER_STUCK, clock_us());
    worker_timer(worker, delay);
}

static void worker_remove(struct worker *worker)
{
    container_enter(&worker->container, CONTAINER_REMOVING, clock_us());
    worker->pending++;
    /* By name: a creation whose answer was lost may have made it all the same. */
    engine_container_remove(worker->owner->executor->engine, worker->name, on_removed, worker);
}

/* Once no request names it any more. */
static void worker_removal_begin(struct worker *worker)
{
    if (worker->pending > 0 || worker->container.state != CONTAINER_RETIRING)
        return;
    if (worker->asked) {
        worker_remove(worker);
        return;
    }
    container_enter(&worker->container, CONTAINER_REMOVING, clock_us());
    worker_gone(worker);
}
