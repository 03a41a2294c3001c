/* The payloads of frames. Integers are little-endian; a string is u32 length, its bytes and a NUL that the length
 * does not count; it holds no other NUL. A decoder returns 0, or -1 when the payload is malformed (short, long,
 * trailing bytes, unknown enum value); strings point into the payload. An encoder writes into caller's memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- bounded writer and reader ------------------------------------------------------------------ */

struct wire_writer {
    uint8_t *next, *end;
    bool overflow; /* sticky */
};

struct wire_reader {
    const uint8_t *next, *end;
    bool bad; /* sticky: a read past the end or a malformed string; reads then give 0, "" */
};

void wire_put_u8(struct wire_writer *writer, uint8_t value);
void wire_put_u16(struct wire_writer *writer, uint16_t value);
void wire_put_u32(struct wire_writer *writer, uint32_t value);
void wire_put_u64(struct wire_writer *writer, uint64_t value);
void wire_put_bytes(struct wire_writer *writer, const void *data, size_t size); /* raw, no length */
void wire_put_string(struct wire_writer *writer, const char *text);
uint8_t wire_get_u8(struct wire_reader *reader);
uint16_t wire_get_u16(struct wire_reader *reader);
uint32_t wire_get_u32(struct wire_reader *reader);
uint64_t wire_get_u64(struct wire_reader *reader);
const uint8_t *wire_get_bytes(struct wire_reader *reader, size_t size); /* NULL when short */
const char *wire_get_string(struct wire_reader *reader);                /* "" when malformed */
/* 0 when everything was read and nothing was bad, else -1. */
int wire_reader_end(const struct wire_reader *reader);

/* --- SYNC ----------------------------------------------------------------------------------------- */

#define SYNC_MARKER_BYTES 16U

struct message_sync {
    uint16_t version;
    uint8_t marker[SYNC_MARKER_BYTES]; /* random, new for each connection */
    /* Of the task that the daemon takes to be there, 0: none. Bytes since its beginning, [0] stdout, [1] stderr: */
    uint32_t task;
    uint64_t received[2]; /* have arrived */
    uint64_t granted[2];  /* may be sent in all */
};
#define MESSAGE_SYNC_BYTES 54U
#define SYNC_TOKEN_BYTES   16U /* what goes before SYNC on the attach stream */
#define SYNC_TOKEN_VARIABLE                                                                                            \
    "WARMPOOL_TOKEN" /* the container's variable that holds it, in hexadecimal; no task sees it */

void message_sync_encode(const struct message_sync *message, uint8_t out[MESSAGE_SYNC_BYTES]);
int message_sync_decode(const uint8_t *payload, size_t size, struct message_sync *message);

/* --- RUN ------------------------------------------------------------------------------------------ */

#define RUN_FLAG_STDIN           1U /* the task has a stdin; without it stdin is /dev/null */
#define RUN_FLAG_KEEP_BACKGROUND 2U /* processes that outlive the main process are left alone (leases) */
#define RUN_FLAG_TERMINAL        4U /* stdin, stdout and stderr are a terminal of rows x columns; all output is stdout */

#define RUN_STRINGS_MAX 65536U /* argv and environment entries, each */

/* Secrets: the task finds the first one at descriptor SECRET_FD_FIRST, the others right behind it, in this order. */
#define SECRETS_MAX      32U
#define SECRET_BYTES_MAX 65536U /* each */
#define SECRET_FD_FIRST  3

struct message_secret {
    const void *value; /* any bytes */
    uint32_t size;
};

struct message_run {
    uint32_t flags;
    uint32_t timeout_ms;      /* 0: no deadline */
    uint32_t kill_timeout_ms; /* between SIGTERM and SIGKILL */
    uint32_t credit_stdout;   /* bytes the runner may send before more credit comes */
    uint32_t credit_stderr;
    uint32_t cpu_limit_s; /* RLIMIT_CPU of each of its processes; 0: none */
    uint16_t rows, columns;
    const char *workdir;                      /* "": the container's */
    uint32_t argc;                            /* at least 1 */
    uint32_t envc;                            /* entries K=V, added to or replacing the container's */
    struct wire_reader argv;                  /* decoded: argc strings; read with wire_get_string() */
    struct wire_reader env;                   /* decoded: envc strings */
    uint32_t secretc;                         /* at most SECRETS_MAX */
    const struct message_secret *secret_list; /* to encode: secretc of them */
    struct wire_reader secrets;               /* decoded: secretc; read with wire_get_secret() */
};

