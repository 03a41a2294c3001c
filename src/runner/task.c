/* One task from RUN to EXIT. The main process's exit ends it: all that is left is killed, what is in the pipes is sent
 * as far as credit goes, then EXIT. A background process that holds stdout open therefore delays nothing. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/runner.h"
#include "wire/weaken.h"

#define KILL_AGAIN_US  10000U   /* between two SIGKILLs to all, while the main process still lives */
#define DRAIN_LIMIT_US 1000000U /* for killed processes to let go of the pipes */
#define POINTERS_SMALL 512U
#define END_OF_FILE    4 /* Ctrl-D, as a terminal's user ends stdin */

/* --- start ------------------------------------------------------------------------------------------- */

struct pointers { /* argv and env of the task */
    char **memory;
    size_t size; /* bytes of a mapping; 0: static */
    char **argv, **env;
};

static bool overridden(const char *entry, char *const *by, size_t count)
{
    size_t length = strcspn(entry, "=");
    for (size_t i = 0; i < count; i++)
        if (strncmp(by[i], entry, length + 1) == 0)
            return true;
    return false;
}

/* The strings stay where they are, in the RUN payload and in the container's own environment. */
static bool make_pointers(const struct runner *runner, const struct message_run *run, char **small,
                          struct pointers *pointers)
{
    size_t own = 0;
    while (runner->environment[own] != NULL && own < ENVIRONMENT_MAX)
        own++;
    size_t count = run->argc + 1 + run->envc + own + 1;
    *pointers = (struct pointers){.memory = small};
    if (count > POINTERS_SMALL) {
        pointers->size = count * sizeof(char *);
        pointers->memory = mmap(NULL, pointers->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pointers->memory == MAP_FAILED)
            return false;
    }
    struct wire_reader argv = run->argv, env = run->env;
    char **next = pointers->argv = pointers->memory;
    for (uint32_t i = 0; i < run->argc; i++)
        *next++ = (char *)(uintptr_t)wire_get_string(&argv);
    *next++ = NULL;
    pointers->env = next;
    for (uint32_t i = 0; i < run->envc; i++)
        *next++ = (char *)(uintptr_t)wire_get_string(&env);
    for (size_t i = 0; i < own; i++)
        if (!overridden(runner->environment[i], pointers->env, run->envc))
            *next++ = runner->environment[i];
    *next = NULL;
    return true;
}

/* Tasks are first in line for the OOM killer, so that PID 1 outlives them. Writable only once the exec has happened. */
static void offer_to_oom_killer(pid_t pid)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t written = write(fd, "1000", 4);
    (void)written;
    close(fd);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

struct ends {                      /* of the task's stdin, stdout and stderr */
    int in, out, err;              /* its own */
    int to_in, from_out, from_err; /* ours; -1: none */
};

static int pipe_ends(int *reads, int *writes)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    *reads = ends[0];
    *writes = ends[1];
    return 0;
}

/* 0 or errno. What is open then is in `ends` either way. */
static int ends_open(struct ends *ends, const struct message_run *run)
{
    *ends = (struct ends){-1, -1, -1, -1, -1, -1};
    if ((run->flags & RUN_FLAG_TERMINAL) != 0) {
        struct terminal terminal;
        int error = terminal_open(&terminal, run->rows, run->columns);
        if (error != 0)
            return error;
        ends->out = terminal.task;
        ends->from_out = terminal.master;
        if ((run->flags & RUN_FLAG_STDIN) != 0)
            ends->to_in = fcntl(terminal.master, F_DUPFD_CLOEXEC, 3);
        return 0;
    }
    if ((run->flags & RUN_FLAG_STDIN) != 0 && pipe_ends(&ends->in, &ends->to_in) < 0)
        return errno;
    return pipe_ends(&ends->from_out, &ends->out) < 0 || pipe_ends(&ends->from_err, &ends->err) < 0 ? errno : 0;
}

