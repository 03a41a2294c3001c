#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/internal.h"
#include "api/result.h"
#include "base/cleanup.h"

#define BACKLOG           1024
#define CONNECTIONS_MAX   1024U
#define IDLE_SECONDS      120U
#define CONNECTION_MEMORY (32U * 1024U)
#define RUNS_PER_TURN     4
#define RUNS_AT_END       64
#define LOCK_ATTEMPTS     5
#define DISCARD_MAX       (4U * BODY_MAX) /* of a body that is too large, before the connection is cut */

/* --- libmicrohttpd on the loop ------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer);

void server_run(struct api_server *server)
{
    if (server->running) {
        server->again = true;
        return;
    }
    if (server->http == NULL)
        return;
    server->running = true;
    int runs = 0;
    do {
        server->again = false;
        MHD_run(server->http);
    } while (server->again && ++runs < RUNS_PER_TURN);
    server->running = false;
    MHD_UNSIGNED_LONG_LONG timeout;
    if (server->again)
        uv_timer_start(&server->timer, on_timer, 0, 0);
    else if (MHD_get_timeout(server->http, &timeout) == MHD_YES)
        uv_timer_start(&server->timer, on_timer, timeout, 0);
    else
        uv_timer_stop(&server->timer);
}

static void on_timer(uv_timer_t *timer)
{
    server_run(timer->data);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    server_run(poll->data);
}

/* 0 when the client does not say. */
static uint64_t announced_length(struct MHD_Connection *connection)
{
    const char *text = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return text == NULL ? 0 : strtoull(text, NULL, 10);
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **state)
{
    struct api_server *server = user;
    struct exchange *exchange = *state;
    (void)version;
    if (exchange == NULL) {
        exchange = *state = exchange_new(server, connection);
        if (exchange == NULL)
            return MHD_NO;
        return announced_length(connection) > BODY_MAX ? exchange_too_large(exchange) : MHD_YES;
    }
    if (*size > 0) {
        exchange->received += *size;
        if (exchange->received <= BODY_MAX)
            buffer_append(&exchange->body, data, *size);
        /* It is libmicrohttpd's own buffer, which is done with what was taken; there may be secrets in it. */
        explicit_bzero((void *)(uintptr_t)data, *size);
        *size = 0;
        return exchange->received <= DISCARD_MAX ? MHD_YES : MHD_NO;
    }
    if (exchange->received > BODY_MAX && !exchange->answered)
        return exchange_too_large(exchange);
    return route(exchange, method, url);
}

static void on_completed(void *user, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    struct exchange *exchange = *state;
    (void)user;
    (void)connection;
    (void)code;
    if (exchange == NULL)
        return;
    *state = NULL;
    exchange->connection = NULL;
    if (exchange->upgraded != NULL)
        upgrade_abort(exchange);
    exchange_release(exchange);
}

static void drop_log(void *user, const char *format, va_list arguments)
{
    (void)user;
    (void)format;
    (void)arguments;
}

/* --- results of the recent past ---------------------------------------------------------------------------------- */

void server_remember(struct api_server *server, const struct task_result *result)
{
    struct buffer text = {0};
    struct recent *recent = &server->recent[server->recent_next++ % RECENT_RESULTS];
    result_write(&text, result, false);
    free(recent->json);
    recent->json = buffer_take(&text, NULL);
    buffer_free(&text);
    snprintf(recent->id, sizeof recent->id, "%s", result->task_id);
}

const char *server_recall(const struct api_server *server, const char *id)
{
    for (unsigned i = 1; i <= RECENT_RESULTS; i++) { /* the newest first: a client may have used an id again */
        const struct recent *recent = &server->recent[(server->recent_next - i) % RECENT_RESULTS];
        if (recent->json != NULL && strcmp(recent->id, id) == 0)
            return recent->json;
    }
    return NULL;
}

/* --- the socket ----------------------------------------------------------------------------------------------------
 */

