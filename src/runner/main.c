#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runner/filter.h"
#include "runner/runner.h"
#include "wire/weaken.h"

extern char **environ;

uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000U + (uint64_t)now.tv_nsec / 1000U;
}

static void on_child(int number)
{
    (void)number; /* ends ppoll() */
}

static void say(const char *text)
{
    ssize_t written = write(2, text, strlen(text));
    (void)written;
}

static void open_standard_descriptors(struct runner *runner)
{
    runner->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= 2 && runner->null_fd >= 0; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            dup2(runner->null_fd, fd);
    /* What a faulty engine left open must not reach a task. */
    for (int fd = 3; fd < 64; fd++)
        if (fd != runner->null_fd)
            close(fd);
    runner->cwd_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static void prepare_signals(struct runner *runner)
{
    /* What whoever started the engine had ignored is none of the tasks' business. */
    for (int number = 1; number < _NSIG; number++)
        if (number != SIGKILL && number != SIGSTOP)
            signal(number, SIG_DFL);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    sigemptyset(&runner->wait_mask);
    struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_NOCLDSTOP};
    sigaction(SIGCHLD, &action, NULL);
    action = (struct sigaction){.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &action, NULL);
}

static bool parse_number(const char *text, uint64_t *value)
{
    *value = 0;
    if (*text == '\0' || strlen(text) > 15)
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        *value = *value * 10 + (uint64_t)(*text - '0');
    }
    return true;
}

static bool parse_arguments(struct runner *runner, char *argv[])
{
    bool attach = false;
    for (int i = 1; argv[i] != NULL; i++) {
        uint64_t milliseconds;
        if (strcmp(argv[i], "--socket") == 0 && argv[i + 1] != NULL) {
            runner->socket_path = argv[++i];
        } else if (strcmp(argv[i], "--attach") == 0) {
            attach = true;
        } else if (strcmp(argv[i], "--orphan-timeout") == 0 && argv[i + 1] != NULL &&
                   parse_number(argv[i + 1], &milliseconds)) {
            runner->orphan_timeout_us = milliseconds * 1000;
            i++;
#ifdef WARMPOOL_WEAKEN
        } else if (strcmp(argv[i], "--weaken") == 0 && argv[i + 1] != NULL) {
            weaken_set(argv[++i]);
#endif
        } else if (argv[i][0] == '/' && runner->mount_count < RECEIPT_MOUNTS_MAX) {
            runner->mounts[runner->mount_count++] = argv[i];
        } else {
            say("warmpool-runner: usage: runner --socket PATH|--attach [--orphan-timeout MS] MOUNT...\n");
            return false;
        }
    }
    if ((runner->socket_path != NULL) == attach)
        say("warmpool-runner: either --socket or --attach has to be given\n");
    return (runner->socket_path != NULL) != attach;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    if (a == 0 || b == 0)
        return a == 0 ? b : a;
    return a < b ? a : b;
}

static uint64_t next_wakeup(const struct runner *runner)
{
    uint64_t when = earlier(task_wakeup(runner), link_wakeup(runner));
    return when;
}

static void add(struct pollfd *set, unsigned *count, int fd, short events, unsigned *index)
{
    *index = *count;
    set[(*count)++] = (struct pollfd){.fd = fd, .events = events};
}

#define NOT_POLLED UINT32_MAX

