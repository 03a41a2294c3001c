/* The runner: PID 1 of a pooled container. It starts one task at a time, streams its output, ends it at its deadline,
 * cleans up after it and counts what is left. It sees only wire/ and libc, allocates nothing after its start but a
 * mapping for a large RUN, and has one thread.
 *
 * One loop: ppoll() on the connection and the task's pipes, with SIGCHLD let in only there. A task goes
 *
 *     IDLE -> RUNNING -> DRAINING (the main process has ended) -> EXITED (EXIT sent, not acknowledged) -> IDLE
 *
 * Everything about the task survives a broken connection; the deadline needs none. The last RING_BYTES of each output
 * stream are kept, so that what was lost with a connection is sent again on the next one. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "runner/files.h"
#include "wire/frame.h"
#include "wire/message.h"
#include "wire/weaken.h"

#define INPUT_BYTES     (FRAME_DATA_MAX + 4096U)
#define OUTPUT_BYTES    (2U * FRAME_DATA_MAX + 8192U)
#define ENVIRONMENT_MAX 512U /* entries of the container's own environment */

#define KEPT_MAX 32U /* pipes of background processes */

enum phase { PHASE_IDLE, PHASE_RUNNING, PHASE_DRAINING, PHASE_EXITED };

#define RING_BYTES (512U * 1024U) /* untouched, and so not resident, beyond what a task writes */

#define LEFT_TO_END   (-1)
#define LEFT_TO_EMPTY (-2) /* of a terminal, which does not tell how much is there but by reading it */

struct stream { /* stdout or stderr of the task, our end */
    int fd;     /* -1: closed */
    uint8_t type;
    bool wide; /* its pipe was made larger */
    uint8_t *ring;
    size_t touched; /* bytes of the ring, from its beginning, that have been written to since the last reset */
    /* Bytes since the task's beginning: read from it, put into frames, allowed by the daemon. */
    uint64_t total, sent, granted;
    int64_t left; /* with kept background processes: what was in the pipe when the main process ended; or a LEFT_ */
};

struct task_state {
    uint32_t number;
    pid_t pid;
    uint32_t flags, kill_timeout_ms;
    uint64_t begun_us;                       /* exec */
    uint64_t deadline_us, kill_us, drain_us; /* 0: none */
    uint8_t ended_by;                        /* EXIT_TIMED_OUT, EXIT_CANCELLED or 0 */
    bool killed;                             /* SIGKILL was sent by us */
    struct stream out, err;
    int terminal_fd; /* the task's side of its terminal, held open while the main process lives; -1: none */
    int stdin_fd;    /* -1: closed */
    bool stdin_eof, stdin_unread;
    size_t stdin_start, stdin_end;
    uint32_t stdin_owed; /* consumed, credit not sent */
    uint64_t stdin_received, stdin_credited;
    bool exit_due; /* EXIT is to be sent when all output has been */
    struct message_exit exit;
};

struct figures { /* what the kernel counts for the container; UINT64_MAX where it does not say */
    int peak_fd, cpu_fd, oom_fd, net_fd;
    bool version2;
    uint64_t peak, cpu_us, oom_kills, network;
};