static void set_nonblocking(int fd)
{
    if (fd >= 0)
        fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void task_not_started(struct runner *runner, int error, uint8_t stage)
{
    struct task_state *task = &runner->task;
    task->exit.outcome = EXIT_NOT_STARTED;
    task->exit.spawn_errno = (uint32_t)error;
    task->exit.spawn_stage = stage;
    runner->phase = PHASE_EXITED;
    task->exit_due = true;
}

void task_run(struct runner *runner, uint32_t number, const struct message_run *run)
{
    static char *small[POINTERS_SMALL];
    struct task_state *task = &runner->task;
    uint64_t begun = now_us();
    if (!runner->figures_fresh)
        figures_read(&runner->figures);
    runner->figures_fresh = false;
    *task = (struct task_state){.number = number,
                                .flags = run->flags,
                                .kill_timeout_ms = run->kill_timeout_ms,
                                .out = {.fd = -1,
                                        .type = FRAME_STDOUT,
                                        .ring = runner->rings[0],
                                        .touched = task->out.touched,
                                        .granted = run->credit_stdout,
                                        .left = LEFT_TO_END},
                                .err = {.fd = -1,
                                        .type = FRAME_STDERR,
                                        .ring = runner->rings[1],
                                        .touched = task->err.touched,
                                        .granted = run->credit_stderr,
                                        .left = LEFT_TO_END},
                                .stdin_fd = -1,
                                .terminal_fd = -1,
                                .exit = {.user_us = EXIT_UNMEASURED,
                                         .system_us = EXIT_UNMEASURED,
                                         .cgroup_cpu_us = EXIT_UNMEASURED,
                                         .peak_bytes = EXIT_UNMEASURED,
                                         .disk_bytes = EXIT_UNMEASURED,
                                         .network_bytes = EXIT_UNMEASURED}};
    runner->generation++;
    runner->dirty = true; /* before the first process, and until a reset has proven the contrary */

    struct ends ends;
    struct pointers pointers = {0};
    struct secrets secrets = {.count = 0};
    struct spawn_failure failure = {.error = ends_open(&ends, run), .stage = SPAWN_SETUP};
    bool terminal = (run->flags & RUN_FLAG_TERMINAL) != 0;
    if (failure.error == 0 && !make_pointers(runner, run, small, &pointers))
        failure.error = ENOMEM;
    if (failure.error == 0)
        failure.error = secrets_open(&secrets, run);
    if (failure.error == 0) {
        struct spawn_request request = {.workdir = run->workdir,
                                        .argv = pointers.argv,
                                        .env = pointers.env,
                                        .in = terminal       ? ends.out
                                              : ends.in >= 0 ? ends.in
                                                             : runner->null_fd,
                                        .out = ends.out,
                                        .err = terminal ? ends.out : ends.err,
                                        .terminal = terminal,
                                        .cpu_limit_s = run->cpu_limit_s,
                                        .secrets = &secrets};
        task->begun_us = now_us();
        task->pid = spawn(runner, &request, &failure);
    }
    if (pointers.size > 0)
        munmap(pointers.memory, pointers.size);
    secrets_close(&secrets);
    close_fd(&ends.in);
    close_fd(&ends.err);
    task->exit.spawn_us = now_us() - begun;
    if (failure.error != 0) {
        close_fd(&ends.out);
        close_fd(&ends.to_in);
        close_fd(&ends.from_out);
        close_fd(&ends.from_err);
        task_not_started(runner, failure.error, failure.stage);
        return;
    }
    if (terminal) /* while it is open the other side does not end when the task closes its own for a moment */
        task->terminal_fd = ends.out;
    else
        close_fd(&ends.out);
    runner->phase = PHASE_RUNNING;
    runner->children = true;
    task->out.fd = ends.from_out;
    task->err.fd = ends.from_err;
    task->stdin_fd = ends.to_in;
    offer_to_oom_killer(task->pid);
    set_nonblocking(task->out.fd);
    set_nonblocking(task->err.fd);
    set_nonblocking(task->stdin_fd);
    if (run->timeout_ms != 0)
        task->deadline_us = task->begun_us + (uint64_t)run->timeout_ms * 1000;
}

/* --- stdin -------------------------------------------------------------------------------------------- */

static void send_credit(struct runner *runner, uint32_t bytes)
{
    struct message_credit credit = {.stream = WIRE_STDIN, .bytes = bytes};
    uint8_t payload[MESSAGE_CREDIT_BYTES];
    message_credit_encode(&credit, payload);
    conn_send(runner, FRAME_CREDIT, runner->task.number, payload, sizeof payload);
}

void task_stdin_unread(struct runner *runner)
{
    struct task_state *task = &runner->task;
    close_fd(&task->stdin_fd);
    task->stdin_start = task->stdin_end = 0;
    task->stdin_unread = true;
    if (runner->synced) /* else HELLO says so */
        send_credit(runner, UINT32_MAX);
}

/* What cannot be said for want of room, or of a daemon, is said together with what comes later: whoever brings stdin
 * byte by byte while output fills the link must not make it overflow. */
static void give_credit(struct runner *runner)
{
    struct task_state *task = &runner->task;
    bool enough = task->stdin_owed >= STDIN_CREDIT_INITIAL / 4 || task->stdin_end == 0;
    if (task->stdin_fd < 0 || task->stdin_owed == 0 || !enough || !conn_spare(runner))
        return;
    send_credit(runner, task->stdin_owed);
    task->stdin_credited += task->stdin_owed;
    task->stdin_owed = 0;
}

static void end_stdin(struct task_state *task)
{
    static const char end[] = {END_OF_FILE};
    if (task->stdin_fd >= 0 && task->terminal_fd >= 0) {
        ssize_t written = write(task->stdin_fd, end, sizeof end);
        (void)written;
    }
    close_fd(&task->stdin_fd);
}

void task_write_stdin(struct runner *runner)
{
    struct task_state *task = &runner->task;
    while (task->stdin_fd >= 0 && task->stdin_end > task->stdin_start) {
        ssize_t written =
            write(task->stdin_fd, runner->stdin_buffer + task->stdin_start, task->stdin_end - task->stdin_start);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EAGAIN)
            break;
        if (written < 0) {
            task_stdin_unread(runner);
            return;
        }
        task->stdin_start += (size_t)written;
        task->stdin_owed += (uint32_t)written;
    }
    if (task->stdin_start == task->stdin_end) {
        task->stdin_start = task->stdin_end = 0;
        if (task->stdin_eof)
            end_stdin(task);
    }
    give_credit(runner);
}

