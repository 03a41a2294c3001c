/* Tasks from the request to the result. A job is one allocation with its request in it. Its handler's `ended` is called
 * exactly once, from the loop, and the job is freed right after. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "executor/internal.h"

#define ID_MAX           64U
#define STDIN_INLINE_MAX (16U * 1024U * 1024U)
#define OVERDUE_US       15000000U                     /* a runner keeps deadlines itself; then it is thought to hang */
#define STRINGS_MAX      (FRAME_RUN_MAX - 64U * 1024U) /* of argv, env and workdir together, with what the wire adds */

static struct worker *worker_on(const struct job *job)
{
    return job->task.container == NULL ? NULL : worker_of(job->task.container);
}

static struct runner_conn *conn_on(const struct job *job)
{
    struct worker *worker = worker_on(job);
    return worker != NULL && runner_conn_ready(worker->conn) ? worker->conn : NULL;
}

/* --- request ----------------------------------------------------------------------------------------- */

struct measure {
    size_t argc, envc, bytes;
    struct secrets_measure secrets;
};

static int check_id(const char *id, struct error *err)
{
    size_t length = strlen(id);
    if (length == 0 || length > ID_MAX ||
        strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != length)
        return error_set(err, ERROR_INVALID, "the task id must be 1 to %u characters of A-Z a-z 0-9 . _ -", ID_MAX);
    return 0;
}

static int check_request(const struct task_request *request, struct measure *measure, struct error *err)
{
    *measure = (struct measure){0};
    bool empty = request->argv == NULL || request->argv[0] == NULL || request->argv[0][0] == '\0';
    if (request->files_only && (!empty || request->lease == NULL))
        return error_set(err, ERROR_INVALID, "only in a lease are there tasks without a command");
    if (empty && !request->files_only)
        return error_set(err, ERROR_INVALID, "the command is empty; give a program and its arguments");
    if (request->id != NULL && check_id(request->id, err) < 0)
        return -1;
    for (; !empty && request->argv[measure->argc] != NULL; measure->argc++)
        measure->bytes += strlen(request->argv[measure->argc]) + 1;
    for (; request->env != NULL && request->env[measure->envc] != NULL; measure->envc++) {
        const char *equals = strchr(request->env[measure->envc], '=');
        if (equals == NULL || equals == request->env[measure->envc])
            return error_set(err, ERROR_INVALID, "environment entry %zu is not NAME=VALUE", measure->envc + 1);
        measure->bytes += strlen(request->env[measure->envc]) + 1;
    }
    if (request->term != NULL)
        measure->bytes += sizeof "TERM=" + strlen(request->term);
    if (request->workdir != NULL) {
        if (request->workdir[0] != '/')
            return error_set(err, ERROR_INVALID, "the working directory \"%.100s\" is not absolute", request->workdir);
        measure->bytes += strlen(request->workdir) + 1;
    }
    if (secrets_check(request, &measure->secrets, err) < 0)
        return -1;
    size_t strings = measure->argc + measure->envc + measure->secrets.variables + measure->secrets.files;
    size_t bytes = measure->bytes + measure->secrets.name_bytes + measure->secrets.bytes;
    if (measure->argc > RUN_STRINGS_MAX || measure->envc > RUN_STRINGS_MAX || bytes + 5 * strings > STRINGS_MAX)
        return error_set(err, ERROR_INVALID, "the command, its environment and its secrets are larger than %u bytes",
                         STRINGS_MAX);
    if (request->stdin_size > STDIN_INLINE_MAX)
        return error_set(err, ERROR_INVALID, "stdin given with the task is larger than %u bytes; stream it",
                         STDIN_INLINE_MAX);
    if (request->stdin_stream && request->stdin_size > 0)
        return error_set(err, ERROR_INVALID, "stdin is either given with the task or streamed");
    if (request->priority > PRIORITY_BACKGROUND)
        return error_set(err, ERROR_INVALID, "the priority must be critical, high, normal, low or background");
    return transfer_check(request, err);
}

static bool is_whitelisted(const struct profile *profile, const char *name, size_t length)
{
    for (char **entry = profile->environment_whitelist; *entry != NULL; entry++) {
        size_t stem = strcspn(*entry, "*");
        if (strncmp(*entry, name, stem) == 0 && ((*entry)[stem] == '*' ? stem <= length : stem == length))
            return true;
    }
    return *profile->environment_whitelist == NULL;
}

static int check_environment(const struct task_request *request, const struct profile *profile, struct error *err)
{
    for (const char *const *entry = request->env; entry != NULL && *entry != NULL; entry++) {
        size_t length = strcspn(*entry, "=");
        if (!is_whitelisted(profile, *entry, length))
            return error_set(err, ERROR_INVALID,
                             "the variable %.*s is not in environmentWhitelist of %s; leave it out or add it there",
                             length > 100 ? 100 : (int)length, *entry, profile->agent_type);
    }
    return 0;
}

static int check_secret_variables(const struct task_request *request, const struct profile *profile, struct error *err)
{
    for (size_t i = 0; i < request->secret_count; i++) {
        const char *name = request->secrets[i].name;
        if (request->secrets[i].as_env && !is_whitelisted(profile, name, strlen(name)))
            return error_set(
                err, ERROR_INVALID,
                "the secret %s would be a variable that is not in environmentWhitelist of %s; give it as a "
                "file, or add it there",
                name, profile->agent_type);
    }
    return 0;
}

static char *copy_text(char **next, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = *next;
    memcpy(copy, text, size);
    *next += size;
    return copy;
}

static const char **copy_strings(char **arrays, char **texts, const char *const *from, size_t count)
{
    const char **copy = (const char **)(void *)*arrays;
    *arrays += (count + 1) * sizeof *copy;
    for (size_t i = 0; i < count; i++)
        copy[i] = copy_text(texts, from[i]);
    copy[count] = NULL;
    return copy;
}

