/* The composition root: owns pools, runners, the engine's use and maintenance; runs on one libuv loop and belongs to
 * its thread. Callbacks come from the loop, never from inside a call of this interface. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/log.h"
#include "config/config.h"
#include "telemetry/events.h"
#include "wire/file.h"

struct executor;
struct task; /* of pool/task.h; opaque to users of this header */

enum executor_mode {
    EXECUTOR_POOLED,
    EXECUTOR_FRESH, /* a new container for each task, removed afterwards; nothing is kept warm */
};

struct executor_options {
    uv_loop_t *loop;
    const struct config *config; /* must outlive the executor */
    const struct log *log;
    enum executor_mode mode;
    uint32_t (*random)(void *user); /* NULL: the system's */
    void *random_user;
};

/* Opens the state directory (ERROR_CONFLICT when another daemon holds it), writes the runner there, connects to the
 * engine and begins to warm the pools of warmupAgentTypes. Returns before that is done; engine trouble shows in
 * executor_status() and is retried. */
int executor_open(struct executor **executor, const struct executor_options *options, struct error *err);

/* Refuses new tasks; with `drain` waits for queued and running ones (else cancels them); removes every container,
 * network, volume and directory of this instance; then calls `closed`, after which the executor is gone. A second call
 * with drain false hurries the first. */
void executor_close(struct executor *executor, bool drain, void (*closed)(void *user), void *user);

/* Goes on with another configuration, which must outlive the executor or the next reload. -1, and nothing has changed,
 * with ERROR_CONFLICT for a key that cannot change while it runs. `rolled`: how many pools replace their containers
 * now. */
int executor_reload(struct executor *executor, const struct config *config, uint32_t *rolled, struct error *err);

/* Tells those who follow the events that another configuration was not taken. */
void executor_reload_failed(struct executor *executor, const struct error *error);

/* --- state ---------------------------------------------------------------------------------------- */

struct executor_status {
    const char *instance; /* this state directory's random id */
    const char *state_dir;
    const char *engine_name, *engine_version, *engine_api_version, *engine_host;
    const char *transport; /* "socket", "attach", or "undecided" until the first container has shown which works */
    bool engine_up;
    char engine_error[ERROR_MESSAGE_MAX]; /* the last engine failure while it is down, "" else */
    bool ready;                           /* every warm-up pool has its containers */
    bool closing;
    const char *pulling;               /* an image that is being pulled, "" when none is */
    uint64_t pulled_bytes, pull_bytes; /* of it; pull_bytes 0: not known yet */
    uint32_t warm_target, warm_now;    /* containers over all pools while warming up: for progress */
    uint32_t closing_left;             /* engine objects still to be removed while closing */
    uint64_t uptime_ms;
};
void executor_status(const struct executor *executor,
                     struct executor_status *status); /* pointers stay until the next call */

/* What happens; for readers on the executor's thread. */
struct event_log *executor_events(struct executor *executor);

/* --- tasks ---------------------------------------------------------------------------------------- */

enum task_outcome { /* terminal states; UNKNOWN never leaves the executor */
                    TASK_UNKNOWN = 0,
                    TASK_EXITED,
                    TASK_SIGNALED,
                    TASK_TIMED_OUT,
                    TASK_OOM_KILLED,
                    TASK_CANCELLED,
                    TASK_LOST,     /* its container or runner vanished while it ran */
                    TASK_REJECTED, /* never started: queue timeout, no container could be made, the command could not be
                                      executed */
};
const char *task_outcome_name(enum task_outcome outcome); /* "exited", "timed_out", ... */

enum task_priority { PRIORITY_CRITICAL, PRIORITY_HIGH, PRIORITY_NORMAL, PRIORITY_LOW, PRIORITY_BACKGROUND };

struct task_copy {           /* files that the client brings before the task starts, through executor_task_file() */
    const char *destination; /* absolute path in the container */
    const char *name;        /* of what is copied, below a directory that is there; "": its content goes there */
};

struct task_secret {  /* given to the task in the RUN frame, and kept nowhere else than with the waiting task */
    const char *name; /* see base/secret.h */
    const void *value;
    size_t size;
    /* The task's variable `name`; else a sealed memory file, whose path is in its variable WARMPOOL_SECRET_name and
     * whose descriptor in WARMPOOL_SECRETFD_name. */
    bool as_env;
};