static int make_parent(const char *path, struct error *err)
{
    char parent[512];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash == NULL || slash == parent)
        return 0;
    *slash = '\0';
    for (char *at = strchr(parent + 1, '/');; at = strchr(at + 1, '/')) {
        if (at != NULL)
            *at = '\0';
        if (mkdir(parent, 0755) < 0 && errno != EEXIST)
            return error_errno(err, errno, "making the directory %s for the socket", parent);
        if (at == NULL)
            return 0;
        *at = '/';
    }
}

/* Held for the daemon's life, so that of two that start at once one wins. A daemon that ends removes the file: a lock
 * on what is no longer there under that name holds nobody off, and is taken again. */
static int lock_socket(struct api_server *server, struct error *err)
{
    for (int attempt = 0; attempt < LOCK_ATTEMPTS; attempt++) {
        struct stat held, named;
        server->lock_fd = open(server->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (server->lock_fd < 0)
            return error_errno(err, errno, "opening %s", server->lock_path);
        if (flock(server->lock_fd, LOCK_EX | LOCK_NB) < 0)
            break;
        if (fstat(server->lock_fd, &held) == 0 && stat(server->lock_path, &named) == 0 && held.st_ino == named.st_ino &&
            held.st_dev == named.st_dev)
            return 0;
        close(server->lock_fd);
        server->lock_fd = -1;
    }
    return error_set(err, ERROR_CONFLICT,
                     "another warmpool daemon listens on %s; stop it (warmpool down) or choose another socket",
                     server->socket_path);
}

/* A socket file of a dead daemon is removed; anything else that is in the way is not ours. */
static int clear_path(const struct sockaddr_un *address, struct error *err)
{
    struct stat status;
    if (lstat(address->sun_path, &status) < 0)
        return 0;
    if (!S_ISSOCK(status.st_mode))
        return error_set(err, ERROR_CONFLICT, "%s exists and is no socket; remove it or choose another socket",
                         address->sun_path);
    _cleanup_close_ int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe >= 0 && (connect(probe, (const struct sockaddr *)address, sizeof *address) == 0 || errno == EAGAIN))
        return error_set(err, ERROR_CONFLICT, "something answers on %s already; stop it or choose another socket",
                         address->sun_path);
    if (unlink(address->sun_path) < 0)
        return error_errno(err, errno, "removing the old socket %s", address->sun_path);
    return 0;
}

static int listen_on_path(struct api_server *server, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(server->socket_path) >= sizeof address.sun_path)
        return error_set(err, ERROR_INVALID, "the socket path %s is longer than %zu bytes", server->socket_path,
                         sizeof address.sun_path - 1);
    strcpy(address.sun_path, server->socket_path);
    if (make_parent(server->socket_path, err) < 0 || lock_socket(server, err) < 0 || clear_path(&address, err) < 0)
        return -1;
    server->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->listen_fd < 0)
        return error_errno(err, errno, "making the API's socket");
    mode_t mask = umask(0117); /* 0660 from its first moment */
    int bound = bind(server->listen_fd, (struct sockaddr *)&address, sizeof address);
    int why = errno;
    umask(mask);
    if (bound < 0)
        return error_errno(err, why, "binding %s", server->socket_path);
    const struct group *group = getgrnam("warmpool");
    if (group != NULL && chown(server->socket_path, (uid_t)-1, group->gr_gid) < 0)
        log_warn(server->log, "the socket could not be given to the group warmpool: %s", strerror(errno));
    if (listen(server->listen_fd, BACKLOG) < 0)
        return error_errno(err, errno, "listening on %s", server->socket_path);
    return 0;
}

/* --- open and close
 * ---------------------------------------------------------------------------------------------------- */

static void server_free(struct api_server *server)
{
    if (server->listen_fd >= 0)
        close(server->listen_fd);
    if (server->lock_fd >= 0)
        close(server->lock_fd);
    for (unsigned i = 0; i < RECENT_RESULTS; i++)
        free(server->recent[i].json);
    free(server->socket_path);
    free(server->lock_path);
    free(server);
}