/* One turn: wait for something, then handle all of it. */
static void turn(struct runner *runner)
{
    struct pollfd set[5 + KEPT_MAX];
    unsigned count = 0, conn = NOT_POLLED, pending = NOT_POLLED, out = NOT_POLLED, err = NOT_POLLED, in = NOT_POLLED;
    if (runner->fd >= 0 && runner->connect_us == 0)
        add(set, &count, runner->fd, POLLIN, &conn);
    if (runner->out_fd >= 0 && runner->synced && runner->output_end > runner->output_start)
        add(set, &count, runner->out_fd, POLLOUT, &pending);
    if (stream_readable(&runner->task.out))
        add(set, &count, runner->task.out.fd, POLLIN, &out);
    if (stream_readable(&runner->task.err))
        add(set, &count, runner->task.err.fd, POLLIN, &err);
    if (runner->task.stdin_fd >= 0) /* POLLERR, when nobody reads any more, comes unasked */
        add(set, &count, runner->task.stdin_fd, runner->task.stdin_end > runner->task.stdin_start ? POLLOUT : 0, &in);
    unsigned kept = count;
    for (unsigned i = 0; i < runner->kept_count; i++)
        set[count++] = (struct pollfd){.fd = runner->kept[i], .events = POLLIN};

    struct timespec timeout, *wait = NULL;
    uint64_t when = next_wakeup(runner);
    if (when != 0) {
        uint64_t now = now_us();
        uint64_t delay = when > now ? when - now : 0;
        timeout = (struct timespec){.tv_sec = (time_t)(delay / 1000000), .tv_nsec = (long)(delay % 1000000) * 1000};
        wait = &timeout;
    }
    if (files_ready(runner) || task_unsent(runner)) {
        timeout = (struct timespec){0};
        wait = &timeout;
    }
    int ready = ppoll(set, count, wait, &runner->wait_mask);
    if (ready > 0) {
        if (pending != NOT_POLLED && set[pending].revents != 0)
            link_flush(runner);
        if (out != NOT_POLLED && set[out].revents != 0)
            stream_read(&runner->task.out);
        if (err != NOT_POLLED && set[err].revents != 0)
            stream_read(&runner->task.err);
        if (in != NOT_POLLED && (set[in].revents & POLLERR))
            task_stdin_unread(runner);
        else if (in != NOT_POLLED && set[in].revents != 0)
            task_write_stdin(runner);
        if (conn != NOT_POLLED && runner->fd >= 0 && (set[conn].revents & (POLLIN | POLLHUP | POLLERR)))
            link_read(runner);
        for (unsigned i = kept; i < count && runner->kept_count > 0; i++)
            if (set[i].revents != 0)
                kept_read(runner, set[i].fd);
    }
    task_step(runner);
    task_flush(runner);
    files_step(runner);
    uint64_t now = now_us();
    if (link_orphaned(runner, now))
        _exit(0); /* nobody came back: the container ends with PID 1 */
    if (runner->connect_us != 0 && now >= runner->connect_us)
        link_try(runner);
    link_flush(runner);
}

static struct runner the_runner; /* too large for the stack */

int main(int argc, char *argv[])
{
    if (argc == 2 && strcmp(argv[1], "--noop") == 0)
        return 0;
    if (argc == 3 && strcmp(argv[1], "--canary") == 0)
        return canary(argv[2]);
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        say("warmpool-runner " WARMPOOL_VERSION "\n");
        return 0;
    }
    struct runner *runner = &the_runner;
    if (!parse_arguments(runner, argv))
        return 2;
    if (getpid() != 1) {
        say("warmpool-runner: it is made to be PID 1 of a container\n");
        return 2;
    }
    runner->self = argv[0];
    runner->environment = environ;
    runner->fd = runner->out_fd = -1;
    runner->input = runner->input_small;
    runner->input_size = sizeof runner->input_small;
    runner->task.out.fd = runner->task.err.fd = runner->task.stdin_fd = runner->task.terminal_fd = -1;
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* is so from exec on where the file can only be executed */
    umask(022);
    open_standard_descriptors(runner);
    if (runner->socket_path == NULL && !link_open_attach(runner)) {
        say("warmpool-runner: " SYNC_TOKEN_VARIABLE " is missing\n");
        return 2;
    }
    prepare_signals(runner);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int refused = filter_install();
    if (refused != 0)
        runner->warning = "the system call filter could not be installed";
    if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
        runner->warning = "PID 1 is dumpable: tasks of the same uid can read it";
    figures_open(&runner->figures);
    figures_read(&runner->figures);
    runner->figures_fresh = true;
    residue_open(runner);
    runner->orphaned_us = now_us();
    if (runner->socket_path != NULL)
        runner->connect_us = runner->orphaned_us;
    for (;;)
        turn(runner);
}