struct task_request {
    const char *agent_type;
    const char *id;                    /* NULL: one is made */
    const char *const *argv;           /* NULL-terminated, at least one, argv[0] not empty */
    const char *const *env;            /* K=V, NULL-terminated, or NULL */
    const struct task_secret *secrets; /* copied */
    size_t secret_count;
    const char *workdir;      /* NULL: the profile's /workspace */
    int64_t timeout_ms;       /* -1: the profile's; 0: none */
    int64_t kill_timeout_ms;  /* -1: the profile's */
    int64_t queue_timeout_ms; /* -1: the profile's */
    int64_t max_output_bytes; /* -1: the profile's; per stream, of what is captured */
    enum task_priority priority;
    const void *stdin_data; /* given at once; copied */
    size_t stdin_size;
    bool stdin_stream; /* more comes through executor_task_stdin() */
    bool terminal;     /* stdin, stdout and stderr are a terminal; all output is stdout */
    uint16_t rows, columns;
    const char *term;                  /* TERM for it; NULL: not set */
    const struct task_copy *copies_in; /* one after the other, in this order */
    size_t copy_in_count;
    const char *const *copies_out; /* absolute paths that the handler's `file` gets when the task has ended */
    size_t copy_out_count;
    const char *const *artifacts; /* absolute paths whose regular files come in the result */
    size_t artifact_count;
    const char *lease; /* id: runs in its container, where background processes live on; NULL: none */
    bool files_only;   /* no command, copies only; in a lease */
    bool idempotent;   /* may run again even if it may have begun */
    int64_t retries;   /* after infrastructure failures before it began; -1: the profile's */
    bool fresh;        /* a container that never served another task */
    bool capture;      /* collect stdout and stderr for the result */
    bool stream;       /* call `output` */
};

struct task_resources { /* EXIT_UNMEASURED (UINT64_MAX) where not measured */
    uint64_t cpu_us, memory_peak_bytes, disk_bytes, network_bytes, file_handles;
    const char *memory_source; /* "rusage", "cgroup" or NULL */
};

struct task_artifact {
    const char *path; /* in the container, absolute */
    uint16_t mode;
    int64_t mtime_s;
    uint64_t size; /* bytes of `data` */
    const uint8_t *data;
    const uint8_t *sha256; /* 32 bytes */
};

struct task_result {
    const char *task_id, *agent_type;
    enum task_outcome outcome;
    int exit_code;                 /* of the process, 128+N when signalled; -1 when it never ran */
    int signal;                    /* 0: none */
    int cli_exit_code;             /* what `warmpool run` exits with: 124, 125, 126, 127, 137, 128+N, or the task's */
    const char *message;           /* what went wrong in words, "" for an ordinary end */
    const uint8_t *output, *error; /* captured; NULL when not */
    size_t output_size, error_size;
    bool output_truncated, error_truncated;
    const struct task_artifact *artifacts;
    size_t artifact_count;
    const char *artifact_error; /* why some are missing, "" when none is */
    bool hit;                   /* see DESIGN: dispatched without waiting for a container to be created */
    bool pooled;
    const char *container_id, *container_name; /* "" when none was reached */
    uint64_t container_age_ms;
    uint32_t exec_count;  /* tasks that the container has run, this one included */
    uint64_t queue_us;    /* submitted to dispatched */
    uint64_t dispatch_us; /* dispatched to exec, by the runner's and the daemon's clocks: round trip less run time */
    uint64_t exec_us;     /* exec to exit, the runner's measure */
    uint64_t total_us;    /* submitted to result */
    struct task_resources resources;
};