void task_stdin(struct runner *runner, const uint8_t *data, size_t size, bool eof)
{
    struct task_state *task = &runner->task;
    if (task->stdin_fd < 0 || task->stdin_eof)
        return;
    if (task->stdin_end + size > sizeof runner->stdin_buffer) {
        memmove(runner->stdin_buffer, runner->stdin_buffer + task->stdin_start, task->stdin_end - task->stdin_start);
        task->stdin_end -= task->stdin_start;
        task->stdin_start = 0;
    }
    if (task->stdin_end + size > sizeof runner->stdin_buffer) { /* more than the credit: none of it can be trusted */
        runner_log(runner, 1, "stdin beyond its credit");
        task_stdin_unread(runner);
        return;
    }
    memcpy(runner->stdin_buffer + task->stdin_end, data, size);
    task->stdin_end += size;
    if (task->stdin_end > runner->stdin_touched)
        runner->stdin_touched = task->stdin_end;
    task->stdin_received += size;
    task->stdin_eof = eof;
    task_write_stdin(runner);
}

/* --- output -------------------------------------------------------------------------------------------- */

void task_credit(struct runner *runner, const struct message_credit *credit)
{
    struct task_state *task = &runner->task;
    if (credit->stream == WIRE_STDOUT)
        task->out.granted += credit->bytes;
    else if (credit->stream == WIRE_STDERR)
        task->err.granted += credit->bytes;
}

void task_winch(struct runner *runner, const struct message_winch *winch)
{
    if (runner->task.terminal_fd >= 0)
        terminal_resize(runner->task.terminal_fd, winch->rows, winch->columns);
}

static void send_exit(struct runner *runner)
{
    uint8_t payload[MESSAGE_EXIT_BYTES];
    message_exit_encode(&runner->task.exit, payload);
    conn_send(runner, FRAME_EXIT, runner->task.number, payload, sizeof payload);
    runner->task.exit_due = false;
}

void task_flush(struct runner *runner)
{
    struct task_state *task = &runner->task;
    if (runner->phase == PHASE_IDLE || !runner->synced)
        return;
    give_credit(runner);
    stream_send(runner, &task->out);
    stream_send(runner, &task->err);
    if (task->exit_due && stream_sent(&task->out) && stream_sent(&task->err))
        send_exit(runner);
}

bool task_unsent(const struct runner *runner)
{
    const struct task_state *task = &runner->task;
    return runner->phase != PHASE_IDLE && runner->synced && runner->output_end == runner->output_start &&
           (!stream_sent(&task->out) || !stream_sent(&task->err));
}

