/* warmpool: commands in warm, hardened containers.
 *
 *     wp_error error;
 *     wp_executor *executor = wp_executor_open(NULL, &error);        // pools begin to warm
 *     wp_task task = WP_TASK_INIT;
 *     const char *argv[] = {"sh", "-c", "echo hello", NULL};
 *     task.agent_type = "coder";
 *     task.argv = argv;
 *     wp_result *result = wp_executor_execute(executor, &task, &error);
 *     fwrite(result->output, 1, result->output_size, stdout);
 *     wp_result_free(result);
 *     wp_executor_close(executor);
 *
 * Threads: every function may be called from any thread, several at once. The executor runs on one thread of its own.
 * Ownership: strings and arrays that are passed in are copied before the call returns. What a function returns belongs
 * to the caller and is freed with the function named beside it. On failure a function returns NULL or -1 and fills
 * `error` (which may be NULL); on success it leaves `error` untouched. fork() without exec makes an executor unusable
 * in the child.
 */
#ifndef WARMPOOL_H
#define WARMPOOL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define WP_API __attribute__((visibility("default")))
#else
#define WP_API
#endif

typedef struct wp_executor wp_executor;

typedef enum wp_error_code {
    WP_OK = 0,
    WP_ERROR_INVALID = 1, /* an argument or a configuration value is wrong; the message says what would be right */
    WP_ERROR_NOT_FOUND,   /* no such task, pool or container */
    WP_ERROR_CONFLICT,    /* it exists already, or another executor holds the state directory */
    WP_ERROR_UNAVAILABLE, /* the engine cannot be reached, or the executor is closing */
    WP_ERROR_ENGINE,      /* the engine refused; the message carries its own words */
    WP_ERROR_TIMEOUT,     /* not within the time allowed */
    WP_ERROR_LIMIT,       /* a configured limit was reached: the queue is full */
    WP_ERROR_CANCELLED,   /* cancelled first */
    WP_ERROR_PROTOCOL,    /* a runner or the engine broke its protocol */
    WP_ERROR_SYSTEM,      /* a system call failed */
    WP_ERROR_NOMEM,
    WP_ERROR_DENIED /* a registry or the engine does not know who asks, or does not allow it */
} wp_error_code;

typedef struct wp_error {
    wp_error_code code;
    char message[512]; /* one line of UTF-8, never empty after a failure */
} wp_error;

typedef enum wp_mode {
    WP_POOLED = 0, /* tasks run in warm containers */
    WP_FRESH = 1   /* each task gets a container made for it, which is removed afterwards */
} wp_mode;

/* Settings. Begin with WP_OPTIONS_INIT; `struct_size` lets later versions add fields. */
typedef struct wp_options {
    size_t struct_size;
    wp_mode mode;
    const char *config_path;     /* YAML or JSON; NULL: $WARMPOOL_CONFIG, /etc/warmpool/warmpool.yaml, else defaults */
    const char *const *settings; /* "key=value" strings that override the file, NULL-terminated; NULL: none */
    void (*log)(void *user, int level /* 0 error .. 3 debug */,
                const char *line); /* from the executor's thread; NULL: silent */
    void *log_user;
} wp_options;
#define WP_OPTIONS_INIT                                                                                                \
    {                                                                                                                  \
        sizeof(wp_options), WP_POOLED, NULL, NULL, NULL, NULL                                                          \
    }

/* Opens an executor on the state directory of its configuration, which it holds alone, and begins to warm the pools of
 * `warmupAgentTypes`; tasks may be executed at once. `options` may be NULL. Close with wp_executor_close(). */
WP_API wp_executor *wp_executor_open(const wp_options *options, wp_error *error);

/* Waits until every warm-up pool has its containers, at most `timeout_ms` (-1: without limit). 0, or -1 with
 * WP_ERROR_TIMEOUT or the engine's error. */
WP_API int wp_executor_ready(wp_executor *executor, int64_t timeout_ms, wp_error *error);

/* Cancels what runs, removes every container, network and directory of this executor, frees it. Calls that still wait
 * in other threads return with WP_ERROR_CANCELLED or their result first; no call may begin after this one. NULL is
 * allowed. */
