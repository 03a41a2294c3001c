/* One request on one connection. While its task runs the connection is suspended, and libmicrohttpd looks at it no
 * more: a client that goes away is noticed by watching a duplicate of its descriptor. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/internal.h"
#include "api/result.h"

struct watch {
    uv_poll_t poll;
    struct exchange *exchange; /* NULL once it has ended */
    struct api_server *server;
    int fd;
};

struct exchange *exchange_new(struct api_server *server, struct MHD_Connection *connection)
{
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (exchange == NULL)
        return NULL;
    exchange->server = server;
    exchange->connection = connection;
    exchange->holds = 1;
    exchange->body.wipe = true; /* there may be secrets in it */
    list_push_back(&server->exchanges, &exchange->link);
    return exchange;
}

void exchange_release(struct exchange *exchange)
{
    if (--exchange->holds > 0)
        return;
    exchange_unwatch(exchange);
    if (exchange->task != NULL)
        executor_task_abandon(exchange->task);
    lease_forgotten(exchange);
    events_unsubscribe(exchange);
    free(exchange->put);
    list_remove(&exchange->link);
    buffer_free(&exchange->body);
    buffer_free(&exchange->answer);
    buffer_free(&exchange->tail[0]);
    buffer_free(&exchange->tail[1]);
    free(exchange);
}

void exchange_suspend(struct exchange *exchange)
{
    if (exchange->suspended)
        return;
    exchange->suspended = true;
    MHD_suspend_connection(exchange->connection);
}

void exchange_resume(struct exchange *exchange)
{
    if (!exchange->suspended)
        return;
    exchange->suspended = false;
    MHD_resume_connection(exchange->connection);
}

/* --- the watch ------------------------------------------------------------------------------------------------ */

static void watch_closed(uv_handle_t *handle)
{
    struct watch *watch = handle->data;
    struct api_server *server = watch->server;
    free(watch);
    server_handle_closed(server);
}

static void on_disconnect(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    struct exchange *exchange = watch->exchange;
    if (exchange == NULL || (status == 0 && (events & UV_DISCONNECT) == 0))
        return;
    struct task *task = exchange->task;
    exchange->task = NULL;
    exchange->ended = true;
    exchange->status = 0; /* nobody reads an answer */
    exchange_unwatch(exchange);
    if (task != NULL)
        executor_task_abandon(task);
    lease_forgotten(exchange);
    exchange_resume(exchange);
    server_run(exchange->server);
}

void exchange_watch(struct exchange *exchange)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(exchange->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct watch *watch = calloc(1, sizeof *watch);
    int fd = info == NULL ? -1 : dup(info->connect_fd);
    if (watch == NULL || fd < 0 || uv_poll_init(exchange->server->loop, &watch->poll, fd) < 0) {
        /* Without a watch the task still ends at its deadline. */
        free(watch);
        if (fd >= 0)
            close(fd);
        return;
    }
    watch->poll.data = watch;
    watch->exchange = exchange;
    watch->server = exchange->server;
    watch->fd = fd;
    exchange->watch = watch;
    exchange->server->handles++;
    uv_poll_start(&watch->poll, UV_DISCONNECT, on_disconnect);
}

void exchange_unwatch(struct exchange *exchange)
{
    struct watch *watch = exchange->watch;
    if (watch == NULL)
        return;
    exchange->watch = NULL;
    watch->exchange = NULL;
    uv_poll_stop(&watch->poll);
    close(watch->fd);
    uv_close((uv_handle_t *)&watch->poll, watch_closed);
}

/* --- answers ---------------------------------------------------------------------------------------------------- */

enum MHD_Result exchange_answer(struct exchange *exchange, unsigned status)
{
    size_t size = 0;
    if (!exchange->raw)
        buffer_append_string(&exchange->answer, "\n");
    char *text = buffer_take(&exchange->answer, &size);
    struct MHD_Response *response =
        text == NULL ? NULL : MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
                            exchange->raw ? "application/octet-stream" : "application/json");
    if (exchange->task_id[0] != '\0')
        MHD_add_response_header(response, "X-Task-Id", exchange->task_id);
    if (exchange->allow[0] != '\0')
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, exchange->allow);
    if (status == MHD_HTTP_TOO_MANY_REQUESTS)
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
    if (status == MHD_HTTP_CONTENT_TOO_LARGE)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    enum MHD_Result result = MHD_queue_response(exchange->connection, status, response);
    MHD_destroy_response(response);
    exchange->answered = true;
    return result;
}

enum MHD_Result exchange_error(struct exchange *exchange, unsigned status, const char *code, const char *message,
                               const char *hint)
{
    buffer_free(&exchange->answer);
    error_write(&exchange->answer, code, message, hint);
    return exchange_answer(exchange, status);
}

enum MHD_Result exchange_too_large(struct exchange *exchange)
{
    return exchange_error(exchange, MHD_HTTP_CONTENT_TOO_LARGE, "too_large", "the body is larger than 16 MiB",
                          "stream stdin with `warmpool run -i`");
}

unsigned status_of_error(enum error_code code)
{
    switch (code) {
    case ERROR_INVALID:
        return MHD_HTTP_BAD_REQUEST;
    case ERROR_NOT_FOUND:
        return MHD_HTTP_NOT_FOUND;
    case ERROR_CONFLICT:
        return MHD_HTTP_CONFLICT;
    case ERROR_LIMIT:
        return MHD_HTTP_TOO_MANY_REQUESTS;
    case ERROR_NONE:
    case ERROR_UNAVAILABLE:
    case ERROR_ENGINE:
    case ERROR_TIMEOUT:
    case ERROR_CANCELLED:
    case ERROR_PROTOCOL:
    case ERROR_SYSTEM:
    case ERROR_NOMEM:
    case ERROR_DENIED:
        break;
    }
    return MHD_HTTP_SERVICE_UNAVAILABLE;
}