struct runner {
    const char *self;        /* path of this program, for the probe */
    const char *socket_path; /* NULL: the connection is our own stdin and stdout, the engine's attach stream */
    uint8_t token[SYNC_TOKEN_BYTES];
    char **environment;
    uint64_t orphan_timeout_us;
    int null_fd, cwd_fd;
    sigset_t wait_mask; /* during ppoll: SIGCHLD let in */
    /* connection */
    int fd, out_fd; /* to read from, to write to: the same for a socket; -1: none */
    bool synced;    /* the daemon has said SYNC */
    bool deaf;      /* on the attach stream nothing is heard until the next token */
    uint8_t marker[SYNC_MARKER_BYTES];
    uint64_t connect_us, connect_backoff_us; /* when to try again, or to read again */
    uint64_t orphaned_us;                    /* since when no daemon is known to be there */
    uint8_t *input;                          /* input_small, or a mapping */
    size_t input_size, input_length;
    size_t output_start, output_end;      /* not yet written */
    size_t output_touched, stdin_touched; /* as in struct stream */
    bool output_failed;
    const char *warning; /* of the start, for the first daemon that listens */
    /* task */
    enum phase phase;
    struct task_state task;
    bool dirty, children; /* children: processes may be left */
    uint32_t generation;
    struct figures figures;
    bool figures_fresh; /* read since the last task */
    int kept[KEPT_MAX]; /* kept.c */
    unsigned kept_count;
    /* residue */
    const char *mounts[RECEIPT_MOUNTS_MAX];
    int mount_fds[RECEIPT_MOUNTS_MAX];
    uint32_t mount_count;
    int proc_fd, self_fd_fd, sysvipc_fd[3], net_fds[5];
    bool baseline_known;
    struct receipt baseline;
    struct files files;
    uint64_t log_window_us;
    unsigned log_count;
    uint8_t input_small[INPUT_BYTES];
    uint8_t output[OUTPUT_BYTES];
    uint8_t stdin_buffer[STDIN_CREDIT_INITIAL];
    _Alignas(4096) uint8_t rings[2][RING_BYTES];
};

/* Microseconds of CLOCK_MONOTONIC. */
uint64_t now_us(void);

/* link.c: the bytes' way, over the socket or the attach stream */

/* Takes stdin and stdout for the attach stream and the token out of the environment. False: there is no token. */
bool link_open_attach(struct runner *runner);
void link_try(struct runner *runner);
void link_read(struct runner *runner);
void link_flush(struct runner *runner);
/* A header and its payload at once, past the buffer, which has to be empty: how many bytes were taken. */
size_t link_send(struct runner *runner, const uint8_t header[FRAME_HEADER_BYTES], const uint8_t *payload, size_t size);
void link_drop(struct runner *runner);
/* Bytes that follow each frame from the daemon. */
size_t link_tail(const struct runner *runner);
/* Nobody has been heard for so long that the container shall end. */
bool link_orphaned(const struct runner *runner, uint64_t now);
uint64_t link_wakeup(const struct runner *runner);

/* conn.c: the frames */

/* Handles the whole frames in the input's first `size` bytes: how many bytes they took, -1 when the daemon broke the
 * protocol. */
ptrdiff_t conn_handle(struct runner *runner, size_t size);
/* Room for a payload of `size` bytes at the output's end, NULL when it is full; then conn_commit(). */
uint8_t *conn_reserve(struct runner *runner, size_t size);
/* How much of the task's output would fit in one frame now; what small frames may need is kept free. */
size_t conn_room(struct runner *runner);
/* Wipes what the output buffer has of frames that are gone. */
void conn_wipe(struct runner *runner);
/* Is there a daemon, and room for small frames that can wait, with some left for those that cannot? */
bool conn_spare(const struct runner *runner);
/* Bytes for which there is room: part of a frame whose beginning is on its way. */
void conn_put(struct runner *runner, const uint8_t *data, size_t size);
void conn_commit(struct runner *runner, uint8_t type, uint8_t flags, uint32_t task, size_t size);
void conn_send(struct runner *runner, uint8_t type, uint32_t task, const void *payload, size_t size);
void runner_log(struct runner *runner, int level, const char *text);

/* task.c: one task from RUN to EXIT */
void task_run(struct runner *runner, uint32_t number, const struct message_run *run);
void task_stdin(struct runner *runner, const uint8_t *data, size_t size, bool eof);
void task_write_stdin(struct runner *runner);
/* Nobody reads the task's stdin any more: closes it and says so. */
void task_stdin_unread(struct runner *runner);
void task_credit(struct runner *runner, const struct message_credit *credit);
void task_cancel(struct runner *runner, uint32_t grace_ms);
void task_winch(struct runner *runner, const struct message_winch *winch);
/* Sends what is there of output, then EXIT. */
void task_flush(struct runner *runner);
/* Output waits in a ring and nothing in the link, whose room would be told of: the loop must not sleep. */
bool task_unsent(const struct runner *runner);
/* On a new connection: what SYNC said goes in, what HELLO says comes out. */
void task_resume(struct runner *runner, const struct message_sync *sync, struct message_hello *hello);
/* Reaps, and moves the task on: deadlines, the end of draining. */
void task_step(struct runner *runner);
/* When task_step() has to be called at the latest; 0: no time. */
uint64_t task_wakeup(const struct runner *runner);