WP_API void wp_executor_close(wp_executor *executor);

typedef enum wp_outcome {
    WP_UNKNOWN = 0, /* never in a result */
    WP_EXITED,
    WP_SIGNALED,
    WP_TIMED_OUT,
    WP_OOM_KILLED,
    WP_CANCELLED,
    WP_LOST,    /* the container vanished while the task ran */
    WP_REJECTED /* it never started; `message` says why */
} wp_outcome;

/* What only the task shall see. It travels to the container's runner over warmpool's own connection and is in no
 * configuration, log, event or result. The executor overwrites its copy when the task has ended. */
typedef struct wp_secret {
    const char *name;  /* 1 to 64 letters, digits and _, not beginning with a digit */
    const void *value; /* any bytes, at most 65536; may be NULL when size is 0 */
    size_t size;
    /* 0: the task finds it at the path that its variable WARMPOOL_SECRET_name holds ("/proc/self/fd/3"), a sealed
     * memory file that it and its children can read and nobody can change; the descriptor's number is in
     * WARMPOOL_SECRETFD_name. Not 0: it is the task's variable `name`; then without NUL, and `name` does not begin with
     * WARMPOOL_. */
    int as_env;
} wp_secret;

/* One command. Begin with WP_TASK_INIT. */
typedef struct wp_task {
    size_t struct_size;
    const char *agent_type;  /* "coder"; required */
    const char *const *argv; /* NULL-terminated; required */
    const char *const *env;  /* "K=V", NULL-terminated; NULL: none */
    const char *workdir;     /* NULL: /workspace */
    const char *id;          /* NULL: one is made */
    const void *stdin_data;  /* given to the command's stdin; NULL: stdin is empty */
    size_t stdin_size;
    int64_t timeout_ms;       /* -1: configured; 0: none */
    int64_t kill_timeout_ms;  /* between SIGTERM and SIGKILL; -1: configured */
    int64_t queue_timeout_ms; /* -1: configured */
    int64_t max_output_bytes; /* per stream; -1: configured */
    int fresh;                /* not 0: a container that never served another task */
    int priority;             /* 0 critical, 1 high, 2 normal, 3 low, 4 background */
    /* NULL, or called from the executor's thread with each piece of stdout (1) and stderr (2) as it comes; must not
     * block and must not call the executor. With it nothing is collected in the result. */
    void (*on_output)(void *user, int stream, const void *data, size_t size);
    void *user;
    const char *lease; /* of wp_executor_lease(): runs in its container; agent_type may then be NULL. NULL: in none */
    int idempotent;    /* not 0: may run again although it may have begun, while nothing of it was seen */
    int64_t retries;   /* after failures of its container before it began; -1: configured */
    const wp_secret *secrets; /* `secret_count` of them, at most 32, with different names; NULL: none */
    size_t secret_count;
} wp_task;
#define WP_TASK_INIT                                                                                                   \
    {                                                                                                                  \
        sizeof(wp_task), NULL, NULL, NULL, NULL, NULL, NULL, 0, -1, -1, -1, -1, 0, 2, NULL, NULL, NULL, 0, -1, NULL, 0 \
    }

#define WP_UNMEASURED UINT64_MAX

/* ExecutionResult. Free with wp_result_free(); every pointer in it belongs to it and is never NULL. */
typedef struct wp_result {
    int success; /* outcome WP_EXITED with exit code 0 */
    wp_outcome outcome;
    int exit_code; /* the process's; 128+N when killed by signal N; 126, 127 when it could not be executed; -1 when it
                      never ran */
    int signal;    /* 0: none */
    const char *message;        /* "" at an ordinary end */
    const char *output, *error; /* stdout, stderr; NUL-terminated for convenience, may hold NULs */
    size_t output_size, error_size;
    int output_truncated, error_truncated;
    const char *task_id, *agent_type, *container_id, *container_name;
    int pooled, hit;     /* hit: dispatched without waiting for a container to be made */
    unsigned exec_count; /* tasks this container has run, this one included */
    uint64_t container_age_ms;
    uint64_t queue_us, dispatch_us, exec_us, total_us;
    /* this task alone; WP_UNMEASURED where not measured */
    uint64_t cpu_us, memory_peak_bytes, disk_bytes, network_bytes;
    const char *memory_source; /* "rusage": the largest process; "cgroup": all of the container; "": not measured */
} wp_result;

