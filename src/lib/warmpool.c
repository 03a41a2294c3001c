/* The public library: an executor on a thread of its own.
 *
 * A call from another thread becomes a `struct call` on the caller's stack: it is pushed onto a list, the loop is
 * woken, the loop runs its function, and the caller sleeps on the call's semaphore until somebody posts it. What
 * belongs to the executor is touched by the loop's thread only. */
#include "warmpool/warmpool.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/list.h"
#include "config/config.h"
#include "executor/executor.h"

#define WP_SECRETS 32U

#define EXPORT        WP_API
#define READY_POLL_NS 5000000L

struct call {
    struct list link;
    void (*run)(wp_executor *wp, struct call *call); /* on the loop's thread; posts `done` now or later */
    sem_t done;
    struct error error;
    int result;
};

struct wp_executor {
    pthread_t thread;
    uv_loop_t loop;
    uv_async_t wake;
    struct config *config;
    struct log log;
    void (*log_line)(void *user, int level, const char *line);
    void *log_user;
    struct executor *executor;
    pthread_mutex_t mutex;
    pthread_cond_t changed;  /* a submitted task ended, or a caller left */
    struct list calls;       /* under mutex */
    struct hash_table tasks; /* submitted ones, under mutex */
    unsigned callers;        /* inside the library, under mutex */
    bool closing;            /* under mutex */
    wp_mode mode;
};

/* A submitted task: made by submit, freed by wait. Under the executor's mutex but for what the loop alone sees before
 * `result`. */
struct submitted {
    struct hash_node by_id;
    struct wp_executor *wp;
    wp_result *result; /* NULL while it runs */
    bool awaited;
    char id[72];
};

static int fail(wp_error *error, enum error_code code, const char *message)
{
    if (error != NULL) {
        error->code = (wp_error_code)code;
        snprintf(error->message, sizeof error->message, "%s", message);
    }
    return -1;
}

static int fail_with(wp_error *error, const struct error *cause)
{
    return fail(error, cause->code, cause->message);
}

_Static_assert((int)ERROR_INVALID == (int)WP_ERROR_INVALID && (int)ERROR_DENIED == (int)WP_ERROR_DENIED,
               "the library's error codes are the inner ones");
_Static_assert((int)TASK_EXITED == (int)WP_EXITED && (int)TASK_REJECTED == (int)WP_REJECTED,
               "the library's outcomes are the inner ones");

/* --- calls into the loop's thread ----------------------------------------------------------------------- */

static void run_calls(uv_async_t *async)
{
    wp_executor *wp = async->data;
    for (;;) {
        pthread_mutex_lock(&wp->mutex);
        struct call *call = list_empty(&wp->calls) ? NULL : list_entry(wp->calls.next, struct call, link);
        if (call != NULL)
            list_remove(&call->link);
        pthread_mutex_unlock(&wp->mutex);
        if (call == NULL)
            return;
        call->run(wp, call);
    }
}

static void call_post(wp_executor *wp, struct call *call)
{
    list_init(&call->link);
    sem_init(&call->done, 0, 0);
    call->error = (struct error)ERROR_INIT;
    call->result = 0;
    pthread_mutex_lock(&wp->mutex);
    list_push_back(&wp->calls, &call->link);
    pthread_mutex_unlock(&wp->mutex);
    uv_async_send(&wp->wake);
}

static void call_wait(struct call *call)
{
    while (sem_wait(&call->done) < 0 && errno == EINTR)
        ;
    sem_destroy(&call->done);
}

static void call_do(wp_executor *wp, struct call *call, void (*run)(wp_executor *wp, struct call *call))
{
    call->run = run;
    call_post(wp, call);
    call_wait(call);
}

static int enter(wp_executor *wp, wp_error *error)
{
    if (wp == NULL)
        return fail(error, ERROR_INVALID, "the executor is NULL");
    pthread_mutex_lock(&wp->mutex);
    bool closing = wp->closing;
    if (!closing)
        wp->callers++;
    pthread_mutex_unlock(&wp->mutex);
    return closing ? fail(error, ERROR_UNAVAILABLE, "the executor is closing") : 0;
}

static void leave(wp_executor *wp)
{
    pthread_mutex_lock(&wp->mutex);
    wp->callers--;
    if (wp->closing)
        pthread_cond_broadcast(&wp->changed);
    pthread_mutex_unlock(&wp->mutex);
}

