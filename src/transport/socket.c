#include "transport/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BACKLOG           1024
#define ACCEPTS_PER_ROUND 64
#define READ_BYTES        (256U * 1024U)
#define READS_PER_ROUND   4 /* then the loop's other work gets its turn */

struct socket_listener {
    uv_poll_t poll;
    int fd;
    int64_t pid;
    uint64_t started; /* of that process, in clock ticks since the boot; 0: it was not there, nobody is heard */
    socket_accepted_fn *accepted;
    socket_refused_fn *refused;
    void *user;
};

struct socket_carrier {
    uv_poll_t poll;
    int fd; /* -1: closed */
    int events;
    struct runner_conn *conn;
};

/* --- carrier ---------------------------------------------------------------------------------------- */

static void carrier_freed(uv_handle_t *handle)
{
    free(handle->data);
}

static void carrier_close(void *data)
{
    struct socket_carrier *carrier = data;
    if (carrier->fd < 0)
        return;
    uv_poll_stop(&carrier->poll);
    close(carrier->fd);
    carrier->fd = -1;
    carrier->conn = NULL;
    uv_close((uv_handle_t *)&carrier->poll, carrier_freed);
}

static ssize_t carrier_write(void *data, const void *bytes, size_t size)
{
    struct socket_carrier *carrier = data;
    ssize_t written = send(carrier->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    return written < 0 ? 0 : written;
}

static void carrier_abort(void *data)
{
    struct socket_carrier *carrier = data;
    shutdown(carrier->fd, SHUT_RDWR);
}

static void carrier_ready(uv_poll_t *poll, int status, int events);

static void carrier_watch(struct socket_carrier *carrier, int events)
{
    if (carrier->events == events)
        return;
    carrier->events = events;
    uv_poll_start(&carrier->poll, events, carrier_ready);
}

static void carrier_want_write(void *data)
{
    carrier_watch(data, UV_READABLE | UV_WRITABLE);
}

static void carrier_read(struct socket_carrier *carrier)
{
    uint8_t bytes[RUNNER_PENDING_MAX + READ_BYTES];
    for (int round = 0; round < READS_PER_ROUND && carrier->fd >= 0; round++) {
        size_t pending = runner_conn_take_pending(carrier->conn, bytes);
        ssize_t got = recv(carrier->fd, bytes + pending, READ_BYTES, MSG_DONTWAIT);
        int error_number = errno;
        if (got > 0 || pending > 0)
            runner_conn_feed(carrier->conn, bytes, pending + (got > 0 ? (size_t)got : 0));
        if (got > 0) {
            if ((size_t)got < READ_BYTES)
                return;
            continue;
        }
        errno = error_number;
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        struct error error = ERROR_INIT;
        if (got == 0)
            error_set(&error, ERROR_UNAVAILABLE, "the runner closed its connection");
        else
            error_errno(&error, errno, "reading from the runner");
        runner_conn_broken(carrier->conn, &error);
        return;
    }
}

static void carrier_ready(uv_poll_t *poll, int status, int events)
{
    struct socket_carrier *carrier = poll->data;
    if (carrier->fd < 0)
        return;
    if (events & UV_WRITABLE) {
        carrier_watch(carrier, UV_READABLE);
        runner_conn_flush(carrier->conn);
    }
    if (carrier->fd >= 0 && ((events & (UV_READABLE | UV_DISCONNECT)) || status < 0))
        carrier_read(carrier);
}

static const struct carrier_ops carrier_ops = {
    .write = carrier_write,
    .want_write = carrier_want_write,
    .abort = carrier_abort,
    .close = carrier_close,
};

int socket_carrier_bind(void *data, struct runner_conn *conn)
{
    struct socket_carrier *carrier = data;
    carrier->conn = conn;
    carrier->events = UV_READABLE;
    return uv_poll_start(&carrier->poll, UV_READABLE, carrier_ready);
}

/* --- who connects ------------------------------------------------------------------------------------ */

/* When a process was started, which with its pid tells it from all that had or will have the same pid. 0: there is
 * none, or it has ended. */
static uint64_t start_time(int64_t pid)
{
    char path[48], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[got > 0 ? got : 0] = '\0';
    const char *at = strrchr(text, ')'); /* its name may have anything in it */
    if (at == NULL || at[1] == '\0' || strchr("ZXx", at[2]) != NULL)
        return 0;
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at == NULL ? 0 : strtoull(at, NULL, 10);
}

static bool is_expected(const struct socket_listener *listener, int64_t pid)
{
    return pid == listener->pid && listener->started != 0 && start_time(pid) == listener->started;
}

/* --- listener --------------------------------------------------------------------------------------- */

static void listener_accept(struct socket_listener *listener)
{
    for (int i = 0; i < ACCEPTS_PER_ROUND && listener->fd >= 0; i++) {
        _cleanup_close_ int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        struct ucred peer;
        socklen_t size = sizeof peer;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
            continue;
        if (!is_expected(listener, peer.pid)) {
            listener->refused(listener->user, peer.pid);
            continue;
        }
        struct socket_carrier *carrier = calloc(1, sizeof *carrier);
        if (carrier == NULL)
            continue;
        carrier->poll.data = carrier;
        if (uv_poll_init(listener->poll.loop, &carrier->poll, fd) < 0) {
            free(carrier);
            continue;
        }
        carrier->fd = fd;
        fd = -1; /* consumed */
        listener->accepted(listener->user, &carrier_ops, carrier);
    }
}

static void listener_ready(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    listener_accept(poll->data);
}

static int listen_at(int dir_fd, const char *name, struct error *err)
{
    /* The path goes through /proc/self/fd: a state directory may be deeper than a socket address is long. */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", dir_fd, name);
    if (length < 0 || (size_t)length >= sizeof address.sun_path)
        return error_set(err, ERROR_INVALID, "socket name \"%s\" is too long", name);
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_errno(err, errno, "making a socket for a runner");
    if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
        return error_errno(err, errno, "removing the old socket \"%s\"", name);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return error_errno(err, errno, "binding a runner's socket");
    /* Any uid of the container may connect; the pid decides who is heard. */
    if (fchmodat(dir_fd, name, 0222, 0) < 0)
        return error_errno(err, errno, "opening a runner's socket to its container");
    if (listen(fd, BACKLOG) < 0)
        return error_errno(err, errno, "listening for a runner");
    int result = fd;
    fd = -1; /* consumed */
    return result;
}

struct socket_listener *socket_listener_new(uv_loop_t *loop, int dir_fd, const char *name, socket_accepted_fn *accepted,
                                            socket_refused_fn *refused, void *user, struct error *err)
{
    struct socket_listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL) {
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    listener->fd = listen_at(dir_fd, name, err);
    if (listener->fd < 0) {
        free(listener);
        return NULL;
    }
    listener->accepted = accepted;
    listener->refused = refused;
    listener->user = user;
    listener->poll.data = listener;
    int failed = uv_poll_init(loop, &listener->poll, listener->fd);
    if (failed < 0) {
        error_set(err, ERROR_SYSTEM, "watching a runner's socket: %s", uv_strerror(failed));
        close(listener->fd);
        free(listener);
        return NULL;
    }
    return listener;
}

int socket_listener_start(struct socket_listener *listener, int64_t pid, struct error *err)
{
    listener->pid = pid;
    listener->started = start_time(pid);
    int failed = uv_poll_start(&listener->poll, UV_READABLE, listener_ready);
    if (failed < 0)
        return error_set(err, ERROR_SYSTEM, "watching a runner's socket: %s", uv_strerror(failed));
    return 0;
}

static void listener_freed(uv_handle_t *handle)
{
    free(handle->data);
}

struct socket_listener *socket_listener_free(struct socket_listener *listener)
{
    if (listener == NULL)
        return NULL;
    uv_poll_stop(&listener->poll);
    close(listener->fd);
    listener->fd = -1;
    uv_close((uv_handle_t *)&listener->poll, listener_freed);
    return NULL;
}