/* Runs a task and waits for its end. A task that fails, times out or cannot be executed is a result, not an error; NULL
 * only when it was not accepted. */
WP_API wp_result *wp_executor_execute(wp_executor *executor, const wp_task *task, wp_error *error);

/* Begins a task and returns its id (free() it), to be waited for exactly once. */
WP_API char *wp_executor_submit(wp_executor *executor, const wp_task *task, wp_error *error);

/* Waits for a submitted task and forgets it. NULL with WP_ERROR_TIMEOUT (the task goes on) or WP_ERROR_NOT_FOUND. */
WP_API wp_result *wp_executor_wait(wp_executor *executor, const char *task_id, int64_t timeout_ms, wp_error *error);

/* Ends a task's whole process tree; its result follows with WP_CANCELLED. */
WP_API int wp_executor_cancel(wp_executor *executor, const char *task_id, wp_error *error);

WP_API void wp_result_free(wp_result *result); /* NULL is allowed */

/* Takes a container for several tasks, which share its files and background processes: waits until there is one, and
 * returns the lease's id (free() it). It ends by wp_executor_release(), when it was not used for `ttl_ms` (-1:
 * configured; 0: never), with its container or with the executor; the container is then reset. */
WP_API char *wp_executor_lease(wp_executor *executor, const char *agent_type, int64_t ttl_ms, wp_error *error);

/* Ends a lease, and what runs in it. WP_ERROR_NOT_FOUND when it has ended already. */
WP_API int wp_executor_release(wp_executor *executor, const char *lease, wp_error *error);

/* Pins a pool's size (1 to maxPoolSize), or gives it back to the scaler with -1. */
WP_API int wp_executor_scale(wp_executor *executor, const char *agent_type, int size, wp_error *error);

/* Waits until `size` containers of the type are there. */
WP_API int wp_executor_warm(wp_executor *executor, const char *agent_type, unsigned size, wp_error *error);

/* Replaces a container (id, unique prefix of it, or name): at once when idle, after its task when busy. */
WP_API int wp_executor_refresh(wp_executor *executor, const char *container, wp_error *error);

typedef struct wp_type_count {
    char agent_type[32];
    unsigned containers;
} wp_type_count;

/* PoolMetrics. Percentages are 0 to 100, times in ms; NaN where nothing was measured yet. Free with wp_metrics_free().
 */
typedef struct wp_metrics {
    unsigned total_containers, active_containers, idle_containers, healthy_containers, unhealthy_containers;
    wp_type_count *containers_by_type;
    size_t type_count;
    double pool_utilization, average_execution_ms, container_hit_rate;
    uint64_t tasks, hits, misses, containers_created, containers_removed;
    double execution_p50_ms, execution_p95_ms, execution_p99_ms;
} wp_metrics;

WP_API wp_metrics *wp_executor_metrics(wp_executor *executor, wp_error *error);
WP_API void wp_metrics_free(wp_metrics *metrics); /* NULL is allowed */

/* AgentContainerInfo. */
typedef struct wp_container {
    char id[72], name[96], agent_type[32], state[16], network_id[72];
    uint64_t created_at_ms, last_used_ms; /* since the epoch; last_used_ms 0: never used */
    unsigned exec_count;
    int is_healthy, is_in_use;
    int64_t pid; /* of the container's init, on the engine's host */
} wp_container;

/* The containers of all pools, oldest first; `count` gets how many. free() the array. */
WP_API wp_container *wp_executor_containers(wp_executor *executor, size_t *count, wp_error *error);

/* "0.1.0"; static storage. */
WP_API const char *wp_version(void);

#ifdef __cplusplus
}
#endif
#endif
