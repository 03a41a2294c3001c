/* What the executor's files share. Ownership is a tree: executor > agent pools > slots, workers, jobs; engine requests
 * hold a worker alive through `pending`. Everything happens on the loop's thread. */
#pragma once

#include <uv.h>

#include "base/hash.h"
#include "base/list.h"
#include "engine/engine.h"
#include "executor/executor.h"
#include "maintenance/janitor.h"
#include "maintenance/scaler.h"
#include "pool/pool.h"
#include "telemetry/events.h"
#include "telemetry/histogram.h"
#include "transport/runner_conn.h"
#include "transport/socket.h"
#include "tree/memory.h"
#include "wire/message.h"

#define LABEL_INSTANCE "io.warmpool.instance"
#define LABEL_TYPE     "io.warmpool.type"
#define LABEL_SLOT     "io.warmpool.slot"

#define INSTANCE_BYTES     12             /* hexadecimal digits of a name that was drawn */
#define INSTANCE_MAX       31             /* bytes of any */
#define OUTPUT_WINDOW      (512U * 1024U) /* bytes of stdout, and of stderr, that a runner may send ahead */
#define ATTACH_WINDOW      (256U * 1024U) /* the same over the attach stream: what is in flight there the engine holds */
#define CONNECT_TIMEOUT_MS 20000U         /* from the start of a container to its runner's HELLO */
#define PROBE_TIMEOUT_MS   5000U          /* the same while it is not known whether the socket transport works */
#define PING_TIMEOUT_MS    5000U
#define RECONNECT_CHECK_MS 100U /* between looks at a container whose connection broke in mid-task */
#define RECONNECT_CHECKS   50U
#define TICK_MS            500U

/* --- state directory (state_dir.c) -------------------------------------------------------------- */

struct state_dir {
    char *path;
    int fd;            /* of the directory */
    int lock_fd;       /* flock-ed while open: one executor per state directory */
    int containers_fd; /* of "containers" in it: a directory per container */
    char instance[INSTANCE_MAX + 1];
};

/* Makes what is missing, locks, reads or makes the instance's name ("": it is drawn, or is what is kept there), writes
 * the runner, removes the directories of containers of a former run. ERROR_CONFLICT: it is another instance's. */
int state_dir_open(struct state_dir *state, const char *path, const char *instance, struct error *err);
void state_dir_close(struct state_dir *state);
/* Makes containers/NAME with the runner and, unless uid is 0, passwd and group for it. Returns a descriptor of it. */
int state_dir_container_new(struct state_dir *state, const char *name, uint32_t uid, struct error *err);
void state_dir_container_remove(struct state_dir *state, const char *name);

/* --- slots (slot.c) ------------------------------------------------------------------------------- */

/* A pool's place for a container: the uid and the network that its successive containers use. */
struct slot {
    struct list link; /* in the pool's free list */
    uint32_t index;   /* of the executor's: uid = uid_first + index */
    uint32_t uid;
    uint32_t networks;   /* of its pool, when it was taken */
    int32_t subnet;      /* which /29 of the subnet pool; -1: none */
    char network_id[72]; /* "" while there is none */
    char network_name[64];
};

struct slot_space { /* which indices and subnets are taken */
    uint8_t *taken; /* bit per index */
    uint32_t count;
    uint8_t *subnet_taken; /* bit per /29; foreign ones are found by trying */
    uint32_t subnet_count;
    uint32_t subnet_next;
};

int slot_space_init(struct slot_space *space, const struct config *config, uint32_t random, struct error *err);
void slot_space_free(struct slot_space *space);
struct slot *slot_new(struct slot_space *space, const struct config *config, const char *instance, struct error *err);
void slot_free(struct slot_space *space, struct slot *slot);
/* Takes a subnet for the slot and writes it as CIDR; -1 when the pool of subnets is exhausted. */
int slot_take_subnet(struct slot_space *space, const struct config *config, struct slot *slot, char cidr[24]);
/* The engine says that somebody else uses it: it stays taken, the slot has none. */
void slot_subnet_foreign(struct slot *slot);
void slot_release_subnet(struct slot_space *space, struct slot *slot);

/* --- pools ------------------------------------------------------------------------------------------ */

struct warm_wait { /* somebody who waits for containers to be there, or to be gone */
    struct list link;
    uint32_t size; /* 0 of drain_waits */
    void (*done)(void *user, const struct error *error);
    void *user;
};

