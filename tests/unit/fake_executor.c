#include "fake_executor.h"

#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "wire/message.h"

struct executor {
    uv_loop_t *loop;
    uv_timer_t timer; /* plays every task a step further, on the next turn */
    struct fake_counters *counters;
    struct list tasks;
    unsigned number;
    void (*warm_done)(void *user, const struct error *error);
    void *warm_user;
};

struct task {
    struct list link;
    struct executor *executor;
    struct task_handler handler;
    void *user;
    char id[72], verb[32];
    struct buffer output;
    size_t left, ahead;
    bool capture, stream, cancelled, abandoned, eof, stdin_stream;
};

static void on_turn(uv_timer_t *timer);

static void kick(struct executor *executor)
{
    if (!uv_is_closing((uv_handle_t *)&executor->timer))
        uv_timer_start(&executor->timer, on_turn, 0, 0);
}

struct executor *fake_executor_new(uv_loop_t *loop, struct fake_counters *counters)
{
    struct executor *executor = calloc(1, sizeof *executor);
    executor->loop = loop;
    executor->counters = counters;
    list_init(&executor->tasks);
    uv_timer_init(loop, &executor->timer);
    executor->timer.data = executor;
    return executor;
}

void fake_executor_stop(struct executor *executor)
{
    uv_close((uv_handle_t *)&executor->timer, NULL);
}

static void task_free(struct task *task)
{
    list_remove(&task->link);
    buffer_free(&task->output);
    atomic_fetch_sub(&task->executor->counters->running, 1);
    free(task);
}

void fake_executor_free(struct executor *executor)
{
    list_for_each_safe (node, &executor->tasks) {
        task_free(list_entry(node, struct task, link));
    }
    free(executor);
}

/* --- playing ------------------------------------------------------------------------------------------------- */

static void put(struct task *task, int stream, const void *data, size_t size)
{
    if (task->capture && stream == 1)
        buffer_append(&task->output, data, size);
    if (!task->stream)
        return;
    task->ahead += size;
    if (task->ahead > atomic_load(&task->executor->counters->ahead_most))
        atomic_store(&task->executor->counters->ahead_most, task->ahead);
    task->handler.output(task->user, task, stream, data, size);
}

static void end(struct task *task, enum task_outcome outcome, int code, const char *message)
{
    struct task_result result = {
        .task_id = task->id,
        .agent_type = "coder",
        .outcome = outcome,
        .exit_code = code,
        .cli_exit_code = code < 0 ? 125 : code,
        .message = message,
        .output =
            task->capture ? (buffer_length(&task->output) > 0 ? buffer_data(&task->output) : (uint8_t *)"") : NULL,
        .output_size = buffer_length(&task->output),
        .error = task->capture ? (uint8_t *)"" : NULL,
        .container_id = code < 0 ? "" : "c0ffee",
        .container_name = code < 0 ? "" : "wp-fake",
        .pooled = true,
        .hit = true,
        .exec_count = 3,
        .resources = {1500, 4096, EXIT_UNMEASURED, 0, EXIT_UNMEASURED, "rusage"}};
    task->handler.ended(task->user, task, &result);
    task_free(task);
}

static void flood(struct task *task)
{
    char block[8192];
    memset(block, 'Q', sizeof block);
    while (task->left > 0 && (!task->stream || task->ahead < FAKE_WINDOW) && !task->abandoned) {
        size_t size = task->left < sizeof block ? task->left : sizeof block;
        task->left -= size;
        put(task, 1, block, size);
    }
    if (task->left == 0)
        end(task, TASK_EXITED, 0, "");
}

static void play(struct task *task)
{
    if (task->abandoned)
        task_free(task);
    else if (task->cancelled)
        end(task, TASK_CANCELLED, 143, "cancelled");
    else if (strcmp(task->verb, "echo") == 0) {
        if (task->stream) {
            char words[256];
            size_t size = buffer_length(&task->output);
            memcpy(words, buffer_data(&task->output), size);
            task->handler.output(task->user, task, 1, (uint8_t *)words, size);
            task->handler.output(task->user, task, 2, (const uint8_t *)"err", 3);
        }
        end(task, TASK_EXITED, 0, "");
    } else if (strcmp(task->verb, "bytes") == 0) {
        put(task, 1, "\xff\xfe\0z", 4);
        end(task, TASK_EXITED, 0, "");
    } else if (strcmp(task->verb, "split") == 0) {
        put(task, 1, "gr\xc3", 3);
        put(task, 1,
            "\xbc\xc3\x9f"
            "e",
            4);
        end(task, TASK_EXITED, 0, "");
    } else if (strcmp(task->verb, "flood") == 0)
        flood(task);
    else if (strcmp(task->verb, "cat") == 0 && task->eof)
        end(task, TASK_EXITED, 0, "");
    else if (strcmp(task->verb, "missing") == 0)
        end(task, TASK_REJECTED, 127, "cannot execute \"missing\": not found");
    else if (strcmp(task->verb, "starved") == 0)
        end(task, TASK_REJECTED, -1, "no container within 5 ms: no such image");
}