/* Size 0 when malformed; the value points into the payload. */
struct message_secret wire_get_secret(struct wire_reader *reader);
/* Bytes that message_run_encode() will write. argv and env are NULL-terminated; env may be NULL. */
size_t message_run_size(const struct message_run *message, const char *const argv[], const char *const env[]);
void message_run_encode(const struct message_run *message, const char *const argv[], const char *const env[],
                        uint8_t *out, size_t size);
/* Checks everything, each string of argv and env (which must contain '=' after the first byte) included. */
int message_run_decode(const uint8_t *payload, size_t size, struct message_run *message);

/* --- CREDIT --------------------------------------------------------------------------------------- */

enum wire_stream { WIRE_STDIN = 0, WIRE_STDOUT = 1, WIRE_STDERR = 2, WIRE_FILES = 3 };

/* Direction says who may send: daemon to runner for STDOUT and STDERR, runner to daemon for STDIN (the initial STDIN
 * credit is STDIN_CREDIT_INITIAL). A STDIN credit of UINT32_MAX says: nobody reads any more, drop what is left. */
/* Whoever takes STDOUT and STDERR must not keep more credit to himself than this: a window may be as small as four of
 * them. */
#define OUTPUT_CREDIT_BATCH  (64U * 1024U)
#define STDIN_CREDIT_INITIAL (64U * 1024U)

struct message_credit {
    uint8_t stream; /* enum wire_stream */
    uint32_t bytes;
};
#define MESSAGE_CREDIT_BYTES 5U

void message_credit_encode(const struct message_credit *message, uint8_t out[MESSAGE_CREDIT_BYTES]);
int message_credit_decode(const uint8_t *payload, size_t size, struct message_credit *message);

/* --- WINCH ---------------------------------------------------------------------------------------- */

struct message_winch {
    uint16_t rows, columns;
};
#define MESSAGE_WINCH_BYTES 4U

void message_winch_encode(const struct message_winch *message, uint8_t out[MESSAGE_WINCH_BYTES]);
int message_winch_decode(const uint8_t *payload, size_t size, struct message_winch *message);

/* --- RECEIPT -------------------------------------------------------------------------------------- */

/* What a reset counted, surface by surface. A container gives one when it is fresh (in HELLO): the baseline. */
enum receipt_field {
    RECEIPT_PROCESSES, /* processes in the pid namespace, PID 1 not counted */
    RECEIPT_SYSV_SHM,  /* objects */
    RECEIPT_SYSV_SEM,
    RECEIPT_SYSV_MSG,
    RECEIPT_TCP,  /* sockets of IPv4 and IPv6 but TIME_WAIT */
    RECEIPT_UDP,  /* UDP, UDP-Lite, both families */
    RECEIPT_RAW,  /* raw, ICMP and packet sockets */
    RECEIPT_UNIX, /* unix sockets, the runner's own included */
    RECEIPT_NETLINK,
    RECEIPT_DESCRIPTORS, /* open in PID 1 */
    RECEIPT_SELF,        /* digest of PID 1's limits, nice, scheduler, affinity, umask, signal mask */
    RECEIPT_FIELDS
};
#define RECEIPT_UNKNOWN UINT64_MAX /* the surface could not be read; equal to a baseline that could not either */

#define RECEIPT_MOUNTS_MAX 24U

struct receipt_mount {
    uint64_t entries;     /* directory entries below the mount's root, not counting it */
    uint64_t free_blocks; /* statfs f_bfree */
    uint64_t free_inodes; /* statfs f_ffree */
};

struct receipt {
    uint64_t field[RECEIPT_FIELDS];
    uint32_t mount_count; /* in the order of the runner's arguments */
    struct receipt_mount mount[RECEIPT_MOUNTS_MAX];
    /* told, not compared: */
    uint64_t time_wait; /* TCP sockets in TIME_WAIT */
    uint64_t killed;    /* processes killed */
    uint64_t removed;   /* files and IPC objects removed */
    uint64_t reset_us;  /* how long the reset took */
};
#define RECEIPT_BYTES_MAX 1024U

size_t receipt_encode(const struct receipt *receipt, uint8_t out[RECEIPT_BYTES_MAX]);
int receipt_decode(const uint8_t *payload, size_t size, struct receipt *receipt);

/* Where two receipts differ: writes "surface: now N, fresh M" to `text` and returns true; false when they agree. */
bool receipt_differs(const struct receipt *baseline, const struct receipt *now, char *text, size_t text_size);

/* "sysv_shm" ...; static storage. */
const char *receipt_field_name(enum receipt_field field);

/* --- HELLO ---------------------------------------------------------------------------------------- */

enum hello_task_state { HELLO_TASK_NONE = 0, HELLO_TASK_RUNNING, HELLO_TASK_EXITED };