/* Which way containers are spoken with. UNDECIDED: the first container tries the socket, and what comes of it decides.
 */
enum transport_choice { TRANSPORT_UNDECIDED, TRANSPORT_USE_SOCKET, TRANSPORT_USE_ATTACH };

struct image;

struct agent_pool {
    struct pool pool;
    struct hash_node by_type;
    struct list link; /* in executor.pools */
    struct executor *executor;
    struct profile *profile; /* owned */
    struct list free_slots;
    uint32_t free_slot_count;
    uint32_t networks; /* how often their kind has changed: a slot of before does not keep its own */
    struct scaler_state scaler;
    struct list warm_waits, drain_waits;
    uv_timer_t queue_timer;  /* at the earliest queue deadline */
    uint64_t queue_armed_us; /* 0: not armed */
    struct error last_error;
    bool warmup;          /* of warmupAgentTypes */
    uint32_t target_told; /* in the last poolScaled */
    uint64_t canary_us;   /* the last one's beginning; 0: none yet */
    struct image *image;
    enum transport_choice transport;
    bool gvisor; /* its runtime is */
};

/* --- images (image.c) ------------------------------------------------------------------------------- */

/* What a reference of the configuration means in the engine: found out once, pulled if need be, and then pinned, so
 * that all containers of an executor's life are of one image though a tag may move. Shared by the pools that name it.
 */
enum image_state { IMAGE_UNKNOWN, IMAGE_ASKING, IMAGE_PULLING, IMAGE_READY, IMAGE_FAILED };

#define IMAGE_VOLUMES_MAX  8U
#define IMAGE_VOLUME_BYTES 256U

struct image {
    struct list link; /* in executor.images */
    struct executor *executor;
    enum image_state state;
    char *reference; /* as configured */
    char *registry;  /* dockerRegistry of it; "" */
    char *pulled;    /* as pulled: with the registry and, once known, by digest */
    char id[80];     /* "sha256:..."; containers are made of this */
    char digest[80]; /* "" unless pulled or known by one */
    struct error error;
    uint64_t bytes, total_bytes; /* of the pull */
    /* VOLUME declarations: the engine would give each an unlimited volume that no reset empties. A mount of ours is put
     * in their place. */
    char volumes[IMAGE_VOLUMES_MAX][IMAGE_VOLUME_BYTES];
    size_t volume_count;
};

/* The image that a profile names; made on first use. NULL when memory runs out. */
struct image *image_of(struct executor *executor, const struct profile *profile);
/* Begins to find out or to pull, unless that goes on or is done; executor_kick() follows its end. */
void image_want(struct image *image);
/* The engine does not have it any more. */
void image_lost(struct image *image);
void images_free(struct executor *executor);
/* Pulls what profiles name and the engine does not have (preloadCommonImages). */
void images_preload(struct executor *executor);

/* --- the runner's volume (runner_volume.c) ------------------------------------------------------------ */

/* For the attach transport the runner travels in a volume of this instance, which is filled through the engine's API: a
 * container of the pool's own image is made, never started, for the sake of the upload. */
enum runner_volume_state { VOLUME_ABSENT, VOLUME_MAKING, VOLUME_READY };

#define RUNNER_DIRECTORY "/.warmpool"      /* in the container */
#define RUNNER_READABLE  "runner-readable" /* in the volume, beside "runner" */

struct runner_volume {
    enum runner_volume_state state;
    bool exists; /* it has to be removed at the end */
    char name[48], helper[56];
    void *tar;
    size_t tar_size;
    struct list waiting; /* workers */
};

/* --- workers: containers and their runners (worker.c) --------------------------------------------- */

enum canary_state {
    CANARY_NONE,
    CANARY_LEAVES, /* the hostile task has it, or its reset goes on */
    CANARY_LOOKS,  /* the look has it */
    CANARY_LOOKED, /* its reset goes on */
};