static uint32_t choose_ms(int64_t asked, uint64_t configured)
{
    uint64_t value = asked >= 0 ? (uint64_t)asked : configured;
    return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static void make_id(struct executor *executor, char id[72])
{
    unsigned char random[8];
    executor_random_bytes(executor, random, sizeof random);
    static const char digits[] = "0123456789abcdef";
    char *out = id;
    *out++ = 't';
    for (size_t i = 0; i < sizeof random; i++) {
        *out++ = digits[random[i] >> 4];
        *out++ = digits[random[i] & 15];
    }
    *out = '\0';
}

static struct job *job_new(struct agent_pool *owner, const struct task_request *request, const struct measure *measure)
{
    const struct secrets_measure *secrets = &measure->secrets;
    size_t list = secrets->files * sizeof(struct message_secret);
    size_t arrays = list + (measure->argc + 1 + measure->envc + secrets->variables + 2) * sizeof(char *);
    size_t texts = measure->bytes + secrets->name_bytes;
    struct job *job = malloc(sizeof *job + arrays + texts + secrets->bytes + request->stdin_size);
    if (job == NULL)
        return NULL;
    memset(job, 0, sizeof *job);
    const struct profile *profile = owner->profile;
    char *next_array = job->strings + list;
    char *next_text = job->strings + arrays;
    job->argv = copy_strings(&next_array, &next_text, request->argv, measure->argc);
    job->env = copy_strings(&next_array, &next_text, request->env, measure->envc);
    if (request->term != NULL) {
        char *entry = next_text;
        next_text += sprintf(next_text, "TERM=%s", request->term) + 1;
        job->env[measure->envc] = entry; /* room for it was made */
        job->env[measure->envc + 1] = NULL;
    }
    job->workdir = request->workdir != NULL ? copy_text(&next_text, request->workdir) : "";
    char *secret_memory = job->strings + arrays + texts;
    if (request->secret_count > 0)
        secrets_copy(job, request, measure->envc + (request->term != NULL), job->strings, next_text, secret_memory);
    next_text = secret_memory + secrets->bytes;
    if (request->stdin_size > 0) {
        memcpy(next_text, request->stdin_data, request->stdin_size);
        job->stdin_given = job->stdin_data = (uint8_t *)next_text;
        job->stdin_size = request->stdin_size;
    }
    list_init(&job->task.link);
    list_init(&job->soon);
    job->owner = owner;
    job->task.priority = (unsigned)request->priority;
    job->task.fresh = request->fresh || owner->pool.limits.on_demand;
    job->terminal = request->terminal;
    job->rows = request->rows;
    job->columns = request->columns;
    job->has_stdin = request->stdin_stream || request->stdin_size > 0;
    job->stdin_stream = request->stdin_stream;
    job->stdin_eof = !request->stdin_stream;
    job->stdin_credit = STDIN_CREDIT_INITIAL;
    job->capture = request->capture;
    job->stream = request->stream;
    job->in_lease = request->lease != NULL;
    job->files_only = request->files_only;
    job->idempotent = request->idempotent;
    job->retries_left = request->retries >= 0 ? (uint32_t)request->retries : profile->retry_attempts;
    job->max_output_bytes =
        request->max_output_bytes >= 0 ? (uint64_t)request->max_output_bytes : profile->max_output_bytes;
    job->timeout_ms = choose_ms(request->timeout_ms, profile->timeout_ms);
    job->kill_timeout_ms = choose_ms(request->kill_timeout_ms, profile->kill_timeout_ms);
    return job;
}

static void job_free(struct job *job)
{
    struct executor *executor = job->owner->executor;
    list_remove(&job->soon);
    hash_remove(&executor->jobs_by_id, &job->by_id);
    executor->jobs--;
    buffer_free(&job->captured[0]);
    buffer_free(&job->captured[1]);
    buffer_free(&job->early_stdin);
    buffer_free(&job->stdin_kept);
    transfer_free(job);
    secrets_wipe(job);
    free(job);
    if (executor->closing)
        executor_kick(executor);
}

void job_soon(struct job *job)
{
    struct executor *executor = job->owner->executor;
    if (list_empty(&job->soon))
        list_push_back(&executor->soon, &job->soon);
    executor_kick(executor);
}

void agent_pool_watch_queue(struct agent_pool *owner, uint64_t now_us)
{
    uint64_t deadline_us = pool_next_deadline(&owner->pool);
    if (deadline_us == UINT64_MAX || (owner->queue_armed_us != 0 && owner->queue_armed_us <= deadline_us))
        return;
    owner->queue_armed_us = deadline_us;
    uint64_t delay = deadline_us > now_us ? (deadline_us - now_us) / 1000 + 1 : 0;
    uv_timer_start(&owner->queue_timer, agent_pool_queue_expired, delay, 0);
}

static struct agent_pool *find_owner(struct executor *executor, const struct task_request *request,
                                     struct lease **lease, struct error *err)
{
    if (request->lease == NULL) {
        struct agent_pool *owner = executor_pool_get(executor, request->agent_type, err);
        return owner == NULL || agent_pool_refuses(owner, err) ? NULL : owner;
    }
    *lease = executor_lease_find(executor, request->lease);
    if (*lease == NULL) {
        error_set(err, ERROR_NOT_FOUND, "there is no lease \"%.64s\"; it may have ended", request->lease);
        return NULL;
    }
    if (request->agent_type != NULL && strcmp(request->agent_type, (*lease)->owner->profile->agent_type) != 0) {
        error_set(err, ERROR_INVALID, "the lease %s is of agent type %s, not %.64s", request->lease,
                  (*lease)->owner->profile->agent_type, request->agent_type);
        return NULL;
    }
    return (*lease)->owner;
}

/* Into the queue, or into the lease. */
static int enter(struct job *job, struct lease *lease, const struct task_request *request, uint64_t now,
                 struct error *err)
{
    struct agent_pool *owner = job->owner;
    if (lease != NULL)
        return lease_submit(lease, job, now, err);
    uint64_t wait_ms = choose_ms(request->queue_timeout_ms, owner->profile->queue_timeout_ms);
    if (!pool_submit(&owner->pool, &job->task, wait_ms == 0 ? 0 : now + wait_ms * 1000, now))
        return error_set(err, ERROR_LIMIT, "the queue of %s is full (%u tasks wait)", owner->profile->agent_type,
                         owner->pool.limits.max_queue);
    return 0;
}

static void leave(struct job *job)
{
    if (job->lease != NULL)
        lease_withdraw(job);
    else
        pool_withdraw(&job->owner->pool, &job->task);
}

static struct job *job_discard(struct job *job)
{
    if (job == NULL)
        return NULL;
    transfer_free(job);
    secrets_wipe(job);
    free(job);
    return NULL;
}

struct task *executor_submit(struct executor *executor, const struct task_request *request,
                             const struct task_handler *handler, void *user, struct error *err)
{
    struct measure measure;
    if (executor->closing) {
        error_set(err, ERROR_UNAVAILABLE, "warmpool is stopping and takes no more tasks");
        return NULL;
    }
    if (check_request(request, &measure, err) < 0)
        return NULL;
    struct lease *lease = NULL;
    struct agent_pool *owner = find_owner(executor, request, &lease, err);
    if (owner == NULL || check_environment(request, owner->profile, err) < 0 ||
        check_secret_variables(request, owner->profile, err) < 0)
        return NULL;
    if (request->id != NULL && hash_find(&executor->jobs_by_id, request->id) != NULL) {
        error_set(err, ERROR_CONFLICT, "a task with the id \"%s\" is queued or running", request->id);
        return NULL;
    }
    struct job *job = job_new(owner, request, &measure);
    if (job != NULL && transfer_copy(job, request) < 0)
        job = job_discard(job);
    if (job == NULL) {
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    job->handler = *handler;
    job->user = user;
    if (request->id != NULL)
        snprintf(job->id, sizeof job->id, "%s", request->id);
    else
        make_id(executor, job->id);
    uint64_t now = clock_us();
    if (!hash_add(&executor->jobs_by_id, &job->by_id, job->id)) {
        job_discard(job);
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    if (enter(job, lease, request, now, err) < 0) {
        hash_remove(&executor->jobs_by_id, &job->by_id);
        job_discard(job);
        return NULL;
    }
    executor->jobs++;
    if (lease == NULL)
        agent_pool_dispatch(owner);
    else if (job->task.state == TASK_RUNNING)
        job_start(job);
    if (job->task.state == TASK_QUEUED) {
        executor_event(executor,
                       &(struct event){.type = EVENT_TASK_QUEUED,
                                       .agent_type = owner->profile->agent_type,
                                       .subject = job->id,
                                       .a = lease != NULL ? lease->waiting_count : pool_waiting(&owner->pool)});
        agent_pool_watch_queue(owner, now);
        executor_kick(executor);
    } else if (handler->started != NULL) {
        job->started_due = true;
        job_soon(job);
    }
    return &job->task;
}

bool job_begin_own(struct worker *worker, const struct task_request *request, const struct task_handler *handler,
                   void *user)
{
    struct agent_pool *owner = worker->owner;
    struct executor *executor = owner->executor;
    struct measure measure;
    struct error error = ERROR_INIT;
    struct job *job = check_request(request, &measure, &error) < 0 ? NULL : job_new(owner, request, &measure);
    if (job != NULL) {
        make_id(executor, job->id);
        if (!hash_add(&executor->jobs_by_id, &job->by_id, job->id))
            job = job_discard(job);
    }
    if (job == NULL) {
        log_warn(executor->log, "%s: %s", worker->name, error.code == ERROR_NONE ? "out of memory" : error.message);
        return false;
    }
    job->handler = *handler;
    job->user = user;
    job->own = true;
    executor->jobs++;
    pool_take(&owner->pool, &worker->container, &job->task, clock_us());
    job_start(job);
    return true;
}

/* --- running ------------------------------------------------------------------------------------------ */

static void send_stdin(struct job *job)
{
    struct runner_conn *conn = conn_on(job);
    if (conn == NULL || job->stdin_size == 0)
        return;
    size_t piece = job->stdin_size < job->stdin_credit ? job->stdin_size : job->stdin_credit;
    if (piece == 0)
        return;
    bool last = piece == job->stdin_size;
    runner_conn_stdin(conn, job->number, job->stdin_data, piece, last && job->stdin_eof);
    job->stdin_data += piece;
    job->stdin_size -= piece;
    job->stdin_sent += piece;
    job->stdin_credit -= (uint32_t)piece;
}

/* Of the stream: kept until the runner says that the task has it. */
static void stream_stdin(struct job *job, struct runner_conn *conn, const void *data, size_t size, bool eof)
{
    buffer_append(&job->stdin_kept, data, size);
    job->stdin_sent += size;
    runner_conn_stdin(conn, job->number, data, size, eof);
}

/* RLIMIT_CPU has whole seconds, and none is no limit. */
static uint32_t cpu_limit_s(const struct job *job)
{
    uint64_t ms = job->owner->profile->resources.max_cpu_ms;
    return (uint32_t)((ms + 999) / 1000); /* maxCpuTime is at most some days */
}

static void send_run(struct job *job, struct runner_conn *conn)
{
    struct message_run run = {.flags = (job->has_stdin ? RUN_FLAG_STDIN : 0) | (job->terminal ? RUN_FLAG_TERMINAL : 0) |
                                       (job->in_lease ? RUN_FLAG_KEEP_BACKGROUND : 0),
                              .timeout_ms = job->timeout_ms,
                              .kill_timeout_ms = job->kill_timeout_ms,
                              .cpu_limit_s = cpu_limit_s(job),
                              .credit_stdout = job->output_window,
                              .credit_stderr = job->output_window,
                              .rows = job->rows,
                              .columns = job->columns,
                              .workdir = job->workdir,
                              .secretc = job->secret_count,
                              .secret_list = job->secrets};
    job->run_on = conn;
    job->run_at = runner_conn_sent(conn) + runner_conn_unsent(conn);
    job->run_us = clock_us();
    runner_conn_run(conn, job->number, &run, job->argv, job->env, job->secret_bytes > 0);
    job->granted[0] = job->granted[1] = job->output_window;
}

void job_start(struct job *job)
{
    struct executor *executor = job->owner->executor;
    struct worker *worker = worker_on(job);
    if (uv_is_active((uv_handle_t *)&worker->timer))
        uv_timer_stop(&worker->timer);
    job->number = ++executor->task_number == 0 ? ++executor->task_number : executor->task_number;
    job->output_window = worker->attached ? ATTACH_WINDOW : OUTPUT_WINDOW;
    if (!job->own) {
        histogram_add(&executor->queue, job->task.dispatched_us - job->task.submitted_us);
        executor_event(executor, &(struct event){.type = EVENT_TASK_STARTED,
                                                 .agent_type = job->owner->profile->agent_type,
                                                 .subject = job->id,
                                                 .other = worker->name});
    }
    if (!transfer_in_begin(job))
        job_run(job);
}

void job_run(struct job *job)
{
    struct runner_conn *conn = worker_on(job)->conn;
    job->phase = JOB_RUNNING;
    if (job->files_only) { /* this may be inside the caller's executor_submit() */
        job->files_only_due = true;
        job_soon(job);
        return;
    }
    send_run(job, conn);
    send_stdin(job);
    if (job->stdin_stream && (buffer_length(&job->early_stdin) > 0 || job->stdin_eof))
        stream_stdin(job, conn, buffer_data(&job->early_stdin), buffer_length(&job->early_stdin), job->stdin_eof);
    buffer_free(&job->early_stdin);
    runner_conn_flush(conn);
}

bool job_overdue(const struct job *job, uint64_t now_us)
{
    uint64_t allowed_us = ((uint64_t)job->timeout_ms + job->kill_timeout_ms) * 1000 + OVERDUE_US;
    return job->phase == JOB_RUNNING && !job->files_only && job->timeout_ms != 0 && now_us - job->run_us > allowed_us;
}

/* --- after a broken connection -------------------------------------------------------------------------- */

void job_sync(struct job *job, struct message_sync *sync)
{
    sync->task = job->number;
    for (int i = 0; i < 2; i++) {
        job->granted[i] += job->window[i];
        job->window[i] = 0;
        sync->received[i] = job->received[i];
        sync->granted[i] = job->granted[i];
    }
}

/* Stdin from byte `from` on, as far as it had been sent. */
static void resend_stdin(struct job *job, struct runner_conn *conn, uint64_t from)
{
    size_t size = (size_t)(job->stdin_sent - from);
    bool all = job->stdin_eof && job->stdin_size == 0;
    if (!job->has_stdin || (size == 0 && !all))
        return;
    const uint8_t *data = job->stdin_given != NULL
                              ? job->stdin_given + from
                              : (const uint8_t *)buffer_data(&job->stdin_kept) + (from - job->stdin_consumed);
    runner_conn_stdin(conn, job->number, data, size, all);
}

int job_resume(struct job *job, const struct message_hello *hello, bool untouched)
{
    struct runner_conn *conn = worker_on(job)->conn;
    log_debug(job->owner->executor->log,
              "task %s goes on: stdin sent %" PRIu64 ", received %" PRIu64 ", consumed %" PRIu64 " of %" PRIu64
              "; output received %" PRIu64 ", resumed at %" PRIu64 "%s",
              job->id, job->stdin_sent, hello->stdin_received, hello->stdin_consumed, job->stdin_consumed,
              job->received[0], hello->resumed[0], untouched ? "; it had not begun" : "");
    bool unread = hello->stdin_consumed == UINT64_MAX;
    if (untouched && (job->stdin_unread || job->stdin_consumed + job->received[0] + job->received[1] > 0))
        return -1; /* it has said otherwise */
    if (untouched) {
        send_run(job, conn);
        resend_stdin(job, conn, 0);
        return 0;
    }
    if (hello->stdin_received > job->stdin_sent || (job->stdin_unread && !unread) ||
        (!unread && (hello->stdin_consumed > hello->stdin_received || hello->stdin_consumed < job->stdin_consumed)))
        return -1;
    for (int i = 0; i < 2; i++) {
        if (hello->resumed[i] < job->received[i] || hello->resumed[i] > job->granted[i])
            return -1;
        if (hello->resumed[i] > job->received[i])
            job->truncated[i] = true;
        job->received[i] = hello->resumed[i];
    }
    if (unread) {
        job_stdin_credit(job, UINT32_MAX);
        return 0;
    }
    resend_stdin(job, conn, hello->stdin_received);
    if (hello->stdin_consumed > job->stdin_consumed)
        job_stdin_credit(job, (uint32_t)(hello->stdin_consumed - job->stdin_consumed));
    return 0;
}

/* --- running ------------------------------------------------------------------------------------------ */

void job_dispatched(struct job *job)
{
    job_start(job);
    if (job->handler.started == NULL)
        return;
    job->started_due = true;
    job_soon(job);
}

void agent_pool_dispatch(struct agent_pool *owner)
{
    uint64_t now = clock_us();
    for (struct task *task = pool_dispatch(&owner->pool, now); task != NULL; task = pool_dispatch(&owner->pool, now)) {
        if (task->lease)
            lease_begin(lease_of(task));
        else if (now == task->submitted_us) /* from executor_submit(), which tells its start itself */
            job_start(job_of(task));
        else
            job_dispatched(job_of(task));
    }
}

bool agent_pool_refuses(const struct agent_pool *owner, struct error *err)
{
    const char *type = owner->profile->agent_type;
    if (!owner->pool.draining)
        return false;
    error_set(err, ERROR_UNAVAILABLE, "the pool of %s was drained and takes no tasks; open it: warmpool resume %s",
              type, type);
    return true;
}

void executor_task_consumed(struct task *task, int stream, size_t size)
{
    struct job *job = job_of(task);
    uint64_t *window = &job->window[stream == 2];
    *window += size;
    struct runner_conn *conn = conn_on(job);
    if (conn == NULL || *window < job->output_window / 4)
        return;
    runner_conn_credit(conn, job->number, stream, (uint32_t)*window);
    runner_conn_flush(conn);
    job->granted[stream == 2] += *window;
    *window = 0;
}

static void capture(struct job *job, int stream, const uint8_t *data, size_t size)
{
    struct buffer *captured = &job->captured[stream == 2];
    uint64_t room = job->max_output_bytes - buffer_length(captured);
    if (size > room) {
        job->truncated[stream == 2] = true;
        size = (size_t)room;
    }
    buffer_append(captured, data, size);
    if (captured->failed)
        job->truncated[stream == 2] = true;
}

void job_output(struct job *job, int stream, const uint8_t *data, size_t size)
{
    job->received[stream == 2] += size;
    if (job->capture)
        capture(job, stream, data, size);
    if (job->stream && !job->abandoned)
        job->handler.output(job->user, &job->task, stream, data, size);
    else
        executor_task_consumed(&job->task, stream, size);
}

void job_stdin_credit(struct job *job, uint32_t bytes)
{
    if (bytes == UINT32_MAX) { /* nobody reads any more */
        job->stdin_unread = true;
        job->stdin_size = 0;
        job->stdin_eof = true;
        job->stdin_credit = 0;
        buffer_free(&job->stdin_kept);
        if (job->handler.stdin_ready != NULL && !job->abandoned)
            job->handler.stdin_ready(job->user, &job->task, SIZE_MAX);
        return;
    }
    if (bytes > job->stdin_sent - job->stdin_consumed) /* a runner cannot have taken more than it got */
        bytes = (uint32_t)(job->stdin_sent - job->stdin_consumed);
    job->stdin_credit += bytes;
    job->stdin_consumed += bytes;
    if (job->stdin_stream)
        buffer_consume(&job->stdin_kept, bytes);
    if (job->stdin_size > 0) {
        send_stdin(job);
        struct runner_conn *conn = conn_on(job);
        if (conn != NULL)
            runner_conn_flush(conn);
    } else if (bytes > 0 && job->handler.stdin_ready != NULL && !job->abandoned) {
        job->handler.stdin_ready(job->user, &job->task, bytes);
    }
}

static int job_keep_stdin(struct job *job, const void *data, size_t size, struct error *err)
{
    buffer_append(&job->stdin_kept, data, size);
    job->stdin_sent += size;
    return job->stdin_kept.failed ? error_set(err, ERROR_NOMEM, "out of memory for stdin") : 0;
}

int executor_task_stdin(struct task *task, const void *data, size_t size, bool eof, struct error *err)
{
    struct job *job = job_of(task);
    struct runner_conn *conn = conn_on(job);
    if (job->stdin_eof)
        return 0; /* ended, or nobody reads */
    if (size > job->stdin_credit)
        return error_set(err, ERROR_LIMIT, "%zu bytes of stdin where %u may be sent", size, job->stdin_credit);
    job->stdin_credit -= (uint32_t)size;
    job->stdin_eof = eof;
    if (job->phase < JOB_RUNNING) {
        buffer_append(&job->early_stdin, data, size);
        return job->early_stdin.failed ? error_set(err, ERROR_NOMEM, "out of memory for stdin") : 0;
    }
    if (conn == NULL)
        return job_keep_stdin(job, data, size, err); /* the connection may come back */
    stream_stdin(job, conn, data, size, eof);
    runner_conn_flush(conn);
    return 0;
}

void executor_task_signal(struct task *task, int signal)
{
    struct job *job = job_of(task);
    struct runner_conn *conn = conn_on(job);
    if (conn == NULL || signal < 1 || signal > 64)
        return;
    runner_conn_signal(conn, job->number, (uint32_t)signal);
    runner_conn_flush(conn);
}

void executor_task_winch(struct task *task, uint16_t rows, uint16_t columns)
{
    struct job *job = job_of(task);
    struct runner_conn *conn = conn_on(job);
    job->rows = rows; /* of a task that has not started yet */
    job->columns = columns;
    if (conn == NULL || !job->terminal)
        return;
    runner_conn_winch(conn, job->number, rows, columns);
    runner_conn_flush(conn);
}

/* --- the end ------------------------------------------------------------------------------------------- */

static void name_container(struct task_result *result, const struct job *job, uint64_t now)
{
    const struct worker *worker = worker_on(job);
    result->container_id = worker != NULL ? worker->id : "";
    result->container_name = worker != NULL ? worker->name : "";
    result->pooled = job->owner->executor->mode == EXECUTOR_POOLED;
    if (worker == NULL)
        return;
    result->container_age_ms = (now - worker->container.created_us) / 1000;
    result->exec_count = worker->container.exec_count;
    result->hit = job->task.hit;
}

static void begin_result(struct task_result *result, const struct job *job, uint64_t now)
{
    uint64_t dispatched = job->task.dispatched_us != 0 ? job->task.dispatched_us : now;
    *result = (struct task_result){
        .task_id = job->id,
        .agent_type = job->owner->profile->agent_type,
        .exit_code = -1,
        .message = "",
        .output_truncated = job->truncated[0],
        .error_truncated = job->truncated[1],
        .queue_us = dispatched - job->task.submitted_us,
        .total_us = now - job->task.submitted_us,
        .resources = {EXIT_UNMEASURED, EXIT_UNMEASURED, EXIT_UNMEASURED, EXIT_UNMEASURED, EXIT_UNMEASURED, NULL}};
    if (job->capture) {
        static const uint8_t nothing[1] = {0};
        result->output = buffer_length(&job->captured[0]) > 0 ? buffer_data(&job->captured[0]) : nothing;
        result->error = buffer_length(&job->captured[1]) > 0 ? buffer_data(&job->captured[1]) : nothing;
        result->output_size = buffer_length(&job->captured[0]);
        result->error_size = buffer_length(&job->captured[1]);
    }
    name_container(result, job, now);
}

static void tell_end(const struct job *job, const struct task_result *result)
{
    struct executor *executor = job->owner->executor;
    executor->outcomes[result->outcome]++;
    executor_event(executor, &(struct event){.type = EVENT_TASK_ENDED,
                                             .agent_type = job->owner->profile->agent_type,
                                             .subject = job->id,
                                             .other = result->container_name[0] != '\0' ? result->container_name : NULL,
                                             .text = task_outcome_name(result->outcome),
                                             .a = result->exit_code >= 0 ? result->exit_code : EVENT_UNKNOWN,
                                             .b = (int64_t)result->total_us});
}

/* Tells the handler and frees. */
static void finish(struct job *job, struct task_result *result)
{
    if (!job->own)
        tell_end(job, result);
    if (!job->abandoned)
        job->handler.ended(job->user, &job->task, result);
    job_free(job);
}

static const char *spawn_stage_text(unsigned stage)
{
    switch (stage) {
    case SPAWN_WORKDIR:
        return "cannot enter the working directory";
    case SPAWN_EXEC:
        return "cannot execute";
    default:
        return "cannot start a process";
    }
}

/* ENOENT of the program is 127, what else keeps it from running 126: as a shell has it. */
static void not_started(struct task_result *result, const struct job *job, const struct message_exit *message,
                        char *text, size_t size)
{
    bool setup = message->spawn_stage == SPAWN_SETUP;
    bool missing = message->spawn_stage == SPAWN_EXEC && message->spawn_errno == ENOENT;
    result->outcome = TASK_REJECTED;
    result->exit_code = setup ? 125 : missing ? 127 : 126;
    result->cli_exit_code = result->exit_code;
    snprintf(text, size, "%s \"%.100s\": %s", spawn_stage_text(message->spawn_stage),
             message->spawn_stage == SPAWN_WORKDIR ? (job->workdir[0] != '\0' ? job->workdir : "/workspace")
                                                   : job->argv[0],
             missing ? "not found" : strerror((int)message->spawn_errno));
    result->message = text;
}

/* The kernel sends SIGXCPU at the limit, SIGKILL a second later. */
static bool out_of_cpu_time(const struct job *job, const struct message_exit *message)
{
    uint64_t limit_us = cpu_limit_s(job) * 1000000ULL;
    bool late = message->user_us != EXIT_UNMEASURED && message->system_us != EXIT_UNMEASURED &&
                message->user_us + message->system_us >= limit_us + 500000;
    return limit_us != 0 && (message->signal == SIGXCPU || (message->signal == SIGKILL && late));
}

static void explain(struct task_result *result, const struct job *job, const struct message_exit *message, char *text,
                    size_t size)
{
    result->signal = (int)message->signal;
    result->exit_code = message->signal != 0 ? 128 + (int)message->signal : message->exit_code;
    result->cli_exit_code = result->exit_code;
    text[0] = '\0';
    result->message = text;
    switch (message->outcome) {
    case EXIT_EXITED:
        result->outcome = TASK_EXITED;
        break;
    case EXIT_SIGNALED:
        result->outcome = TASK_SIGNALED;
        snprintf(text, size, "killed by signal %u (%s)", message->signal, strsignal((int)message->signal));
        if (out_of_cpu_time(job, message))
            snprintf(text, size, "killed at the CPU time limit (resourceLimits.maxCpuTime) of %u s", cpu_limit_s(job));
        break;
    case EXIT_TIMED_OUT:
        result->outcome = TASK_TIMED_OUT;
        result->cli_exit_code = 124;
        snprintf(text, size, "timed out after %u ms", job->timeout_ms);
        break;
    case EXIT_CANCELLED:
        result->outcome = TASK_CANCELLED;
        result->cli_exit_code = 130; /* as after Ctrl-C in a shell, whatever its last word was */
        snprintf(text, size, "cancelled");
        break;
    case EXIT_OOM_KILLED:
        result->outcome = TASK_OOM_KILLED;
        snprintf(text, size, "out of memory (the limit is %" PRIu64 " MiB)", job->owner->profile->memory_bytes >> 20);
        break;
    case EXIT_NOT_STARTED:
        not_started(result, job, message, text, size);
        break;
    default:
        result->outcome = TASK_LOST;
        result->cli_exit_code = 125;
        snprintf(text, size, "the runner gave an unknown outcome (%u)", message->outcome);
    }
}

static void measure(struct task_result *result, const struct message_exit *message, uint64_t now, const struct job *job)
{
    struct task_resources *resources = &result->resources;
    uint64_t run = now - job->task.dispatched_us;
    result->exec_us = message->wall_us;
    result->dispatch_us = run > message->wall_us ? run - message->wall_us : 0;
    if (message->outcome == EXIT_NOT_STARTED)
        return;
    if (message->user_us != EXIT_UNMEASURED && message->system_us != EXIT_UNMEASURED)
        resources->cpu_us = message->user_us + message->system_us;
    resources->memory_peak_bytes = message->peak_source == PEAK_NONE ? EXIT_UNMEASURED : message->peak_bytes;
    resources->memory_source = message->peak_source == PEAK_CGROUP   ? "cgroup"
                               : message->peak_source == PEAK_RUSAGE ? "rusage"
                                                                     : NULL;
    resources->disk_bytes = message->disk_bytes;
    resources->network_bytes = message->network_bytes;
}

/* RUN has reached the runner, or parts of it may have. */
static bool may_have_started(const struct job *job)
{
    struct worker *worker = worker_on(job);
    if (job->run_on == NULL || worker == NULL)
        return false;
    return job->run_on != worker->conn || runner_conn_sent(worker->conn) > job->run_at;
}

/* Nothing of it is lost for a second beginning, and nobody has seen anything of the first. */
static bool untouched(const struct job *job)
{
    bool seen = job->stream && job->received[0] + job->received[1] > 0;
    return !seen && (!job->stdin_stream || job->stdin_sent == 0);
}

static bool may_retry(const struct job *job, bool started)
{
    if (job->retries_left == 0 || job->cancelled || job->abandoned || job->in_lease || job->owner->executor->closing ||
        job->files.in_count > 0 || job->phase > JOB_RUNNING)
        return false;
    return !started || (job->idempotent && untouched(job));
}

/* Back into the queue; its container has to be given up next. */
static void retry(struct job *job, const char *why)
{
    struct agent_pool *owner = job->owner;
    uint64_t now = clock_us();
    job->retries_left--;
    job->phase = JOB_BEGINNING;
    job->run_on = NULL;
    job->stdin_unread = false;
    if (job->stdin_stream && job->stdin_sent > 0) /* untouched() has seen to that nothing was */
        job->stdin_sent = 0;
    if (job->stdin_given != NULL) {
        job->stdin_size += (size_t)(job->stdin_data - job->stdin_given);
        job->stdin_data = job->stdin_given;
        job->stdin_sent = job->stdin_consumed = 0;
        job->stdin_credit = STDIN_CREDIT_INITIAL;
    }
    for (int i = 0; i < 2; i++) {
        job->received[i] = job->granted[i] = job->window[i] = 0;
        job->truncated[i] = false;
        buffer_free(&job->captured[i]);
    }
    log_info(owner->executor->log, "task %s waits again: %s", job->id, why);
    executor_event(owner->executor, &(struct event){.type = EVENT_TASK_RETRIED,
                                                    .agent_type = owner->profile->agent_type,
                                                    .subject = job->id,
                                                    .text = why});
    pool_put_back(&owner->pool, &job->task, now);
    agent_pool_watch_queue(owner, now);
    executor_kick(owner->executor);
}

/* A task that never began leaves no trace in its container's count. */
static void let_go(struct job *job, uint64_t now)
{
    if (job->run_on == NULL)
        job->task.container->exec_count--;
    pool_task_ended(&job->owner->pool, &job->task, now);
}

void job_files_done(struct job *job)
{
    static const struct message_exit nothing = {.outcome = EXIT_EXITED,
                                                .user_us = EXIT_UNMEASURED,
                                                .system_us = EXIT_UNMEASURED,
                                                .cgroup_cpu_us = EXIT_UNMEASURED,
                                                .peak_bytes = EXIT_UNMEASURED,
                                                .disk_bytes = EXIT_UNMEASURED,
                                                .network_bytes = EXIT_UNMEASURED};
    job->files_only_due = false;
    job_exited(job, &nothing);
}

void job_exited(struct job *job, const struct message_exit *message)
{
    struct worker *worker = worker_on(job);
    bool no_process = message->outcome == EXIT_NOT_STARTED && message->spawn_stage == SPAWN_SETUP;
    if (no_process && may_retry(job, false)) {
        retry(job, strerror((int)message->spawn_errno));
        worker_retire(worker, "it could not start a process: %s", strerror((int)message->spawn_errno));
        return;
    }
    if (transfer_out_begin(job, message))
        return;
    job->files.exit = *message;
    job->files.exit_us = clock_us();
    job->phase = JOB_DONE;
    job_complete(job, true);
}

void job_complete(struct job *job, bool release)
{
    struct executor *executor = job->owner->executor;
    struct worker *worker = worker_on(job);
    const struct message_exit *message = &job->files.exit;
    uint32_t number = job->number;
    uint64_t now = clock_us();
    struct task_result result;
    char text[320];
    begin_result(&result, job, now);
    explain(&result, job, message, text, sizeof text);
    measure(&result, message, job->files.exit_us, job);
    transfer_list(job);
    result.artifacts = job->files.list;
    result.artifact_count = job->files.list_count;
    result.artifact_error = job->files.error;
    if (!job->own) {
        histogram_add(&executor->execution, result.exec_us);
        histogram_add(&executor->dispatch, result.dispatch_us);
    }
    let_go(job, now);
    finish(job, &result);
    if (release)
        worker_release(worker, number);
}

static int end_code(enum task_outcome outcome)
{
    switch (outcome) {
    case TASK_CANCELLED:
        return 130;
    case TASK_OOM_KILLED:
        return 137;
    case TASK_UNKNOWN:
    case TASK_EXITED:
    case TASK_SIGNALED:
    case TASK_TIMED_OUT:
    case TASK_LOST:
    case TASK_REJECTED:
        break;
    }
    return 125;
}

static void end_now(struct job *job, enum task_outcome outcome)
{
    uint64_t now = clock_us();
    struct task_result result;
    begin_result(&result, job, now);
    if (job->task.state == TASK_QUEUED)
        leave(job);
    else if (job->task.container != NULL)
        let_go(job, now);
    result.outcome = outcome;
    result.message = job->message;
    result.artifact_error = job->files.error;
    result.cli_exit_code = end_code(outcome);
    if (outcome == TASK_OOM_KILLED) {
        result.signal = 9;
        result.exit_code = 137;
    }
    finish(job, &result);
}

void job_end(struct job *job, enum task_outcome outcome, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(job->message, sizeof job->message, format, args);
    va_end(args);
    end_now(job, outcome);
}

void job_stop(struct job *job, enum task_outcome outcome, const char *format, ...)
{
    struct worker *worker = worker_on(job);
    uint32_t number = job->number;
    va_list args;
    va_start(args, format);
    vsnprintf(job->message, sizeof job->message, format, args);
    va_end(args);
    end_now(job, outcome);
    if (worker != NULL)
        worker_release(worker, number);
}

void job_lost(struct job *job, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(job->message, sizeof job->message, format, args);
    va_end(args);
    if (job->phase == JOB_COPYING_OUT || job->phase == JOB_COLLECTING)
        transfer_lost(job);
    else if (may_retry(job, may_have_started(job)))
        retry(job, job->message);
    else
        end_now(job, TASK_LOST);
}

void job_end_soon(struct job *job, enum task_outcome outcome, const char *message)
{
    if (job->outcome != TASK_UNKNOWN)
        return;
    snprintf(job->message, sizeof job->message, "%s", message);
    job->outcome = outcome;
    if (job->task.state == TASK_QUEUED)
        leave(job);
    job_soon(job);
}

void executor_task_cancel(struct task *task)
{
    struct job *job = job_of(task);
    struct runner_conn *conn = conn_on(job);
    if (task->state == TASK_QUEUED) {
        job_end_soon(job, TASK_CANCELLED, "cancelled before it started");
    } else if (job->phase == JOB_COPYING_IN) {
        if (conn != NULL)
            runner_conn_cancel(conn, job->number, 0);
        job_end_soon(job, TASK_CANCELLED, "cancelled before it started");
    } else if (transfer_cancel(job)) {
        /* Its end is known; only files would have come. */
    } else if (conn != NULL) {
        /* A second call does not wait for the grace of the first. */
        runner_conn_cancel(conn, job->number, job->cancelled ? 0 : job->kill_timeout_ms);
        runner_conn_flush(conn);
    }
    job->cancelled = true;
}

void executor_task_abandon(struct task *task)
{
    struct job *job = job_of(task);
    job->abandoned = true;
    /* What the caller took and will never give back. */
    for (int stream = 1; stream <= 2; stream++)
        executor_task_consumed(task, stream, job->output_window);
    executor_task_cancel(task);
}

void agent_pool_reject_waiting(struct agent_pool *owner, enum task_outcome outcome, const struct error *error)
{
    struct queue *queues[] = {&owner->pool.queue, &owner->pool.fresh_queue};
    for (size_t i = 0; i < 2; i++) {
        for (struct task *task = queue_peek(queues[i]); task != NULL; task = queue_peek(queues[i])) {
            if (task->lease)
                lease_reject(lease_of(task), error->code, error->message);
            else
                job_end(job_of(task), outcome, "%s", error->message);
        }
    }
}

static const char *why_it_waits(const struct agent_pool *owner)
{
    if (owner->pool.paused)
        return "its pool is paused";
    if (!owner->executor->engine_up && owner->executor->engine_error.code != ERROR_NONE)
        return owner->executor->engine_error.message;
    if (owner->last_error.code != ERROR_NONE)
        return owner->last_error.message;
    return "every container of its type stayed busy";
}

void agent_pool_queue_expired(uv_timer_t *timer)
{
    struct agent_pool *owner = timer->data;
    uint64_t now = clock_us();
    owner->queue_armed_us = 0;
    for (struct task *task = pool_overdue(&owner->pool, now); task != NULL; task = pool_overdue(&owner->pool, now)) {
        char why[ERROR_MESSAGE_MAX + 64];
        snprintf(why, sizeof why, "no container within %" PRIu64 " ms: %s", (now - task->submitted_us) / 1000,
                 why_it_waits(owner));
        if (task->lease)
            lease_reject(lease_of(task), ERROR_TIMEOUT, why);
        else
            job_end_soon(job_of(task), TASK_REJECTED, why);
    }
    agent_pool_watch_queue(owner, now);
}

/* --- looking ------------------------------------------------------------------------------------------- */

struct task *executor_task_find(struct executor *executor, const char *id)
{
    struct hash_node *node = hash_find(&executor->jobs_by_id, id);
    return node == NULL ? NULL : &hash_entry(node, struct job, by_id)->task;
}

const char *executor_task_id(const struct task *task)
{
    return ((const struct job *)(const void *)task)->id;
}

const char *executor_task_state(const struct task *task)
{
    return task->state == TASK_QUEUED ? "queued" : "running";
}

const char *executor_task_agent_type(const struct task *task)
{
    return ((const struct job *)(const void *)task)->owner->profile->agent_type;
}

const char *task_outcome_name(enum task_outcome outcome)
{
    static const char *const names[] = {"unknown",    "exited",    "signaled", "timed_out",
                                        "oom_killed", "cancelled", "lost",     "rejected"};
    return (unsigned)outcome < sizeof names / sizeof names[0] ? names[outcome] : "unknown";
}