static void on_turn(uv_timer_t *timer)
{
    struct executor *executor = timer->data;
    list_for_each_safe (node, &executor->tasks) {
        play(list_entry(node, struct task, link));
    }
    if (executor->warm_done != NULL) {
        void (*done)(void *, const struct error *) = executor->warm_done;
        executor->warm_done = NULL;
        done(executor->warm_user, NULL);
    }
}

/* --- tasks ------------------------------------------------------------------------------------------------------ */

struct task *executor_submit(struct executor *executor, const struct task_request *request,
                             const struct task_handler *handler, void *user, struct error *err)
{
    if (strcmp(request->argv[0], "full") == 0) {
        error_set(err, ERROR_LIMIT, "the queue of coder is full (1 tasks wait)");
        return NULL;
    }
    struct task *task = calloc(1, sizeof *task);
    task->executor = executor;
    task->handler = *handler;
    task->user = user;
    task->capture = request->capture;
    task->stream = request->stream;
    task->stdin_stream = request->stdin_stream;
    snprintf(task->verb, sizeof task->verb, "%s", request->argv[0]);
    if (request->id != NULL)
        snprintf(task->id, sizeof task->id, "%s", request->id);
    else
        snprintf(task->id, sizeof task->id, "t%u", ++executor->number);
    for (size_t i = 1; strcmp(task->verb, "echo") == 0 && request->argv[i] != NULL; i++)
        buffer_printf(&task->output, "%s%s", i > 1 ? " " : "", request->argv[i]);
    if (strcmp(task->verb, "cat") == 0 && !task->stdin_stream) {
        buffer_append(&task->output, request->stdin_data, request->stdin_size);
        task->eof = true;
    }
    if (strcmp(task->verb, "flood") == 0)
        task->left = strtoul(request->argv[1], NULL, 10);
    list_push_back(&executor->tasks, &task->link);
    atomic_fetch_add(&executor->counters->running, 1);
    kick(executor);
    return task;
}

void executor_task_consumed(struct task *task, int stream, size_t size)
{
    (void)stream;
    task->ahead -= size < task->ahead ? size : task->ahead;
    atomic_fetch_add(&task->executor->counters->consumed, size);
    kick(task->executor);
}

int executor_task_stdin(struct task *task, const void *data, size_t size, bool eof, struct error *err)
{
    (void)err;
    put(task, 1, data, size);
    task->eof = eof;
    if (task->handler.stdin_ready != NULL && size > 0)
        task->handler.stdin_ready(task->user, task, size);
    kick(task->executor);
    return 0;
}

int executor_task_file(struct task *task, const void *data, size_t size, bool eof, struct error *err)
{
    (void)task;
    (void)data;
    (void)size;
    (void)eof;
    (void)err;
    return 0;
}

void executor_task_file_consumed(struct task *task, size_t size)
{
    (void)task;
    (void)size;
}

void executor_task_winch(struct task *task, uint16_t rows, uint16_t columns)
{
    (void)task;
    (void)rows;
    (void)columns;
}

void executor_task_signal(struct task *task, int signal)
{
    atomic_fetch_add(&task->executor->counters->signalled, 1);
    atomic_store(&task->executor->counters->last_signal, (unsigned)signal);
}

void executor_task_cancel(struct task *task)
{
    task->cancelled = true;
    atomic_fetch_add(&task->executor->counters->cancelled, 1);
    kick(task->executor);
}

void executor_task_abandon(struct task *task)
{
    task->abandoned = true;
    atomic_fetch_add(&task->executor->counters->abandoned, 1);
    kick(task->executor);
}

struct task *executor_task_find(struct executor *executor, const char *id)
{
    list_for_each (node, &executor->tasks) {
        struct task *task = list_entry(node, struct task, link);
        if (strcmp(task->id, id) == 0)
            return task;
    }
    return NULL;
}

const char *executor_task_id(const struct task *task)
{
    return task->id;
}

const char *executor_task_state(const struct task *task)
{
    (void)task;
    return "running";
}

const char *executor_task_agent_type(const struct task *task)
{
    (void)task;
    return "coder";
}

const char *task_outcome_name(enum task_outcome outcome)
{
    static const char *const names[] = {"unknown",    "exited",    "signaled", "timed_out",
                                        "oom_killed", "cancelled", "lost",     "rejected"};
    return names[outcome];
}

/* --- pools and the rest ---------------------------------------------------------------------------------------------
 */