struct api_server *api_server_open(const struct api_options *options, struct error *err)
{
    struct api_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    server->loop = options->loop;
    server->executor = options->executor;
    server->config = options->config;
    server->log = options->log;
    server->shutdown = options->shutdown;
    server->reload = options->reload;
    server->user = options->user;
    server->lock_fd = server->listen_fd = -1;
    list_init(&server->exchanges);
    list_init(&server->upgrades);
    list_init(&server->subscribers);
    server->socket_path = strdup(options->socket);
    if (server->socket_path == NULL || asprintf(&server->lock_path, "%s.lock", options->socket) < 0) {
        error_set(err, ERROR_NOMEM, "out of memory");
        goto failed;
    }
    if (listen_on_path(server, err) < 0)
        goto failed;
    server->http = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE, 0, NULL, NULL, on_request, server,
        MHD_OPTION_LISTEN_SOCKET, server->listen_fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
        MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS,
        MHD_OPTION_NOTIFY_CONNECTION, leases_connection, NULL, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_MEMORY, MHD_OPTION_EXTERNAL_LOGGER, drop_log, NULL, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        server->http == NULL ? NULL : MHD_get_daemon_info(server->http, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL) {
        error_set(err, ERROR_SYSTEM, "the HTTP server could not be started");
        if (server->http != NULL)
            MHD_stop_daemon(server->http);
        goto failed;
    }
    server->listen_fd = -1; /* consumed by libmicrohttpd */
    uv_poll_init(server->loop, &server->poll, info->epoll_fd);
    uv_timer_init(server->loop, &server->timer);
    uv_timer_init(server->loop, &server->events_timer);
    server->poll.data = server->timer.data = server->events_timer.data = server;
    uv_poll_start(&server->poll, UV_READABLE, on_readable);
    return server;
failed:
    server_free(server);
    return NULL;
}

void api_server_configure(struct api_server *server, const struct config *config)
{
    if (server != NULL)
        server->config = config;
}

/* Last words leave, of those who read: a subscriber's end takes some steps of its connection. */
static void let_leave(struct api_server *server)
{
    for (int i = 0; i < RUNS_PER_TURN || (i < RUNS_AT_END && !list_empty(&server->subscribers)); i++)
        server_run(server);
}

void api_server_detach(struct api_server *server)
{
    server->executor = NULL;
    events_stop(server);
    let_leave(server);
}

void server_handle_closed(struct api_server *server)
{
    if (--server->handles > 0 || !server->closing)
        return;
    void (*closed)(void *) = server->closed;
    void *user = server->closed_user;
    server_free(server);
    if (closed != NULL)
        closed(user);
}

static void on_handle_closed(uv_handle_t *handle)
{
    server_handle_closed(handle->data);
}

void api_server_close(struct api_server *server, void (*closed)(void *user), void *user)
{
    server->closing = true; /* from here on nothing is suspended: libmicrohttpd does not stop with such connections */
    events_stop(server);
    server->executor = NULL;
    server->closed = closed;
    server->closed_user = user;
    server->handles++; /* this function's own */
    unlink(server->socket_path);
    unlink(server->lock_path);
    upgrades_close(server);
    list_for_each_safe (node, &server->exchanges) {
        struct exchange *exchange = list_entry(node, struct exchange, link);
        if (exchange->suspended)
            exchange_resume(exchange);
    }
    let_leave(server);
    struct MHD_Daemon *http = server->http;
    uv_poll_stop(&server->poll);
    server->running = true; /* nothing lets it run again */
    MHD_stop_daemon(http);
    server->http = NULL;
    server->handles += 3;
    uv_close((uv_handle_t *)&server->poll, on_handle_closed);
    uv_close((uv_handle_t *)&server->events_timer, on_handle_closed);
    uv_close((uv_handle_t *)&server->timer, on_handle_closed);
    server_handle_closed(server);
}