struct task_handler {
    /* A piece of output. It must be given back with executor_task_consumed(), now or later: that is the flow control.
     */
    void (*output)(void *user, struct task *task, int stream /* 1, 2 */, const uint8_t *data, size_t size);
    /* `size` more bytes may be passed to executor_task_stdin(); at start 64 KiB. SIZE_MAX: nobody reads, stop sending.
     * NULL allowed. */
    void (*stdin_ready)(void *user, struct task *task, size_t size);
    void (*started)(void *user, struct task *task); /* dispatched; NULL allowed */
    /* Transfers, NULL when the request has none. Of copies_in: so much more may be passed to executor_task_file(); the
     * first time for each copy says that it has begun. Then how it ended; after an error the task does not start. */
    void (*file_ready)(void *user, struct task *task, size_t size);
    void (*file_result)(void *user, struct task *task, const struct message_file_result *result);
    /* Of copies_out: records; to be given back with executor_task_file_consumed(). `eof`: the copy's last ones. */
    void (*file)(void *user, struct task *task, const uint8_t *data, size_t size, bool eof);
    void (*ended)(void *user, struct task *task,
                  const struct task_result *result); /* exactly once; the task is gone afterwards */
};

/* Queues or dispatches. NULL with ERROR_INVALID, ERROR_LIMIT (queue full), ERROR_UNAVAILABLE (closing), ERROR_NOT_FOUND
 * (strict types), ERROR_CONFLICT (id in use): then `ended` is not called. */
struct task *executor_submit(struct executor *executor, const struct task_request *request,
                             const struct task_handler *handler, void *user, struct error *err);
void executor_task_consumed(struct task *task, int stream, size_t size);
/* Copies; -1 with ERROR_LIMIT beyond the credit that was given. `eof` ends stdin. */
int executor_task_stdin(struct task *task, const void *data, size_t size, bool eof, struct error *err);
/* Records of the copy that goes on. Copies; -1 with ERROR_LIMIT beyond the credit that was given. */
int executor_task_file(struct task *task, const void *data, size_t size, bool eof, struct error *err);
void executor_task_file_consumed(struct task *task, size_t size);
void executor_task_signal(struct task *task, int signal);
/* The size of its terminal; no effect on a task without one. */
void executor_task_winch(struct task *task, uint16_t rows, uint16_t columns);
/* Ends the whole tree (SIGTERM, grace, SIGKILL; a waiting one at once); `ended` follows with TASK_CANCELLED unless it
 * had ended. */
void executor_task_cancel(struct task *task);
/* The caller loses interest in output and end: no callback follows. The task is cancelled. */
void executor_task_abandon(struct task *task);
struct task *executor_task_find(struct executor *executor, const char *id); /* NULL when not queued or running */
const char *executor_task_id(const struct task *task);
/* "queued" or "running"; container name or "". */
const char *executor_task_state(const struct task *task);
const char *executor_task_agent_type(const struct task *task);

/* --- leases: a container for several tasks --------------------------------------------------------------- */

struct lease;

struct lease_request {
    const char *agent_type;
    int64_t ttl_ms;           /* ends when it was not used for so long; 0: never; -1: the profile's, none when held */
    int64_t queue_timeout_ms; /* -1: the profile's */
    enum task_priority priority;
    bool fresh; /* a container that never served another task */
    bool held;  /* the caller ends it with its connection: for information only */
};

struct lease_handler {
    /* It has its container, or `error`: it never will, and is gone. */
    void (*begun)(void *user, struct lease *lease, const struct error *error);
    /* After begun() without an error: it has ended and is gone. NULL allowed. */
    void (*ended)(void *user, struct lease *lease, const char *reason);
};

struct lease_info {
    const char *id, *agent_type, *state;                 /* "waiting", "held", "ending" */
    const char *container_id, *container_name, *task_id; /* "" when none */
    uint64_t begun_ms, used_ms;                          /* wall clock */
    uint64_t ttl_ms;                                     /* 0: none */
    uint64_t tasks;                                      /* that have ended in it */
    uint32_t waiting;                                    /* tasks behind the one that runs */
    bool held;
    bool overdue; /* held for longer than leaseWarnAfter */
};

/* Queues. NULL as executor_submit(). Its container is reset when the lease ends. */
struct lease *executor_lease(struct executor *executor, const struct lease_request *request,
                             const struct lease_handler *handler, void *user, struct error *err);
/* NULL when there is none that has begun and not ended. */
struct lease *executor_lease_find(const struct executor *executor, const char *id);
const char *executor_lease_id(const struct lease *lease);
/* Its time begins anew; `ttl_ms` as in the request, -1: as it was. */
void executor_lease_renew(struct lease *lease, int64_t ttl_ms);
/* Ends it, a task that runs in it included. */
void executor_lease_release(struct lease *lease);
/* The same; the caller hears nothing more of it. */
void executor_lease_abandon(struct lease *lease);
void executor_lease_info(const struct lease *lease, struct lease_info *info);
void executor_leases(const struct executor *executor, void (*fn)(void *user, const struct lease_info *info),
                     void *user);