void task_resume(struct runner *runner, const struct message_sync *sync, struct message_hello *hello)
{
    struct task_state *task = &runner->task;
    hello->task_state = HELLO_TASK_NONE;
    if (runner->phase == PHASE_IDLE)
        return;
    hello->task = task->number;
    hello->task_state = runner->phase == PHASE_EXITED ? HELLO_TASK_EXITED : HELLO_TASK_RUNNING;
    bool known = sync->task == task->number;
    stream_resume(&task->out, known ? sync->received[0] : 0, known ? sync->granted[0] : task->out.granted);
    stream_resume(&task->err, known ? sync->received[1] : 0, known ? sync->granted[1] : task->err.granted);
    hello->resumed[0] = task->out.sent;
    hello->resumed[1] = task->err.sent;
    hello->stdin_received = task->stdin_received;
    hello->stdin_consumed = task->stdin_unread ? UINT64_MAX : task->stdin_credited;
    task->exit_due = runner->phase == PHASE_EXITED;
}

/* --- the end ------------------------------------------------------------------------------------------- */

static bool keeps_background(const struct task_state *task)
{
    return (task->flags & RUN_FLAG_KEEP_BACKGROUND) != 0;
}

/* To all processes; in a lease to those of the session that the task was begun in. */
static void signal_all(const struct runner *runner, int signal)
{
    if (keeps_background(&runner->task))
        signal_session(runner, runner->task.pid, signal);
    else
        kill(-1, signal);
}

void task_cancel(struct runner *runner, uint32_t grace_ms)
{
    struct task_state *task = &runner->task;
    if (runner->phase != PHASE_RUNNING && runner->phase != PHASE_DRAINING)
        return;
    uint64_t now = now_us();
    if (task->ended_by == 0)
        task->ended_by = EXIT_CANCELLED;
    if (runner->phase == PHASE_DRAINING) { /* nobody waits for the rest */
        task->drain_us = now;
        return;
    }
    if (grace_ms > 0 && task->kill_us == 0)
        signal_all(runner, SIGTERM);
    uint64_t kill_us = now + (uint64_t)grace_ms * 1000;
    if (task->kill_us == 0 || kill_us < task->kill_us)
        task->kill_us = kill_us;
}

static void note_main_exit(struct runner *runner, int status, const struct rusage *usage)
{
    struct task_state *task = &runner->task;
    struct message_exit *exit = &task->exit;
    exit->wall_us = now_us() - task->begun_us;
    exit->user_us = (uint64_t)usage->ru_utime.tv_sec * 1000000U + (uint64_t)usage->ru_utime.tv_usec;
    exit->system_us = (uint64_t)usage->ru_stime.tv_sec * 1000000U + (uint64_t)usage->ru_stime.tv_usec;
    exit->disk_bytes = ((uint64_t)usage->ru_inblock + (uint64_t)usage->ru_oublock) * 512U;
    exit->peak_bytes = (uint64_t)usage->ru_maxrss * 1024U;
    exit->peak_source = PEAK_RUSAGE;
    if (WIFSIGNALED(status)) {
        exit->signal = (uint32_t)WTERMSIG(status);
        exit->outcome = EXIT_SIGNALED;
    } else {
        exit->exit_code = (uint8_t)WEXITSTATUS(status);
        exit->outcome = EXIT_EXITED;
    }
    runner->phase = PHASE_DRAINING;
    close_fd(&task->stdin_fd);
    close_fd(&task->terminal_fd);
    if (task->ended_by != 0) /* what it wrote before it was ended is worth a moment, not more */
        task->drain_us = now_us() + DRAIN_LIMIT_US;
}

/* Reaps all that has ended; false when there is no child left. */
static bool reap(struct runner *runner)
{
    for (;;) {
        int status;
        struct rusage usage;
        pid_t pid = wait4(-1, &status, WNOHANG, &usage);
        if (pid == 0)
            return true;
        if (pid < 0)
            return errno == EINTR;
        if (pid == runner->task.pid && runner->phase == PHASE_RUNNING)
            note_main_exit(runner, status, &usage);
        else if (runner->phase == PHASE_DRAINING)
            runner->task.exit.killed++;
    }
}