struct worker {
    struct container container;
    struct agent_pool *owner;
    struct slot *slot;
    bool attached;                    /* its transport is the attach stream */
    struct socket_listener *listener; /* of the socket transport */
    struct attachment *attachment;    /* of the other; NULL while there is none */
    struct list volume_wait;          /* in runner_volume.waiting */
    uint8_t token[SYNC_TOKEN_BYTES];
    bool stream_ended;    /* before the runner had said anything */
    uint64_t detached_us; /* since when the stream is broken; 0: it is not */
    uint64_t spoken_us;   /* when it was last told that we live */
    uint64_t probed_us;   /* when it was last asked in the middle of a task; 0: not since it was heard of anew */
    struct runner_conn *conn;
    int dir_fd;
    char name[80];
    char id[72]; /* "" before the engine made it */
    char network_id[72];
    int64_t pid;
    unsigned pending; /* engine requests that will call back */
    bool asked;       /* the engine was told to create it, and may have */
    bool receipt_due;
    struct receipt baseline;
    uv_timer_t timer;   /* of the present state */
    uint32_t last_task; /* the number of the one that was released; 0: none */
    unsigned checks;    /* looks at a container whose connection broke, or attempts to attach again */
    uint64_t ping_nonce, answered_us;
    uint64_t created_wall_ms, last_used_wall_ms;
    uint64_t reset_begun_us;
    unsigned removal_failures;
    enum canary_state canary;
    uint64_t canary_idle_us; /* since when it had been idle before its canary */
    char retire_reason[192];
};

struct job;
struct lease;

/* attach.c: an attach stream as the carrier of a runner_conn. worker_attach_opened() or worker_attach_closed() follow.
 */
struct attachment *attachment_open(struct worker *worker);
void attachment_bind(struct attachment *attachment, struct runner_conn *conn);
extern const struct carrier_ops attachment_carrier;   /* of a struct attachment */
void attachment_close(struct attachment *attachment); /* NULL is allowed; no callback follows */
void worker_attach_opened(struct worker *worker);
/* Only before a runner_conn was bound to it. */
void worker_attach_closed(struct worker *worker, const struct error *error);

/* runner_volume.c */
/* worker_volume_ready() follows, later or now. */
void runner_volume_want(struct worker *worker);
void worker_volume_ready(struct worker *worker, const struct error *error);
/* At the end, when no container has it any more; executor_kick() follows. */
void runner_volume_remove(struct executor *executor);
void runner_volume_free(struct runner_volume *volume);