/* --- pools and containers ------------------------------------------------------------------------- */

struct pool_info {
    const char *agent_type;
    uint32_t target, min, max; /* containers wanted now; bounds */
    bool pinned;               /* target set by scale */
    bool paused, draining;
    bool circuit_open; /* making containers failed so often in a row that one attempt at a time is made, seldom */
    uint32_t expiring; /* to be replaced */
    uint32_t total, creating, idle, busy, resetting, unhealthy, retiring, healthy;
    uint32_t waiting; /* tasks in the queue */
    uint64_t tasks, hits, misses, leases, retries, created, removed, resets, resets_failed;
    uint64_t canaries, contaminations; /* canaries that looked; those that met something */
    bool reuse_stopped;                /* after a contamination, until it is resumed */
    const char *image;
    const char *last_error; /* "" */
};
typedef void pool_info_fn(void *user, const struct pool_info *info);
void executor_pools(const struct executor *executor, pool_info_fn *fn, void *user);
int executor_pool(const struct executor *executor, const char *agent_type, struct pool_info *info, struct error *err);
/* Pins the size (1..max) or hands it back to the scaler (size -1). Makes the pool if it is not there. */
int executor_scale(struct executor *executor, const char *agent_type, int size, struct error *err);
/* Calls `done` when `size` containers of the type are idle or busy (at most max), or with the error that prevents it.
 */
int executor_warm(struct executor *executor, const char *agent_type, uint32_t size,
                  void (*done)(void *user, const struct error *error), void *user, struct error *err);

/* Tasks wait, containers stay; until resumed. */
int executor_pause(struct executor *executor, const char *agent_type, struct error *err);
/* Also opens a pool that was drained. */
int executor_resume(struct executor *executor, const char *agent_type, struct error *err);
/* Takes no new tasks; `done` is called when those that wait and run have ended and no container is left. */
int executor_drain(struct executor *executor, const char *agent_type,
                   void (*done)(void *user, const struct error *error), void *user, struct error *err);
/* Replaces all its containers, one after the other, without a dip. */
int executor_refresh_pool(struct executor *executor, const char *agent_type, struct error *err);

struct container_info {                         /* AgentContainerInfo of the seed */
    const char *id, *name, *agent_type, *state; /* "creating", "idle", "busy", ... */
    uint64_t created_at_ms, last_used_ms;       /* wall clock; last_used 0: never */
    uint32_t exec_count;
    bool is_healthy, is_in_use;
    const char *network_id, *volume_id; /* "" when none */
    int64_t pid;
    uint32_t uid;
    const char *task_id; /* "" */
};
typedef void container_info_fn(void *user, const struct container_info *info);
void executor_containers(const struct executor *executor, container_info_fn *fn, void *user);
/* The networks that slots have or keep, by id. */
void executor_networks(const struct executor *executor, void (*fn)(void *user, const char *id), void *user);
/* Replaces a container (by id, a unique prefix of at least 4, or name): at once when idle, after its task when busy. */
int executor_refresh(struct executor *executor, const char *container, struct error *err);

struct executor_metrics { /* PoolMetrics of the seed, then ours; NAN where nothing was measured yet */
    uint32_t total_containers, active_containers, idle_containers, healthy_containers, unhealthy_containers;
    double pool_utilization; /* percent */
    double average_execution_ms, container_hit_rate /* percent */;
    uint64_t tasks_by_outcome[TASK_REJECTED + 1];
    uint64_t tasks_total, hits, misses, waiting;
    uint64_t containers_created, containers_removed, resets, resets_failed, create_failures;
    uint64_t canaries, contaminations;
    struct percentiles {
        uint64_t count;
        double p50_ms, p95_ms, p99_ms, max_ms;
    } execution, queue, dispatch, reset, create;
};
/* containersByType comes from executor_pools(). */
void executor_metrics(const struct executor *executor, struct executor_metrics *metrics);