static void fill(struct pool_info *info)
{
    *info = (struct pool_info){
        .agent_type = "coder", .target = 2, .min = 1, .max = 10, .total = 2, .idle = 2, .image = "i", .last_error = ""};
}

void executor_pools(const struct executor *executor, pool_info_fn *fn, void *user)
{
    struct pool_info info;
    (void)executor;
    fill(&info);
    fn(user, &info);
}

int executor_pool(const struct executor *executor, const char *agent_type, struct pool_info *info, struct error *err)
{
    (void)executor;
    if (strcmp(agent_type, "coder") != 0)
        return error_set(err, ERROR_NOT_FOUND, "there is no pool of agent type \"%s\"", agent_type);
    fill(info);
    return 0;
}

int executor_scale(struct executor *executor, const char *agent_type, int size, struct error *err)
{
    (void)executor;
    (void)agent_type;
    return size > 10 ? error_set(err, ERROR_INVALID, "the size must be 1 to 10") : 0;
}

int executor_warm(struct executor *executor, const char *agent_type, uint32_t size,
                  void (*done)(void *user, const struct error *error), void *user, struct error *err)
{
    (void)agent_type;
    (void)size;
    (void)err;
    executor->warm_done = done;
    executor->warm_user = user;
    kick(executor);
    return 0;
}

void executor_containers(const struct executor *executor, container_info_fn *fn, void *user)
{
    const struct container_info info = {.id = "c0ffee",
                                        .name = "wp-fake",
                                        .agent_type = "coder",
                                        .state = "idle",
                                        .created_at_ms = 1000,
                                        .is_healthy = true,
                                        .network_id = "",
                                        .volume_id = "",
                                        .task_id = ""};
    (void)executor;
    fn(user, &info);
}

int executor_refresh(struct executor *executor, const char *container, struct error *err)
{
    (void)executor;
    return strcmp(container, "c0ffee") == 0
               ? 0
               : error_set(err, ERROR_NOT_FOUND, "there is no container \"%s\"", container);
}

void executor_metrics(const struct executor *executor, struct executor_metrics *metrics)
{
    (void)executor;
    *metrics = (struct executor_metrics){.total_containers = 2, .pool_utilization = 0};
}

void executor_status(const struct executor *executor, struct executor_status *status)
{
    (void)executor;
    *status = (struct executor_status){.instance = "fake",
                                       .state_dir = "/none",
                                       .engine_name = "fake",
                                       .engine_version = "1",
                                       .engine_api_version = "1",
                                       .engine_host = "none",
                                       .engine_up = true,
                                       .ready = true};
}

void executor_networks(const struct executor *executor, void (*fn)(void *user, const char *id), void *user)
{
    (void)executor;
    fn(user, "feedface");
}

int executor_pause(struct executor *executor, const char *agent_type, struct error *err)
{
    (void)executor;
    (void)agent_type;
    (void)err;
    return 0;
}

int executor_resume(struct executor *executor, const char *agent_type, struct error *err)
{
    return executor_pause(executor, agent_type, err);
}

int executor_refresh_pool(struct executor *executor, const char *agent_type, struct error *err)
{
    return executor_pause(executor, agent_type, err);
}

int executor_drain(struct executor *executor, const char *agent_type,
                   void (*done)(void *user, const struct error *error), void *user, struct error *err)
{
    return executor_warm(executor, agent_type, 0, done, user, err);
}

/* This executor gives no leases. */
struct lease *executor_lease(struct executor *executor, const struct lease_request *request,
                             const struct lease_handler *handler, void *user, struct error *err)
{
    (void)executor;
    (void)request;
    (void)handler;
    (void)user;
    error_set(err, ERROR_UNAVAILABLE, "no leases");
    return NULL;
}

struct lease *executor_lease_find(const struct executor *executor, const char *id)
{
    (void)executor;
    (void)id;
    return NULL;
}

const char *executor_lease_id(const struct lease *lease)
{
    (void)lease;
    return "";
}

void executor_lease_renew(struct lease *lease, int64_t ttl_ms)
{
    (void)lease;
    (void)ttl_ms;
}

void executor_lease_release(struct lease *lease)
{
    (void)lease;
}

void executor_lease_abandon(struct lease *lease)
{
    (void)lease;
}

void executor_lease_info(const struct lease *lease, struct lease_info *info)
{
    (void)lease;
    *info = (struct lease_info){.id = ""};
}

void executor_leases(const struct executor *executor, void (*fn)(void *user, const struct lease_info *info), void *user)
{
    (void)executor;
    (void)fn;
    (void)user;
}

struct event_log *executor_events(struct executor *executor)
{
    static struct event_log log;
    (void)executor;
    if (log.next_id == 0)
        event_log_init(&log, 0);
    return &log;
}