/* stream.c: from the task's pipes into the rings, from there into frames */
bool stream_readable(const struct stream *stream);
void stream_read(struct stream *stream);
void stream_send(struct runner *runner, struct stream *stream);
bool stream_sent(const struct stream *stream);
/* Between tasks: wipes what was kept, and gives the memory of a long output back. */
void stream_clear(struct stream *stream);
/* Goes back to `received`, or as far as the ring reaches. */
void stream_resume(struct stream *stream, uint64_t received, uint64_t granted);

/* kept.c: pipes of processes that outlive their task, which nobody reads any more */
void kept_add(struct runner *runner, int fd); /* takes it; -1 is allowed */
void kept_read(struct runner *runner, int fd);
void kept_close(struct runner *runner);

/* terminal.c */
struct terminal {
    int master, task; /* the task's side */
};
/* 0 or errno */
int terminal_open(struct terminal *terminal, uint16_t rows, uint16_t columns);
void terminal_resize(int master, uint16_t rows, uint16_t columns);

/* secrets.c: each in a sealed memory file of its own, which only the task's processes keep */
struct secrets {
    int fd[SECRETS_MAX]; /* beyond those that the task will find them at */
    uint32_t count;
};
/* 0 or errno. What is open then is in `secrets` either way. */
int secrets_open(struct secrets *secrets, const struct message_run *run);
void secrets_close(struct secrets *secrets);

/* spawn.c */
struct spawn_request {
    const char *workdir; /* "": the container's */
    char *const *argv, *const *env;
    int in, out, err;              /* become 0, 1, 2 */
    bool terminal;                 /* `in` is one: it becomes the controlling terminal */
    uint32_t cpu_limit_s;          /* 0: none */
    const struct secrets *secrets; /* become SECRET_FD_FIRST and up; NULL: none */
};
struct spawn_failure {
    int error;
    uint8_t stage; /* enum spawn_stage */
};
/* pid, or -1 with `failure`. The child is in a session of its own, with default signals and nothing open but 0, 1, 2
 * and the secrets. */
pid_t spawn(const struct runner *runner, const struct spawn_request *request, struct spawn_failure *failure);
/* A real fork, exec and reap of this program doing nothing; errno or 0. */
int spawn_probe(struct runner *runner);

/* reset.c */
void reset(struct runner *runner, struct receipt *receipt);
/* SIGKILL to everything until nothing is left or the deadline passes; how many were reaped. */
uint64_t kill_everything(struct runner *runner, uint64_t deadline_us);

/* As explicit_bzero(), of what a task brought or made, when it is not needed any more. */
static inline void forget_bytes(void *bytes, size_t size)
{
    if (!weakened(NULL, "wipe-memory"))
        explicit_bzero(bytes, size);
}

/* wipe.c: empties the directory; entries removed. Follows no link, holds three descriptors at most. */
uint64_t wipe_directory(int directory, uint64_t deadline_us);

/* residue.c */
/* To all processes of a session, whatever groups they made. */
void signal_session(const struct runner *runner, pid_t session, int signal);
void residue_open(struct runner *runner);
void residue_count(struct runner *runner, struct receipt *receipt);
/* Reads a small file from its beginning into `text`, NUL-terminated; -1 when it cannot. */
ssize_t read_again(int fd, char *text, size_t size);

/* figures.c */
void figures_open(struct figures *figures);
void figures_read(struct figures *figures);                                            /* before a task */
void figures_exit(struct figures *figures, struct message_exit *exit, bool sigkilled); /* after it */
void figures_pong(const struct figures *figures, struct message_pong *pong);

/* canary.c: a task, not PID 1. `verb`: "leave" or "look". Returns the exit code. */
int canary(const char *verb);