/* --- open and close --------------------------------------------------------------------------------------- */

struct opening {
    wp_executor *wp;
    sem_t opened;
    struct error error;
};

static void on_log(void *user, enum log_level level, const char *line)
{
    wp_executor *wp = user;
    wp->log_line(wp->log_user, (int)level, line);
}

static void *loop_thread(void *argument)
{
    struct opening *opening = argument;
    wp_executor *wp = opening->wp;
    struct executor_options options = {.loop = &wp->loop,
                                       .config = wp->config,
                                       .log = &wp->log,
                                       .mode = wp->mode == WP_FRESH ? EXECUTOR_FRESH : EXECUTOR_POOLED};
    bool opened = executor_open(&wp->executor, &options, &opening->error) == 0;
    if (!opened)
        uv_close((uv_handle_t *)&wp->wake, NULL);
    sem_post(&opening->opened); /* `opening` is gone from here on */
    uv_run(&wp->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void wp_free(wp_executor *wp)
{
    config_free(wp->config);
    hash_free(&wp->tasks);
    pthread_mutex_destroy(&wp->mutex);
    pthread_cond_destroy(&wp->changed);
    free(wp);
}

static struct config *load_config(const wp_options *options, struct error *error)
{
    size_t count = 0;
    while (options->settings != NULL && options->settings[count] != NULL)
        count++;
    struct config_override *overrides = calloc(count + 1, sizeof *overrides);
    char **keys = calloc(count + 1, sizeof *keys);
    struct config *config = NULL;
    if (overrides == NULL || keys == NULL) {
        error_set(error, ERROR_NOMEM, "out of memory");
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        const char *equals = strchr(options->settings[i], '=');
        if (equals == NULL || equals == options->settings[i]) {
            error_set(error, ERROR_INVALID, "the setting \"%.100s\" is not key=value", options->settings[i]);
            goto done;
        }
        keys[i] = strndup(options->settings[i], (size_t)(equals - options->settings[i]));
        if (keys[i] == NULL) {
            error_set(error, ERROR_NOMEM, "out of memory");
            goto done;
        }
        overrides[i] = (struct config_override){.key = keys[i], .value = equals + 1};
    }
    config = config_load(options->config_path, overrides, count, error);
done:
    for (size_t i = 0; keys != NULL && i < count; i++)
        free(keys[i]);
    free(keys);
    free(overrides);
    return config;
}

EXPORT wp_executor *wp_executor_open(const wp_options *given, wp_error *error)
{
    wp_options options = WP_OPTIONS_INIT;
    if (given != NULL)
        memcpy(&options, given, given->struct_size < sizeof options ? given->struct_size : sizeof options);
    struct opening opening = {.error = ERROR_INIT};
    wp_executor *wp = calloc(1, sizeof *wp);
    if (wp == NULL) {
        fail(error, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    wp->mode = options.mode;
    pthread_mutex_init(&wp->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&wp->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    list_init(&wp->calls);
    wp->config = load_config(&options, &opening.error);
    if (wp->config == NULL) {
        fail_with(error, &opening.error);
        wp_free(wp);
        return NULL;
    }
    wp->log_line = options.log;
    wp->log_user = options.log_user;
    wp->log = (struct log){.level = wp->config->log_level, .sink = options.log != NULL ? on_log : NULL, .user = wp};
    uv_loop_init(&wp->loop);
    uv_async_init(&wp->loop, &wp->wake, run_calls);
    wp->wake.data = wp;
    opening.wp = wp;
    sem_init(&opening.opened, 0, 0);
    int failed = pthread_create(&wp->thread, NULL, loop_thread, &opening);
    if (failed != 0) {
        error_errno(&opening.error, failed, "starting the executor's thread");
        uv_close((uv_handle_t *)&wp->wake, NULL);
        uv_run(&wp->loop, UV_RUN_DEFAULT);
    } else {
        while (sem_wait(&opening.opened) < 0 && errno == EINTR)
            ;
        if (opening.error.code == ERROR_NONE) {
            sem_destroy(&opening.opened);
            return wp;
        }
        pthread_join(wp->thread, NULL);
    }
    sem_destroy(&opening.opened);
    fail_with(error, &opening.error);
    uv_loop_close(&wp->loop);
    wp_free(wp);
    return NULL;
}

static void on_executor_closed(void *user)
{
    wp_executor *wp = user;
    uv_close((uv_handle_t *)&wp->wake, NULL); /* the loop's last handle: uv_run() returns */
}

static void close_call(wp_executor *wp, struct call *call)
{
    executor_close(wp->executor, false, on_executor_closed, wp);
    sem_post(&call->done);
}

static void free_submitted(wp_executor *wp)
{
    for (size_t i = 0; i < wp->tasks.size; i++)
        while (wp->tasks.buckets[i] != NULL) {
            struct submitted *submitted = hash_entry(wp->tasks.buckets[i], struct submitted, by_id);
            hash_remove(&wp->tasks, &submitted->by_id);
            wp_result_free(submitted->result);
            free(submitted);
        }
}

EXPORT void wp_executor_close(wp_executor *wp)
{
    if (wp == NULL)
        return;
    pthread_mutex_lock(&wp->mutex);
    wp->closing = true;
    pthread_cond_broadcast(&wp->changed);
    pthread_mutex_unlock(&wp->mutex);
    struct call call;
    call_do(wp, &call, close_call);
    pthread_join(wp->thread, NULL);
    pthread_mutex_lock(&wp->mutex);
    while (wp->callers > 0)
        pthread_cond_wait(&wp->changed, &wp->mutex);
    pthread_mutex_unlock(&wp->mutex);
    uv_loop_close(&wp->loop);
    free_submitted(wp);
    wp_free(wp);
}

/* --- results ------------------------------------------------------------------------------------------------ */

static char *keep(char **next, const void *data, size_t size)
{
    char *copy = *next;
    if (size > 0)
        memcpy(copy, data, size);
    copy[size] = '\0';
    *next += size + 1;
    return copy;
}

static char *keep_text(char **next, const char *text)
{
    return keep(next, text, strlen(text));
}

/* One allocation; NULL when out of memory. */
static wp_result *result_copy(const struct task_result *from)
{
    const char *source = from->resources.memory_source != NULL ? from->resources.memory_source : "";
    size_t size = from->output_size + from->error_size + strlen(from->message) + strlen(from->task_id) +
                  strlen(from->agent_type) + strlen(from->container_id) + strlen(from->container_name) +
                  strlen(source) + 8;
    wp_result *result = malloc(sizeof *result + size);
    if (result == NULL)
        return NULL;
    char *next = (char *)(result + 1);
    *result = (wp_result){.success = from->outcome == TASK_EXITED && from->exit_code == 0,
                          .outcome = (wp_outcome)from->outcome,
                          .exit_code = from->exit_code,
                          .signal = from->signal,
                          .output_size = from->output_size,
                          .error_size = from->error_size,
                          .output_truncated = from->output_truncated,
                          .error_truncated = from->error_truncated,
                          .pooled = from->pooled,
                          .hit = from->hit,
                          .exec_count = from->exec_count,
                          .container_age_ms = from->container_age_ms,
                          .queue_us = from->queue_us,
                          .dispatch_us = from->dispatch_us,
                          .exec_us = from->exec_us,
                          .total_us = from->total_us,
                          .cpu_us = from->resources.cpu_us,
                          .memory_peak_bytes = from->resources.memory_peak_bytes,
                          .disk_bytes = from->resources.disk_bytes,
                          .network_bytes = from->resources.network_bytes};
    result->output = keep(&next, from->output, from->output_size);
    result->error = keep(&next, from->error, from->error_size);
    result->message = keep_text(&next, from->message);
    result->task_id = keep_text(&next, from->task_id);
    result->agent_type = keep_text(&next, from->agent_type);
    result->container_id = keep_text(&next, from->container_id);
    result->container_name = keep_text(&next, from->container_name);
    result->memory_source = keep_text(&next, source);
    return result;
}

EXPORT void wp_result_free(wp_result *result)
{
    free(result);
}

/* --- tasks ---------------------------------------------------------------------------------------------------- */

static int read_task(wp_task *task, const wp_task *given, struct task_request *request,
                     struct task_secret secrets[WP_SECRETS], wp_error *error)
{
    *task = (wp_task)WP_TASK_INIT;
    if (given == NULL)
        return fail(error, ERROR_INVALID, "the task is NULL");
    memcpy(task, given, given->struct_size < sizeof *task ? given->struct_size : sizeof *task);
    if (task->agent_type == NULL && task->lease == NULL)
        return fail(error, ERROR_INVALID, "the task has no agent_type");
    if (task->priority < 0 || task->priority > (int)PRIORITY_BACKGROUND)
        return fail(error, ERROR_INVALID, "the priority must be 0 (critical) to 4 (background)");
    if (task->secrets == NULL)
        task->secret_count = 0;
    if (task->secret_count > WP_SECRETS)
        return fail(error, ERROR_INVALID, "there are more secrets than the 32 that a task may have");
    for (size_t i = 0; i < task->secret_count; i++)
        secrets[i] = (struct task_secret){.name = task->secrets[i].name,
                                          .value = task->secrets[i].value,
                                          .size = task->secrets[i].size,
                                          .as_env = task->secrets[i].as_env != 0};
    *request = (struct task_request){.agent_type = task->agent_type,
                                     .id = task->id,
                                     .argv = task->argv,
                                     .env = task->env,
                                     .secrets = secrets,
                                     .secret_count = task->secret_count,
                                     .workdir = task->workdir,
                                     .timeout_ms = task->timeout_ms,
                                     .kill_timeout_ms = task->kill_timeout_ms,
                                     .queue_timeout_ms = task->queue_timeout_ms,
                                     .max_output_bytes = task->max_output_bytes,
                                     .priority = (enum task_priority)task->priority,
                                     .stdin_data = task->stdin_data,
                                     .stdin_size = task->stdin_data != NULL ? task->stdin_size : 0,
                                     .fresh = task->fresh != 0,
                                     .lease = task->lease,
                                     .idempotent = task->idempotent != 0,
                                     .retries = task->retries,
                                     .capture = task->on_output == NULL,
                                     .stream = task->on_output != NULL};
    return 0;
}

struct execution {
    struct call call;
    wp_task task;
    struct task_request request;
    struct task_secret secrets[WP_SECRETS]; /* of the request: into what the caller gave */
    wp_result *result;
    struct submitted *submitted; /* NULL: the caller waits */
};

static void on_output(void *user, struct task *task, int stream, const uint8_t *data, size_t size)
{
    struct execution *execution = user;
    execution->task.on_output(execution->task.user, stream, data, size);
    executor_task_consumed(task, stream, size);
}

static void on_ended(void *user, struct task *task, const struct task_result *result)
{
    (void)task;
    struct execution *execution = user;
    execution->result = result_copy(result);
    sem_post(&execution->call.done);
}

static const struct task_handler execute_handler = {.output = on_output, .ended = on_ended};

static void execute_call(wp_executor *wp, struct call *call)
{
    struct execution *execution = (struct execution *)(void *)call;
    if (executor_submit(wp->executor, &execution->request, &execute_handler, execution, &call->error) == NULL) {
        call->result = -1;
        sem_post(&call->done);
    }
}

EXPORT wp_result *wp_executor_execute(wp_executor *wp, const wp_task *given, wp_error *error)
{
    struct execution execution = {.result = NULL};
    if (read_task(&execution.task, given, &execution.request, execution.secrets, error) < 0 || enter(wp, error) < 0)
        return NULL;
    call_do(wp, &execution.call, execute_call);
    if (execution.call.result < 0)
        fail_with(error, &execution.call.error);
    else if (execution.result == NULL)
        fail(error, ERROR_NOMEM, "out of memory for the result");
    leave(wp);
    return execution.result;
}

/* A submitted task outlives its call: its execution is on the heap until the end. */
static void on_submitted_ended(void *user, struct task *task, const struct task_result *result)
{
    (void)task;
    struct execution *execution = user;
    struct submitted *submitted = execution->submitted;
    wp_executor *wp = submitted->wp;
    wp_result *copy = result_copy(result);
    pthread_mutex_lock(&wp->mutex);
    submitted->result = copy;
    pthread_cond_broadcast(&wp->changed);
    pthread_mutex_unlock(&wp->mutex);
    free(execution);
}

static const struct task_handler submit_handler = {.output = on_output, .ended = on_submitted_ended};

/* On the caller's stack: the loop may end the task, and free its execution, before the caller looks again. */
struct submission {
    struct call call;
    struct execution *execution;
    char id[72];
};

static bool is_submitted(wp_executor *wp, const char *id)
{
    pthread_mutex_lock(&wp->mutex);
    bool known = hash_find(&wp->tasks, id) != NULL;
    pthread_mutex_unlock(&wp->mutex);
    return known;
}

static int submit_on_loop(wp_executor *wp, struct submission *submission)
{
    struct execution *execution = submission->execution;
    struct submitted *submitted = execution->submitted;
    struct error *error = &submission->call.error;
    if (execution->request.id != NULL && is_submitted(wp, execution->request.id))
        return error_set(error, ERROR_CONFLICT, "a task with the id \"%.64s\" was submitted already",
                         execution->request.id);
    struct task *task = executor_submit(wp->executor, &execution->request, &submit_handler, execution, error);
    if (task == NULL)
        return -1;
    snprintf(submitted->id, sizeof submitted->id, "%s", executor_task_id(task));
    memcpy(submission->id, submitted->id, sizeof submission->id);
    pthread_mutex_lock(&wp->mutex);
    bool added = hash_add(&wp->tasks, &submitted->by_id, submitted->id);
    pthread_mutex_unlock(&wp->mutex);
    if (added)
        return 0;
    executor_task_abandon(task); /* nobody could ever wait for it */
    return error_set(error, ERROR_NOMEM, "out of memory");
}

static void submit_call(wp_executor *wp, struct call *call)
{
    call->result = submit_on_loop(wp, (struct submission *)(void *)call);
    sem_post(&call->done);
}

EXPORT char *wp_executor_submit(wp_executor *wp, const wp_task *given, wp_error *error)
{
    struct submission submission = {.execution = calloc(1, sizeof *submission.execution)};
    struct submitted *submitted = calloc(1, sizeof *submitted);
    char *id = malloc(sizeof submission.id);
    if (submission.execution == NULL || submitted == NULL || id == NULL) {
        fail(error, ERROR_NOMEM, "out of memory");
        goto failed;
    }
    submitted->wp = wp;
    submission.execution->submitted = submitted;
    if (read_task(&submission.execution->task, given, &submission.execution->request, submission.execution->secrets,
                  error) < 0 ||
        enter(wp, error) < 0)
        goto failed;
    call_do(wp, &submission.call, submit_call);
    if (submission.call.result < 0)
        fail_with(error, &submission.call.error);
    leave(wp);
    if (submission.call.result == 0) {
        memcpy(id, submission.id, sizeof submission.id);
        return id;
    }
failed:
    free(submission.execution);
    free(submitted);
    free(id);
    return NULL;
}

static struct timespec deadline_after(int64_t milliseconds)
{
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += milliseconds / 1000;
    deadline.tv_nsec += milliseconds % 1000 * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    return deadline;
}

EXPORT wp_result *wp_executor_wait(wp_executor *wp, const char *task_id, int64_t timeout_ms, wp_error *error)
{
    if (enter(wp, error) < 0)
        return NULL;
    struct timespec deadline = deadline_after(timeout_ms < 0 ? 0 : timeout_ms);
    wp_result *result = NULL;
    pthread_mutex_lock(&wp->mutex);
    struct hash_node *node = task_id == NULL ? NULL : hash_find(&wp->tasks, task_id);
    struct submitted *submitted = node == NULL ? NULL : hash_entry(node, struct submitted, by_id);
    if (submitted == NULL || submitted->awaited) {
        fail(error, submitted == NULL ? ERROR_NOT_FOUND : ERROR_CONFLICT,
             submitted == NULL ? "no submitted task has this id" : "another thread waits for this task");
    } else {
        submitted->awaited = true;
        int waited = 0;
        while (submitted->result == NULL && waited == 0)
            waited = timeout_ms < 0 ? pthread_cond_wait(&wp->changed, &wp->mutex)
                                    : pthread_cond_timedwait(&wp->changed, &wp->mutex, &deadline);
        submitted->awaited = false;
        result = submitted->result;
        if (result == NULL) {
            fail(error, ERROR_TIMEOUT, "the task has not ended yet");
        } else {
            hash_remove(&wp->tasks, &submitted->by_id);
            free(submitted);
        }
    }
    pthread_mutex_unlock(&wp->mutex);
    leave(wp);
    return result;
}

/* --- what takes a name and a number ---------------------------------------------------------------------------- */

struct named_call {
    struct call call;
    const char *name;
    int number;
};

static void cancel_call(wp_executor *wp, struct call *call)
{
    struct named_call *named = (struct named_call *)(void *)call;
    struct task *task = executor_task_find(wp->executor, named->name);
    if (task != NULL)
        executor_task_cancel(task);
    else
        call->result = error_set(&call->error, ERROR_NOT_FOUND, "no task \"%.64s\" is queued or running", named->name);
    sem_post(&call->done);
}

static void scale_call(wp_executor *wp, struct call *call)
{
    struct named_call *named = (struct named_call *)(void *)call;
    call->result = executor_scale(wp->executor, named->name, named->number, &call->error);
    sem_post(&call->done);
}

static void refresh_call(wp_executor *wp, struct call *call)
{
    struct named_call *named = (struct named_call *)(void *)call;
    call->result = executor_refresh(wp->executor, named->name, &call->error);
    sem_post(&call->done);
}

static void on_warm(void *user, const struct error *error)
{
    struct call *call = user;
    if (error != NULL) {
        call->error = *error;
        call->result = -1;
    }
    sem_post(&call->done);
}

static void warm_call(wp_executor *wp, struct call *call)
{
    struct named_call *named = (struct named_call *)(void *)call;
    call->result = executor_warm(wp->executor, named->name, (uint32_t)named->number, on_warm, call, &call->error);
    if (call->result < 0)
        sem_post(&call->done);
}

static int call_named(wp_executor *wp, const char *name, int number, void (*run)(wp_executor *, struct call *),
                      wp_error *error)
{
    if (name == NULL)
        return fail(error, ERROR_INVALID, "the name is NULL");
    if (enter(wp, error) < 0)
        return -1;
    struct named_call named = {.name = name, .number = number};
    call_do(wp, &named.call, run);
    if (named.call.result < 0)
        fail_with(error, &named.call.error);
    leave(wp);
    return named.call.result;
}

EXPORT int wp_executor_cancel(wp_executor *wp, const char *task_id, wp_error *error)
{
    return call_named(wp, task_id, 0, cancel_call, error);
}

EXPORT int wp_executor_scale(wp_executor *wp, const char *agent_type, int size, wp_error *error)
{
    return call_named(wp, agent_type, size, scale_call, error);
}

EXPORT int wp_executor_refresh(wp_executor *wp, const char *container, wp_error *error)
{
    return call_named(wp, container, 0, refresh_call, error);
}

EXPORT int wp_executor_warm(wp_executor *wp, const char *agent_type, unsigned size, wp_error *error)
{
    if (size > INT32_MAX)
        return fail(error, ERROR_INVALID, "the size is too large");
    return call_named(wp, agent_type, (int)size, warm_call, error);
}

/* --- leases ------------------------------------------------------------------------------------------------------ */

struct lease_call {
    struct call call;
    const char *agent_type;
    int64_t ttl_ms;
    char id[32];
};

static void on_lease_begun(void *user, struct lease *lease, const struct error *error)
{
    struct lease_call *mine = user;
    if (error != NULL) {
        mine->call.error = *error;
        mine->call.result = -1;
    } else {
        snprintf(mine->id, sizeof mine->id, "%s", executor_lease_id(lease));
    }
    sem_post(&mine->call.done);
}

static void lease_call(wp_executor *wp, struct call *call)
{
    static const struct lease_handler handler = {.begun = on_lease_begun};
    struct lease_call *mine = (struct lease_call *)(void *)call;
    struct lease_request request = {
        .agent_type = mine->agent_type, .ttl_ms = mine->ttl_ms, .queue_timeout_ms = -1, .priority = PRIORITY_NORMAL};
    if (executor_lease(wp->executor, &request, &handler, mine, &call->error) != NULL)
        return;
    call->result = -1;
    sem_post(&call->done);
}

EXPORT char *wp_executor_lease(wp_executor *wp, const char *agent_type, int64_t ttl_ms, wp_error *error)
{
    struct lease_call mine = {.agent_type = agent_type, .ttl_ms = ttl_ms};
    char *id = malloc(sizeof mine.id);
    if (agent_type == NULL || id == NULL) {
        free(id);
        fail(error, agent_type == NULL ? ERROR_INVALID : ERROR_NOMEM,
             agent_type == NULL ? "the agent type is NULL" : "out of memory");
        return NULL;
    }
    if (enter(wp, error) < 0) {
        free(id);
        return NULL;
    }
    call_do(wp, &mine.call, lease_call);
    leave(wp);
    memcpy(id, mine.id, sizeof mine.id);
    if (mine.call.result == 0)
        return id;
    fail_with(error, &mine.call.error);
    free(id);
    return NULL;
}

static void release_call(wp_executor *wp, struct call *call)
{
    struct named_call *named = (struct named_call *)(void *)call;
    struct lease *lease = executor_lease_find(wp->executor, named->name);
    if (lease != NULL)
        executor_lease_release(lease);
    else
        call->result =
            error_set(&call->error, ERROR_NOT_FOUND, "there is no lease \"%.64s\"; it may have ended", named->name);
    sem_post(&call->done);
}

EXPORT int wp_executor_release(wp_executor *wp, const char *lease, wp_error *error)
{
    return call_named(wp, lease, 0, release_call, error);
}

/* --- state -------------------------------------------------------------------------------------------------------- */

struct ready_call {
    struct call call;
    bool ready;
};

static void look_for_failure(void *user, const struct pool_info *info)
{
    struct call *call = user;
    if (info->last_error[0] != '\0' && info->healthy == 0 && call->result == 0)
        call->result = error_set(&call->error, ERROR_ENGINE, "%s: %s", info->agent_type, info->last_error);
}

static void ready_call(wp_executor *wp, struct call *call)
{
    struct ready_call *ready = (struct ready_call *)(void *)call;
    struct executor_status status;
    executor_status(wp->executor, &status);
    ready->ready = status.ready;
    if (!status.engine_up && status.engine_error[0] != '\0')
        error_set(&call->error, ERROR_UNAVAILABLE, "%s", status.engine_error);
    if (!status.ready)
        executor_pools(wp->executor, look_for_failure, call);
    sem_post(&call->done);
}

EXPORT int wp_executor_ready(wp_executor *wp, int64_t timeout_ms, wp_error *error)
{
    if (enter(wp, error) < 0)
        return -1;
    uint64_t until = clock_us() + (timeout_ms < 0 ? 0 : (uint64_t)timeout_ms * 1000);
    struct ready_call ready = {.ready = false};
    int result = -1;
    for (;;) {
        call_do(wp, &ready.call, ready_call);
        if (ready.ready) {
            result = 0;
            break;
        }
        pthread_mutex_lock(&wp->mutex);
        bool closing = wp->closing;
        pthread_mutex_unlock(&wp->mutex);
        if (closing || ready.call.result < 0 || (timeout_ms >= 0 && clock_us() >= until)) {
            if (closing)
                fail(error, ERROR_CANCELLED, "the executor is closing");
            else if (ready.call.error.code != ERROR_NONE)
                fail_with(error, &ready.call.error);
            else
                fail(error, ERROR_TIMEOUT, "the pools are not warm yet");
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = READY_POLL_NS}, NULL);
    }
    leave(wp);
    return result;
}

struct metrics_call {
    struct call call;
    wp_metrics *metrics;
    size_t capacity;
};

static void add_type(void *user, const struct pool_info *info)
{
    struct metrics_call *call = user;
    wp_metrics *metrics = call->metrics;
    if (metrics->type_count == call->capacity) {
        size_t capacity = call->capacity == 0 ? 8 : call->capacity * 2;
        wp_type_count *types = realloc(metrics->containers_by_type, capacity * sizeof *types);
        if (types == NULL) {
            call->call.result = error_set(&call->call.error, ERROR_NOMEM, "out of memory");
            return;
        }
        metrics->containers_by_type = types;
        call->capacity = capacity;
    }
    wp_type_count *type = &metrics->containers_by_type[metrics->type_count++];
    snprintf(type->agent_type, sizeof type->agent_type, "%s", info->agent_type);
    type->containers = info->total;
}

static void metrics_call(wp_executor *wp, struct call *call)
{
    struct metrics_call *mine = (struct metrics_call *)(void *)call;
    struct executor_metrics from;
    executor_metrics(wp->executor, &from);
    *mine->metrics = (wp_metrics){.total_containers = from.total_containers,
                                  .active_containers = from.active_containers,
                                  .idle_containers = from.idle_containers,
                                  .healthy_containers = from.healthy_containers,
                                  .unhealthy_containers = from.unhealthy_containers,
                                  .pool_utilization = from.pool_utilization,
                                  .average_execution_ms = from.average_execution_ms,
                                  .container_hit_rate = from.container_hit_rate,
                                  .tasks = from.tasks_total,
                                  .hits = from.hits,
                                  .misses = from.misses,
                                  .containers_created = from.containers_created,
                                  .containers_removed = from.containers_removed,
                                  .execution_p50_ms = from.execution.p50_ms,
                                  .execution_p95_ms = from.execution.p95_ms,
                                  .execution_p99_ms = from.execution.p99_ms};
    executor_pools(wp->executor, add_type, mine);
    sem_post(&call->done);
}

EXPORT wp_metrics *wp_executor_metrics(wp_executor *wp, wp_error *error)
{
    if (enter(wp, error) < 0)
        return NULL;
    struct metrics_call call = {.metrics = calloc(1, sizeof *call.metrics)};
    if (call.metrics == NULL) {
        fail(error, ERROR_NOMEM, "out of memory");
    } else {
        call_do(wp, &call.call, metrics_call);
        if (call.call.result < 0) {
            fail_with(error, &call.call.error);
            wp_metrics_free(call.metrics);
            call.metrics = NULL;
        }
    }
    leave(wp);
    return call.metrics;
}

EXPORT void wp_metrics_free(wp_metrics *metrics)
{
    if (metrics == NULL)
        return;
    free(metrics->containers_by_type);
    free(metrics);
}

struct containers_call {
    struct call call;
    wp_container *rows;
    size_t count, capacity;
};

static void add_container(void *user, const struct container_info *info)
{
    struct containers_call *call = user;
    if (call->count == call->capacity) {
        size_t capacity = call->capacity == 0 ? 16 : call->capacity * 2;
        wp_container *rows = realloc(call->rows, capacity * sizeof *rows);
        if (rows == NULL) {
            call->call.result = error_set(&call->call.error, ERROR_NOMEM, "out of memory");
            return;
        }
        call->rows = rows;
        call->capacity = capacity;
    }
    wp_container *row = &call->rows[call->count++];
    *row = (wp_container){.created_at_ms = info->created_at_ms,
                          .last_used_ms = info->last_used_ms,
                          .exec_count = info->exec_count,
                          .is_healthy = info->is_healthy,
                          .is_in_use = info->is_in_use,
                          .pid = info->pid};
    snprintf(row->id, sizeof row->id, "%s", info->id);
    snprintf(row->name, sizeof row->name, "%s", info->name);
    snprintf(row->agent_type, sizeof row->agent_type, "%s", info->agent_type);
    snprintf(row->state, sizeof row->state, "%s", info->state);
    snprintf(row->network_id, sizeof row->network_id, "%s", info->network_id);
}

static int by_age(const void *a, const void *b)
{
    const wp_container *left = a, *right = b;
    return (left->created_at_ms > right->created_at_ms) - (left->created_at_ms < right->created_at_ms);
}

static void containers_call(wp_executor *wp, struct call *call)
{
    executor_containers(wp->executor, add_container, call);
    sem_post(&call->done);
}

EXPORT wp_container *wp_executor_containers(wp_executor *wp, size_t *count, wp_error *error)
{
    if (enter(wp, error) < 0)
        return NULL;
    struct containers_call call = {.rows = calloc(16, sizeof *call.rows), .capacity = 16};
    if (call.rows == NULL) {
        fail(error, ERROR_NOMEM, "out of memory");
    } else {
        call_do(wp, &call.call, containers_call);
        if (call.call.result < 0) {
            fail_with(error, &call.call.error);
            free(call.rows);
            call.rows = NULL;
        } else {
            qsort(call.rows, call.count, sizeof *call.rows, by_age);
            *count = call.count;
        }
    }
    leave(wp);
    return call.rows;
}

EXPORT const char *wp_version(void)
{
    return WARMPOOL_VERSION;
}