#define HELLO_FLAG_DIRTY 1U /* a task was started and no clean reset has followed */

struct message_hello {
    uint16_t version;
    uint8_t marker[SYNC_MARKER_BYTES]; /* of the SYNC that it answers */
    uint8_t flags;
    uint8_t task_state;  /* enum hello_task_state; EXITED: its EXIT is not acknowledged and follows */
    uint32_t task;       /* number of that task */
    uint32_t generation; /* tasks run so far */
    /* Of that task: */
    uint64_t resumed[2];     /* where its stdout and stderr go on: what SYNC said, or later when too much is gone */
    uint64_t stdin_received; /* bytes that need not be sent again */
    uint64_t stdin_consumed; /* for which CREDIT was given; UINT64_MAX: nobody reads any more */
    struct receipt baseline; /* taken before the first task */
};
#define MESSAGE_HELLO_BYTES_MAX (RECEIPT_BYTES_MAX + 64U)

size_t message_hello_encode(const struct message_hello *message, uint8_t out[MESSAGE_HELLO_BYTES_MAX]);
int message_hello_decode(const uint8_t *payload, size_t size, struct message_hello *message);

/* --- EXIT ----------------------------------------------------------------------------------------- */

enum exit_outcome {
    EXIT_UNKNOWN = 0, /* never sent: zeroed memory must not read as success */
    EXIT_EXITED,      /* code */
    EXIT_SIGNALED,    /* signal */
    EXIT_TIMED_OUT,   /* the deadline passed; code or signal say how the main process then ended */
    EXIT_CANCELLED,   /* by CANCEL */
    EXIT_OOM_KILLED,  /* SIGKILL, and the cgroup's oom_kill counter moved */
    EXIT_NOT_STARTED, /* spawn_errno and spawn_stage say why; nothing of the task ran */
};

enum spawn_stage { SPAWN_NONE = 0, SPAWN_SETUP, SPAWN_WORKDIR, SPAWN_EXEC };

enum peak_source {
    PEAK_NONE = 0, /* not measured */
    PEAK_RUSAGE,   /* the largest resident set of one process of the task */
    PEAK_CGROUP,   /* the container's peak, which rose during this task and so is this task's */
};

#define EXIT_UNMEASURED UINT64_MAX

struct message_exit {
    uint8_t outcome; /* enum exit_outcome */
    uint8_t spawn_stage;
    uint8_t peak_source;
    uint8_t exit_code;
    uint32_t signal;
    uint32_t spawn_errno;
    uint32_t killed;   /* processes left by the main process that were killed */
    uint64_t wall_us;  /* from just before the main process was made to its exit */
    uint64_t spawn_us; /* from RUN to the exec, setting up included */
    uint64_t user_us;  /* rusage of the main process and what it waited for */
    uint64_t system_us;
    uint64_t cgroup_cpu_us; /* the container's cpu time over the task, the runner's own included */
    uint64_t peak_bytes;    /* memory; see peak_source */
    uint64_t disk_bytes;    /* block device bytes read and written (rusage) */
    uint64_t network_bytes; /* received and sent on all interfaces but lo */
};
#define MESSAGE_EXIT_BYTES 80U

void message_exit_encode(const struct message_exit *message, uint8_t out[MESSAGE_EXIT_BYTES]);
int message_exit_decode(const uint8_t *payload, size_t size, struct message_exit *message);

/* --- PONG ----------------------------------------------------------------------------------------- */

struct message_pong {
    uint64_t nonce;
    uint32_t spawn_errno;  /* 0: a real fork, exec and reap worked */
    uint32_t spawn_us;     /* how long it took */
    uint64_t memory_bytes; /* the cgroup's present usage; RECEIPT_UNKNOWN when unreadable */
    uint64_t memory_limit;
    uint64_t pids; /* in the cgroup */
    uint64_t pids_limit;
};
#define MESSAGE_PONG_BYTES 48U

void message_pong_encode(const struct message_pong *message, uint8_t out[MESSAGE_PONG_BYTES]);
int message_pong_decode(const uint8_t *payload, size_t size, struct message_pong *message);

/* --- RESULT (daemon to API client) ---------------------------------------------------------------- */

struct message_result {
    uint32_t exit_code;  /* what the command line tool exits with */
    const char *message; /* for stderr; "" when there is nothing to say */
    const char *json;    /* the ExecutionResult */
};

size_t message_result_size(const struct message_result *message);
void message_result_encode(const struct message_result *message, uint8_t *out, size_t size);
int message_result_decode(const uint8_t *payload, size_t size, struct message_result *message);
