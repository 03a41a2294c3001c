#include "engine/docker/multi.h"

#include <stdlib.h>

struct multi_socket {
    uv_poll_t poll;
    struct multi *multi;
    curl_socket_t fd;
    int events;
};

static void handle_gone(struct multi *multi)
{
    if (--multi->handles == 0)
        multi->closed(multi->user);
}

static void on_socket_closed(uv_handle_t *handle)
{
    struct multi_socket *socket = handle->data;
    struct multi *multi = socket->multi;
    free(socket);
    handle_gone(multi);
}

static void on_timer_closed(uv_handle_t *handle)
{
    handle_gone(handle->data);
}

static void on_socket_ready(uv_poll_t *poll, int status, int events)
{
    struct multi_socket *socket = poll->data;
    struct multi *multi = socket->multi;
    int flags = 0, running;
    if (status < 0) {
        /* An error of the connection: libuv watches no longer. CURL_CSELECT_ERR would hide what it is, and also what
         * came before it, such as TLS's reason for hanging up; reading tells both, and comes to an end. */
        events = UV_READABLE | UV_WRITABLE;
        uv_poll_start(poll, socket->events, on_socket_ready);
    }
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    curl_multi_socket_action(multi->handle, socket->fd, flags, &running);
    multi->step(multi->user);
}

static struct multi_socket *socket_watch(struct multi *multi, curl_socket_t fd)
{
    struct multi_socket *socket = calloc(1, sizeof(*socket));
    if (socket == NULL)
        return NULL;
    socket->multi = multi;
    socket->fd = fd;
    int r = uv_poll_init(multi->loop, &socket->poll, fd);
    if (r < 0) {
        log_warn(multi->log, "engine: cannot watch a connection: %s", uv_strerror(r));
        free(socket);
        return NULL;
    }
    socket->poll.data = socket;
    multi->handles++;
    curl_multi_assign(multi->handle, fd, socket);
    return socket;
}

/* Always 0: another value would make the multi handle unusable for good. A socket that cannot be watched leaves its
 * request to the deadline. */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *socket_user)
{
    struct multi *multi = user;
    struct multi_socket *socket = socket_user;
    if (what == CURL_POLL_REMOVE) {
        if (socket != NULL) {
            curl_multi_assign(multi->handle, fd, NULL);
            uv_close((uv_handle_t *)&socket->poll, on_socket_closed);
        }
        return 0;
    }
    if (socket == NULL)
        socket = socket_watch(multi, fd);
    if (socket == NULL)
        return 0;
    socket->events = 0;
    if (what != CURL_POLL_OUT)
        socket->events |= UV_READABLE;
    if (what != CURL_POLL_IN)
        socket->events |= UV_WRITABLE;
    uv_poll_start(&socket->poll, socket->events, on_socket_ready);
    return 0;
}

static void on_timer(uv_timer_t *timer)
{
    struct multi *multi = timer->data;
    int running;
    curl_multi_socket_action(multi->handle, CURL_SOCKET_TIMEOUT, 0, &running);
    multi->step(multi->user);
}

static int on_timer_wanted(CURLM *handle, long timeout_ms, void *user)
{
    struct multi *multi = user;
    if (uv_is_closing((uv_handle_t *)&multi->timer))
        return 0;
    if (timeout_ms < 0) {
        uv_timer_stop(&multi->timer);
        return 0;
    }
    /* libuv counts from the beginning of the loop's turn. A timer that comes early would do nothing and be the last. */
    uv_update_time(multi->loop);
    uv_timer_start(&multi->timer, on_timer, timeout_ms == 0 ? 0 : (uint64_t)timeout_ms + 1, 0);
    return 0;
}

int multi_open(struct multi *multi, uv_loop_t *loop, const struct log *log, void (*step)(void *user), void *user)
{
    *multi = (struct multi){.handle = curl_multi_init(), .loop = loop, .log = log, .step = step, .user = user};
    if (multi->handle == NULL)
        return -1;
    curl_multi_setopt(multi->handle, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(multi->handle, CURLMOPT_SOCKETDATA, multi);
    curl_multi_setopt(multi->handle, CURLMOPT_TIMERFUNCTION, on_timer_wanted);
    curl_multi_setopt(multi->handle, CURLMOPT_TIMERDATA, multi);
    uv_timer_init(loop, &multi->timer);
    multi->timer.data = multi;
    multi->handles = 1;
    return 0;
}

void multi_close(struct multi *multi, void (*closed)(void *user))
{
    multi->closed = closed;
    curl_multi_cleanup(multi->handle);
    multi->handle = NULL;
    uv_close((uv_handle_t *)&multi->timer, on_timer_closed);
}