static void limit_to_present(struct stream *stream, bool terminal)
{
    int present = 0;
    if (terminal) { /* nobody writes to it any more: it was hung up when the main process ended */
        stream->left = LEFT_TO_EMPTY;
        return;
    }
    if (stream->fd >= 0 && ioctl(stream->fd, FIONREAD, &present) == 0)
        stream->left = present;
}

static void begin_draining(struct runner *runner)
{
    struct task_state *task = &runner->task;
    if (!keeps_background(task)) {
        if (runner->children && !weakened(NULL, "kill"))
            kill(-1, SIGKILL);
        return;
    }
    if (task->ended_by != 0)
        signal_all(runner, SIGKILL);
    limit_to_present(&task->out, (task->flags & RUN_FLAG_TERMINAL) != 0);
    limit_to_present(&task->err, false);
}

static void finish(struct runner *runner)
{
    struct task_state *task = &runner->task;
    if (keeps_background(task)) {
        kept_add(runner, task->out.fd);
        kept_add(runner, task->err.fd);
        task->out.fd = task->err.fd = -1;
    }
    close_fd(&task->out.fd);
    close_fd(&task->err.fd);
    figures_exit(&runner->figures, &task->exit, task->killed);
    if (task->ended_by != 0)
        task->exit.outcome = task->ended_by;
    runner->phase = PHASE_EXITED;
    task->exit_due = true;
}

static bool drained(const struct stream *stream)
{
    return stream->fd < 0 || stream->left == 0;
}

static void drain(struct runner *runner, uint64_t now)
{
    struct task_state *task = &runner->task;
    stream_read(&task->out);
    stream_read(&task->err);
    task_flush(runner);
    if (drained(&task->out) && drained(&task->err)) {
        finish(runner);
        return;
    }
    if (task->deadline_us != 0 && now >= task->deadline_us && task->ended_by == 0) {
        task->ended_by = EXIT_TIMED_OUT; /* the reader was too slow */
        task->drain_us = now;
    }
    if (task->drain_us != 0 && now >= task->drain_us) {
        finish(runner);
        return;
    }
    if (task->ended_by != 0)
        return;
    /* Whoever else holds a pipe open is dying, unless it cannot: then the rest of its output is not waited for. */
    bool waits_for_reader = (!drained(&task->out) && !stream_readable(&task->out)) ||
                            (!drained(&task->err) && !stream_readable(&task->err));
    if (waits_for_reader)
        task->drain_us = 0;
    else if (task->drain_us == 0)
        task->drain_us = now + DRAIN_LIMIT_US;
}

static void check_deadline(struct runner *runner, uint64_t now)
{
    struct task_state *task = &runner->task;
    if (task->deadline_us != 0 && now >= task->deadline_us && task->ended_by == 0) {
        task->ended_by = EXIT_TIMED_OUT;
        signal_all(runner, SIGTERM);
        signal_all(runner, SIGCONT); /* a stopped process cannot act on the other */
        task->kill_us = now + (uint64_t)task->kill_timeout_ms * 1000;
        if (task->kill_us == 0)
            task->kill_us = 1;
    }
    if (task->kill_us != 0 && now >= task->kill_us) {
        task->killed = true;
        signal_all(runner, SIGKILL);
        task->kill_us = now + KILL_AGAIN_US;
    }
}

void task_step(struct runner *runner)
{
    if (!runner->children && runner->phase != PHASE_DRAINING)
        return;
    uint64_t now = now_us();
    if (runner->phase == PHASE_RUNNING)
        check_deadline(runner, now);
    bool was_running = runner->phase == PHASE_RUNNING;
    if (runner->children)
        runner->children = reap(runner);
    if (was_running && runner->phase == PHASE_DRAINING)
        begin_draining(runner);
    if (runner->phase == PHASE_DRAINING)
        drain(runner, now);
}

uint64_t task_wakeup(const struct runner *runner)
{
    const struct task_state *task = &runner->task;
    if (runner->phase == PHASE_RUNNING)
        return task->kill_us != 0 ? task->kill_us : task->deadline_us;
    if (runner->phase == PHASE_DRAINING)
        return task->drain_us != 0 &&
                       (task->deadline_us == 0 || task->ended_by != 0 || task->drain_us < task->deadline_us)
                   ? task->drain_us
                   : task->deadline_us;
    return 0;
}