/* Begins to make one container more for the pool. */
void worker_new(struct agent_pool *owner);
/* Asks the engine for its container, by the profile (worker_spec.c). */
void worker_create(struct worker *worker, engine_id_fn *done);
bool worker_has_own_user(const struct profile *profile);
/* Takes it out of service for good and removes it; a running task ends as LOST. Idempotent. */
void worker_retire(struct worker *worker, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Its container is gone or stopped, says the engine: `status` NULL when it does not exist. */
void worker_died(struct worker *worker, const struct container_status *status);
/* After the task's result was delivered: acknowledges, resets, or retires. */
void worker_release(struct worker *worker, uint32_t task_number);
void worker_ping(struct worker *worker);
/* Of one on the attach stream that runs a task: a stream that is dead in one direction is noticed, and opened anew. */
void worker_probe(struct worker *worker, uint64_t now_us);
/* Out of service until a check passes or its replacement is there. */
void worker_unhealthy(struct worker *worker, const char *reason);
/* Retires it if another one is there in its place, and says so; else false. */
bool worker_replaced(struct worker *worker);
void worker_timer(struct worker *worker, uint64_t milliseconds);
/* Asks the engine whether it still runs. */
void worker_check(struct worker *worker);

/* --- jobs: tasks with all that they carry (job.c) --------------------------------------------------- */

#define TRANSFER_STALL_US 60000000U   /* nothing moves for so long: it is given up */
#define ARTIFACTS_BYTES   (16U << 20) /* of one task, content */
#define ARTIFACTS_MAX     1000U       /* files of one task */

enum job_phase { JOB_BEGINNING, JOB_COPYING_IN, JOB_RUNNING, JOB_COPYING_OUT, JOB_COLLECTING, JOB_DONE };

/* What a task brings along and takes away (transfer.c). */
struct job_files {
    struct task_copy *in;
    const char **out, **artifacts;
    size_t in_count, out_count, artifact_count;
    size_t at;                             /* index in the list of the phase */
    uint64_t credit, unconsumed;           /* bytes that the client may send; that it has not given back yet */
    bool ready_due, next_due, give_up_due; /* for transfer_soon() */
    bool stream_ended;                     /* the last record of the present copy has come out */
    uint64_t moved_us;                     /* when something last moved */
    struct tree_memory memory;             /* the artifact that is being collected */
    struct tree_memory *collected;         /* artifact_count of them */
    struct task_artifact *list;
    size_t list_count;
    char error[256];
    struct message_exit exit; /* of the task, while its files go out */
    uint64_t exit_us;
};

struct job {
    struct task task; /* first: a struct task * of executor.h is this */
    struct hash_node by_id;
    struct list soon; /* in executor.soon */
    struct agent_pool *owner;
    enum job_phase phase;
    struct job_files files;
    struct task_handler handler;
    void *user;
    bool abandoned, started_due, cancelled, has_stdin, stdin_stream, stdin_eof, stdin_unread;
    bool capture, stream;
    bool terminal;
    bool in_lease;                    /* its container is a lease's: background processes are kept */
    bool own;                         /* warmpool's own: in no figure and no event */
    bool files_only, files_only_due;  /* there is no command; its end is to be told from the loop */
    bool idempotent;                  /* may be run again even if it may have started */
    uint32_t retries_left;            /* after infrastructure failures before it started */
    struct lease *lease;              /* while it waits there */
    const struct runner_conn *run_on; /* RUN was put on this connection, */
    uint64_t run_at;                  /* behind so many bytes; NULL: it was not */
    uint64_t run_us;                  /* when */
    uint16_t rows, columns;
    uint32_t number; /* on the wire */
    uint32_t stdin_credit;
    uint32_t output_window;
    uint64_t window[2];               /* consumed and not yet granted again */
    uint64_t received[2], granted[2]; /* of stdout and stderr, since the task's beginning */
    uint64_t stdin_sent, stdin_consumed;
    struct buffer stdin_kept; /* streamed, sent and not consumed: it may have to be sent again */
    struct buffer captured[2];
    bool truncated[2];
    uint64_t max_output_bytes;
    uint32_t timeout_ms, kill_timeout_ms;
    const char **argv, **env;       /* into `strings` */
    struct message_secret *secrets; /* into `strings` too */
    uint32_t secret_count;          /* of those that become files */
    char *secret_memory;            /* where all secrets are, those of `env` included */
    size_t secret_bytes;            /* 0: there are none */
    const char *workdir;
    const uint8_t *stdin_given; /* all that was given at once */
    const uint8_t *stdin_data;  /* the part of it that has not been sent */
    size_t stdin_size;
    struct buffer early_stdin; /* streamed before it was dispatched */
    enum task_outcome outcome; /* for the soon list */
    char message[ERROR_MESSAGE_MAX];
    char id[72];
    _Alignas(char *) char strings[]; /* arrays and texts of the request */
};

/* Its container is BUSY with it: sends RUN. */
void job_start(struct job *job);
/* The same, and tells its handler, from the loop, that it has started. */
void job_dispatched(struct job *job);
/* Its runner is there again after the connection broke, and says in `hello` what it knows of the task: what was lost on
 * the way goes out again. `untouched`: the runner never got RUN. -1 when what it says cannot be. */
int job_resume(struct job *job, const struct message_hello *hello, bool untouched);
/* Its deadline and all that may follow passed, and no EXIT came. */
bool job_overdue(const struct job *job, uint64_t now_us);
/* What SYNC tells the runner of it. */
void job_sync(struct job *job, struct message_sync *sync);
/* RUN: when the files are there. */
void job_run(struct job *job);
/* Of one that has no command: as if it had ended well. */
void job_files_done(struct job *job);
/* The files are out, or there are none: result and end. `release`: and the container is reset. */
void job_complete(struct job *job, bool release);
/* Its container is lost: the end, LOST unless the task had ended already. */
void job_lost(struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* As job_end(); its container, if it has one, is reset. */
void job_stop(struct job *job, enum task_outcome outcome, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* It has something to be done from the loop. */
void job_soon(struct job *job);

/* secrets.c */
struct secrets_measure {
    size_t files, variables; /* secrets, entries of the environment for them */
    size_t name_bytes;       /* of entries that only name files */
    size_t bytes;            /* of the secrets, wiped with the job */
};
int secrets_check(const struct task_request *request, struct secrets_measure *measure, struct error *err);
/* Puts them behind the `count` entries of the job's environment, for which there is room; `array` has room for
 * measure.files of them, `names` and `memory` for what was measured. */
void secrets_copy(struct job *job, const struct task_request *request, size_t count, char *array, char *names,
                  char *memory);
void secrets_wipe(struct job *job);

/* transfer.c */
int transfer_check(const struct task_request *request, struct error *err);
int transfer_copy(struct job *job, const struct task_request *request);
void transfer_free(struct job *job);
/* False: there is nothing to copy in. */
bool transfer_in_begin(struct job *job);
/* The same after EXIT. */
bool transfer_out_begin(struct job *job, const struct message_exit *message);
void transfer_file(struct job *job, const uint8_t *data, size_t size, bool eof);
void transfer_credit(struct job *job, uint32_t bytes);
void transfer_result(struct job *job, const struct message_file_result *result);
/* The connection broke. True when that ended the job, or the part of it that concerns files. */
bool transfer_broken(struct job *job);
/* Its container is gone; what the task said at its end stands. */
void transfer_lost(struct job *job);
/* The caller wants no files any more. True when files were all that was left. */
bool transfer_cancel(struct job *job);
void transfer_soon(struct job *job);
/* Fills files.list. */
void transfer_list(struct job *job);
/* It has stood still for too long. */
bool transfer_stalled(const struct job *job, uint64_t now_us);
void transfer_give_up(struct job *job, const char *why);

/* What the runner says of the task that its worker runs. */
void job_output(struct job *job, int stream, const uint8_t *data, size_t size);
void job_stdin_credit(struct job *job, uint32_t bytes);
void job_exited(struct job *job, const struct message_exit *message);
/* Ends it without an EXIT: LOST, REJECTED, CANCELLED or OOM_KILLED. From the loop only. */
void job_end(struct job *job, enum task_outcome outcome, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* As job_end(), from inside a call of executor.h: the handler is called later. */
void job_end_soon(struct job *job, enum task_outcome outcome, const char *message);
/* Hands idle containers to waiting tasks. */
void agent_pool_dispatch(struct agent_pool *owner);
/* True with ERROR_UNAVAILABLE: it takes nothing new. */
bool agent_pool_refuses(const struct agent_pool *owner, struct error *err);
/* Ends every waiting task and lease. */
void agent_pool_reject_waiting(struct agent_pool *owner, enum task_outcome outcome, const struct error *error);
void agent_pool_queue_expired(uv_timer_t *timer);
/* Sets its timer to the next deadline of a waiting task. */
void agent_pool_watch_queue(struct agent_pool *owner, uint64_t now_us);

/* Begins one of warmpool's own tasks in this idle container: not queued, and in no figure and no event. False, with a
 * line in the log: it could not. */
bool job_begin_own(struct worker *worker, const struct task_request *request, const struct task_handler *handler,
                   void *user);

/* --- leak canaries (canary.c) ---------------------------------------------------------------------------- */

/* Begins one in this pool when it is time and a container can be spared. */
void canary_tick(struct agent_pool *owner, uint64_t now_us);
/* A reset has ended, the container is idle. True: its canary goes on, and has taken it. */
bool canary_step(struct worker *worker);

/* --- leases (lease.c) ----------------------------------------------------------------------------------- */

struct lease {
    struct task holder; /* waits in the pool, then has the container as long as the lease lasts */
    struct hash_node by_id;
    struct list link; /* in executor.leases */
    struct list soon; /* in executor.leases_soon */
    struct agent_pool *owner;
    struct lease_handler handler;
    void *user;
    struct list waiting; /* jobs behind the one that runs */
    uint32_t waiting_count;
    uint64_t ttl_ms; /* 0: none */
    uint64_t begun_us, used_us, begun_wall_ms, used_wall_ms;
    uint64_t tasks;
    bool held; /* as long as a connection lasts */
    bool begun_due, ending, abandoned, leak_told;
    enum error_code failed; /* it never began; to be told from the loop */
    char id[24];
    char reason[256];
};

static inline struct lease *lease_of(struct task *holder)
{
    return list_entry(holder, struct lease, holder);
}

/* NULL: none has its container. */
struct lease *lease_on(const struct worker *worker);
/* Its container is BUSY with it. */
void lease_begin(struct lease *lease);
/* It waits, and shall not any more. Tells later. */
void lease_reject(struct lease *lease, enum error_code code, const char *message);
/* Begins the task in its container (RUNNING; then job_start()), or has it wait there (QUEUED). */
int lease_submit(struct lease *lease, struct job *job, uint64_t now_us, struct error *err);
/* A task that waits there leaves. */
void lease_withdraw(struct job *job);
/* A task of it has ended and let go of the container. */
void lease_task_ended(struct lease *lease);
/* Ends it, what runs in it included; later. */
void lease_end(struct lease *lease, const char *reason);
/* At once: its container is lost. */
void lease_lost(struct lease *lease, const char *reason);
void lease_soon(struct executor *executor);
void lease_tick(struct executor *executor, uint64_t now_us);

/* --- the executor (executor.c, maintain.c, sweep.c) ------------------------------------------------ */

struct executor {
    uv_loop_t *loop;
    const struct config *config;
    const struct log *log;
    enum executor_mode mode;
    struct engine *engine;
    struct state_dir state;
    struct slot_space slots;
    struct pool_set set;
    struct list pools;
    struct hash_table pools_by_type, jobs_by_id;
    struct hash_table leases_by_id;
    struct list leases, leases_soon;
    uint32_t jobs;    /* not yet ended */
    struct list soon; /* jobs with something to tell their handlers */
    uv_timer_t soon_timer, tick_timer;
    unsigned handles; /* uv handles of the executor and its pools still open, while closing */
    uint32_t task_number;
    uint64_t opened_us;
    struct list images;
    struct runner_volume volume;
    struct error volume_error;       /* while its helper is being removed */
    enum transport_choice transport; /* of the engine's default runtime */
    /* engine */
    bool engine_opened, engine_up, swept, sweeping;
    unsigned sweep_pending;
    struct error engine_error;
    uint64_t engine_retry_us;
    /* closing */
    bool closing, draining, engine_closing;
    uint32_t networks_left; /* being removed */
    void (*closed)(void *user);
    void *closed_user;
    /* telemetry */
    struct event_log events;
    struct histogram execution, queue, dispatch, reset, create;
    uint64_t outcomes[TASK_REJECTED + 1];
    uint32_t random_left;
    uint8_t random_bytes[256];
};

static inline struct worker *worker_of(struct container *container)
{
    return list_entry(container, struct worker, container);
}

static inline struct job *job_of(struct task *task)
{
    return list_entry(task, struct job, task);
}

static inline struct agent_pool *agent_pool_of(struct pool *pool)
{
    return list_entry(pool, struct agent_pool, pool);
}

void executor_event(struct executor *executor, const struct event *event);
/* Tells that the pool's target changed, if it did. */
void agent_pool_scaled(struct agent_pool *owner, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A container could not be made; one could. */
void agent_pool_create_failed(struct agent_pool *owner, const struct error *error);
void agent_pool_create_succeeded(struct agent_pool *owner);
/* Looks, soon, at what pools need: creations, surplus, waiting callers, the end of closing. */
void executor_kick(struct executor *executor);
void executor_random_bytes(struct executor *executor, void *out, size_t size);
uint32_t executor_random(struct executor *executor);
/* NULL when there is none. */
struct agent_pool *executor_pool_find(const struct executor *executor, const char *agent_type);
/* pools.c */
void agent_pool_info(struct pool_info *info, const struct agent_pool *owner);
/* All are replaced, one after the other. */
void agent_pool_expire_all(struct agent_pool *owner);
/* What its profile says of sizes; and of the way its containers are spoken with. */
void agent_pool_limits(const struct executor *executor, const struct profile *profile, struct pool_limits *limits);
void agent_pool_describe(struct agent_pool *owner);
/* Networks of its slots are not kept for the next container any more. */
void agent_pool_drop_networks(struct agent_pool *owner);
/* Makes the pools of warmupAgentTypes. */
void executor_warm_types(struct executor *executor);
/* Finds the pool of a type or makes it. */
struct agent_pool *executor_pool_get(struct executor *executor, const char *agent_type, struct error *err);
void executor_engine_failed(struct executor *executor, const struct error *error);
/* Is what answers what `engine` wants? After it was away another one may answer at the same place. */
int executor_engine_check(const struct executor *executor, struct error *err);
void executor_engine_answers(struct executor *executor);
/* What the first container showed. Pools of another runtime than the default keep their own choice. */
void executor_transport_chosen(struct agent_pool *owner, enum transport_choice choice, const char *why);
struct worker *executor_worker_find(struct executor *executor, const char *id);
/* Every worker in every pool and state. `fn` may retire it. */
void executor_each_worker(const struct executor *executor, void (*fn)(struct worker *worker, void *user), void *user);

/* maintain.c */
void maintain_tick(struct executor *executor, uint64_t now_us);
void maintain_plan(struct executor *executor, uint64_t now_us);
/* The removal of a slot's network; the slot is freed or goes to the pool's free list. */
void slot_put(struct agent_pool *owner, struct slot *slot);

/* sweep.c: removes what a former run of this instance left in the engine, then sets `swept`. */
void sweep_begin(struct executor *executor);
/* After the event stream was down: finds out who died meanwhile. */
void sweep_reconcile(struct executor *executor);
