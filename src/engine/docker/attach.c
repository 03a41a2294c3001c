/* A container's attach stream: a connection of its own, which libcurl makes (so unix sockets, TCP and TLS are one) and
 * which then is a stream of bytes, with the engine's multiplexing in one direction.
 *
 *     VERSION --agreed--> CONNECTING --connected--> ASKING --101--> OPEN
 *        \-------------------\------------------------\--------------\----> ENDED, from wherever
 *
 * Each stream has a multi handle to itself: libcurl keeps such a connection among its idle ones, and would take one
 * with bytes to read for dead when it looks for another. After it has connected, libcurl only sends and receives
 * (which is TLS, or nothing), and the socket is watched here.
 *
 * Reading never stops while the stream is open, since an engine whose reader stalls freezes the container's output and
 * then its removal; a turn of the loop reads a bounded amount. Writing goes straight to the socket.
 *
 * ENDED is entered once. The connection is closed there, at once; the memory goes when libuv's handles have. So users
 * may close a stream from inside any of its callbacks: whoever called looks at `state` afterwards. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/docker/docker.h"
#include "engine/docker/multi.h"
#include "engine/docker/upgrade.h"

#define READ_CHUNK     65536U
#define READS_A_TURN   8U
#define RECORD_HEADER  8U
#define RECORD_MAX     (16U * 1024U * 1024U) /* engines send at most 32 KiB in one: more is not a record */
#define STDERR_LINE    240U
#define TLS_WRITE_SIZE 16384U /* a record of TLS */

enum stream_state { STREAM_VERSION, STREAM_CONNECTING, STREAM_ASKING, STREAM_OPEN, STREAM_ENDED };
enum record_type { RECORD_STDOUT = 1, RECORD_STDERR = 2 };

struct stream {
    struct engine_stream base; /* first: an engine's stream is its stream */
    struct list link;          /* of docker->streams, until ENDED */
    struct docker *docker;
    const struct engine_stream_handler *handler;
    void *user;
    char *id;
    enum stream_state state;
    struct multi multi;
    CURL *easy;
    uv_poll_t poll;
    bool polled; /* `poll` is initialised */
    int events;  /* that it is watched for */
    uv_idle_t wake;
    uv_timer_t deadline;
    unsigned handles;   /* open ones of libuv, the multi handle as one */
    struct error error; /* what ended it, told by the loop */
    struct upgrade upgrade;
    char *request; /* as sent; asking is done when `request_sent` is its length */
    size_t request_sent;
    uint8_t header[RECORD_HEADER];
    size_t header_length;
    uint32_t left; /* bytes of the record that are still to come */
    char line[STDERR_LINE];
    size_t line_length;
    bool want_write;
    /* TLS wants what it did not take at once again, from the same place: those bytes count as taken. */
    uint8_t *kept;
    size_t kept_size;
    char detail[CURL_ERROR_SIZE];
};

static struct stream *stream_of(struct engine_stream *stream)
{
    return (struct stream *)(void *)stream;
}

/* --- the end -------------------------------------------------------------------------------------- */

static void stream_handle_gone(struct stream *stream)
{
    if (--stream->handles > 0)
        return;
    struct docker *docker = stream->docker;
    upgrade_free(&stream->upgrade);
    free(stream->kept);
    free(stream->request);
    free(stream->id);
    free(stream);
    docker_release(docker);
}

static void on_handle_closed(uv_handle_t *handle)
{
    stream_handle_gone(handle->data);
}

static void on_multi_closed(void *user)
{
    stream_handle_gone(user);
}

/* Never from inside libcurl. */
static void stream_end(struct stream *stream)
{
    if (stream->state == STREAM_ENDED)
        return;
    stream->state = STREAM_ENDED;
    list_remove(&stream->link);
    if (stream->polled) /* before its descriptor is closed */
        uv_close((uv_handle_t *)&stream->poll, on_handle_closed);
    uv_close((uv_handle_t *)&stream->wake, on_handle_closed);
    uv_close((uv_handle_t *)&stream->deadline, on_handle_closed);
    if (stream->easy != NULL) {
        curl_multi_remove_handle(stream->multi.handle, stream->easy);
        curl_easy_cleanup(stream->easy);
        stream->easy = NULL;
    }
    multi_close(&stream->multi, on_multi_closed);
}

/* Ends it and says so. From the loop only. */
static void stream_fail(struct stream *stream, const struct error *error)
{
    struct error full = *error;
    if (stream->state == STREAM_ENDED)
        return;
    if (full.code == ERROR_UNAVAILABLE && stream->state != STREAM_OPEN)
        docker_doubt_version(stream->docker);
    error_prefix(&full, "attach to container %.64s", stream->id);
    stream_end(stream);
    stream->handler->closed(stream->user, &full);
}

static void stream_fail_transfer(struct stream *stream, CURLcode code)
{
    struct error error = ERROR_INIT;
    endpoint_error(&stream->docker->endpoint, stream->easy, code, stream->detail, &error);
    stream_fail(stream, &error);
}

static void on_deadline(uv_timer_t *timer)
{
    struct stream *stream = timer->data;
    struct error error = ERROR_INIT;
    error_set(&error, ERROR_TIMEOUT, "the engine at %s gave no answer within %u ms", stream->docker->endpoint.name,
              stream->docker->timeout_ms);
    stream_fail(stream, &error);
}

/* --- the engine's records ------------------------------------------------------------------------- */

static void stderr_line_end(struct stream *stream)
{
    char clean[STDERR_LINE];
    text_clean(clean, sizeof(clean), stream->line, stream->line_length);
    stream->line_length = 0;
    if (clean[0] != '\0')
        log_debug(stream->docker->log, "container %.12s: stderr: %s", stream->id, clean);
}

static void stderr_take(struct stream *stream, const uint8_t *data, size_t size)
{
    if (stream->docker->log == NULL || stream->docker->log->level < LOG_LEVEL_DEBUG)
        return;
    for (size_t i = 0; i < size; i++) {
        if (data[i] == '\n' || stream->line_length == sizeof(stream->line))
            stderr_line_end(stream);
        if (data[i] != '\n')
            stream->line[stream->line_length++] = (char)data[i];
    }
}

static int record_begin(struct stream *stream, struct error *err)
{
    const uint8_t *header = stream->header;
    stream->left = (uint32_t)header[4] << 24 | (uint32_t)header[5] << 16 | (uint32_t)header[6] << 8 | header[7];
    if ((header[0] != RECORD_STDOUT && header[0] != RECORD_STDERR) || header[1] != 0 || header[2] != 0 ||
        header[3] != 0)
        return error_set(err, ERROR_PROTOCOL, "the engine sent a record of unknown type %u", header[0]);
    if (stream->left > RECORD_MAX)
        return error_set(err, ERROR_PROTOCOL, "the engine sent a record of %u bytes", stream->left);
    if (stream->left == 0)
        stream->header_length = 0;
    return 0;
}

/* Undoes the multiplexing. */
static void stream_take(struct stream *stream, const uint8_t *data, size_t size)
{
    while (size > 0 && stream->state == STREAM_OPEN) {
        if (stream->header_length < RECORD_HEADER) {
            struct error error = ERROR_INIT;
            stream->header[stream->header_length++] = *data++;
            size--;
            if (stream->header_length == RECORD_HEADER && record_begin(stream, &error) < 0)
                stream_fail(stream, &error);
            continue;
        }
        size_t piece = size < stream->left ? size : stream->left;
        stream->left -= (uint32_t)piece;
        if (stream->left == 0)
            stream->header_length = 0;
        if (stream->header[0] == RECORD_STDOUT)
            stream->handler->data(stream->user, data, piece);
        else
            stderr_take(stream, data, piece);
        data += piece;
        size -= piece;
    }
}

/* --- reading and writing -------------------------------------------------------------------------- */

static void on_ready(uv_poll_t *poll, int status, int events);

static void stream_watch(struct stream *stream)
{
    bool writes = stream->want_write || stream->kept_size > 0 || stream->state == STREAM_ASKING;
    int events = UV_READABLE | (writes ? UV_WRITABLE : 0);
    if (events != stream->events)
        uv_poll_start(&stream->poll, events, on_ready);
    stream->events = events;
}

static void stream_ended_by_engine(struct stream *stream)
{
    struct error error = ERROR_INIT;
    if (stream->state == STREAM_OPEN)
        error_set(&error, ERROR_UNAVAILABLE, "the engine at %s ended the stream", stream->docker->endpoint.name);
    else if (!upgrade_end(&stream->upgrade, &error))
        error_set(&error, ERROR_UNAVAILABLE, "the connection to the engine at %s broke before an answer was complete",
                  stream->docker->endpoint.name);
    stream_fail(stream, &error);
}

static void stream_upgrade(struct stream *stream, const uint8_t *data, size_t size)
{
    struct error error = ERROR_INIT;
    size_t rest = 0;
    int r = upgrade_feed(&stream->upgrade, data, size, &rest, &error);
    if (r < 0)
        stream_fail(stream, &error);
    if (r <= 0)
        return;
    upgrade_free(&stream->upgrade);
    uv_timer_stop(&stream->deadline);
    stream->state = STREAM_OPEN;
    if (stream->handler->opened != NULL)
        stream->handler->opened(stream->user);
    stream_take(stream, data + (size - rest), rest);
}

/* Reads until libcurl has nothing left, which the socket alone does not tell: TLS may have read ahead. False when there
 * may be more, for the next turn. */
static bool stream_read(struct stream *stream)
{
    uint8_t *chunk = stream->docker->chunk;
    for (unsigned i = 0; i < READS_A_TURN; i++) {
        size_t size = 0;
        CURLcode code = curl_easy_recv(stream->easy, chunk, READ_CHUNK, &size);
        if (code == CURLE_AGAIN)
            return true;
        if (code != CURLE_OK)
            stream_fail_transfer(stream, code);
        else if (size == 0)
            stream_ended_by_engine(stream);
        else if (stream->state == STREAM_OPEN)
            stream_take(stream, chunk, size);
        else
            stream_upgrade(stream, chunk, size);
        if (stream->state == STREAM_ENDED)
            return true;
    }
    return false;
}

/* Sends what TLS is owed. */
static CURLcode stream_send_kept(struct stream *stream)
{
    size_t sent = 0;
    CURLcode code = curl_easy_send(stream->easy, stream->kept, stream->kept_size, &sent);
    if (code == CURLE_OK && sent < stream->kept_size)
        memmove(stream->kept, stream->kept + sent, stream->kept_size - sent);
    if (code == CURLE_OK)
        stream->kept_size -= sent;
    return code;
}

static CURLcode stream_send(struct stream *stream, const uint8_t *data, size_t size, size_t *taken)
{
    *taken = 0;
    if (stream->kept == NULL)
        return curl_easy_send(stream->easy, data, size, taken);
    CURLcode code = stream->kept_size > 0 ? stream_send_kept(stream) : CURLE_OK;
    if (code != CURLE_OK || stream->kept_size > 0)
        return code != CURLE_OK ? code : CURLE_AGAIN;
    stream->kept_size = size < TLS_WRITE_SIZE ? size : TLS_WRITE_SIZE;
    memcpy(stream->kept, data, stream->kept_size);
    *taken = stream->kept_size;
    code = stream_send_kept(stream);
    return code == CURLE_AGAIN ? CURLE_OK : code;
}

static void stream_wake(struct stream *stream);

size_t docker_stream_write(struct engine_stream *base, const void *data, size_t size)
{
    struct stream *stream = stream_of(base);
    if (stream->state == STREAM_ENDED || stream->error.code != ERROR_NONE)
        return 0;
    size_t taken = 0;
    CURLcode code = CURLE_OK;
    while (stream->state == STREAM_OPEN && taken < size && code == CURLE_OK) {
        size_t piece = 0;
        code = stream_send(stream, (const uint8_t *)data + taken, size - taken, &piece);
        taken += piece;
    }
    stream->want_write = taken < size;
    if (code != CURLE_OK && code != CURLE_AGAIN) {
        endpoint_error(&stream->docker->endpoint, stream->easy, code, stream->detail, &stream->error);
        stream_wake(stream); /* no callback comes from inside a call */
    } else if (stream->state == STREAM_OPEN) {
        stream_watch(stream);
    }
    return taken;
}

/* --- opening it ----------------------------------------------------------------------------------- */

static void stream_ask(struct stream *stream)
{
    size_t left = strlen(stream->request) - stream->request_sent;
    while (left > 0) {
        size_t sent = 0;
        CURLcode code = stream_send(stream, (const uint8_t *)stream->request + stream->request_sent, left, &sent);
        if (code == CURLE_AGAIN)
            return;
        if (code != CURLE_OK) {
            stream_fail_transfer(stream, code);
            return;
        }
        stream->request_sent += sent;
        left -= sent;
    }
}

static void on_writable(struct stream *stream)
{
    CURLcode code = stream->kept_size > 0 ? stream_send_kept(stream) : CURLE_OK;
    if (code != CURLE_OK && code != CURLE_AGAIN) {
        stream_fail_transfer(stream, code);
    } else if (stream->kept_size > 0) {
        return;
    } else if (stream->state == STREAM_ASKING) {
        stream_ask(stream);
    } else if (stream->want_write) {
        stream->want_write = false;
        if (stream->handler->writable != NULL)
            stream->handler->writable(stream->user);
    }
}

/* Reading comes first: what the engine sent before it went away is told before that. */
static void stream_turn(struct stream *stream, bool writable)
{
    bool drained = stream_read(stream);
    if (stream->state == STREAM_ENDED)
        return;
    if (!drained)
        stream_wake(stream);
    else if (stream->error.code != ERROR_NONE)
        stream_fail(stream, &stream->error);
    if (stream->state != STREAM_ENDED && writable)
        on_writable(stream);
    if (stream->state != STREAM_ENDED)
        stream_watch(stream);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct stream *stream = poll->data;
    if (status < 0)
        stream->events = 0; /* an error, which reading tells: libuv watches no longer */
    stream_turn(stream, status == 0 && (events & UV_WRITABLE) != 0);
}

/* Podman looks for detach keys without a terminal too, unless there are none: two bytes that come one by one would do.
 */
static int request_make(struct stream *stream)
{
    _cleanup_buffer_ struct buffer request = {0};
    buffer_printf(
        &request,
        "POST /v%s/containers/%s/attach?stream=1&stdin=1&stdout=1&stderr=1&detachKeys= HTTP/1.1\r\nHost: %s\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n",
        stream->docker->api_version, stream->id, strstr(stream->docker->endpoint.url, "://") + 3);
    stream->request = buffer_take(&request, NULL);
    if (stream->docker->endpoint.tls)
        stream->kept = malloc(TLS_WRITE_SIZE);
    return stream->request != NULL && (stream->kept != NULL || !stream->docker->endpoint.tls) ? 0 : -1;
}

static void stream_connected(struct stream *stream)
{
    struct error error = ERROR_INIT;
    curl_socket_t fd = CURL_SOCKET_BAD;
    curl_easy_getinfo(stream->easy, CURLINFO_ACTIVESOCKET, &fd);
    int r = fd != CURL_SOCKET_BAD ? uv_poll_init(stream->docker->loop, &stream->poll, fd) : UV_EBADF;
    if (r < 0) {
        error_set(&error, ERROR_SYSTEM, "cannot watch the connection: %s", uv_strerror(r));
        stream_fail(stream, &error);
        return;
    }
    stream->poll.data = stream;
    stream->polled = true;
    stream->handles++;
    stream->state = STREAM_ASKING;
    if (request_make(stream) < 0) {
        error_set(&error, ERROR_NOMEM, "out of memory");
        stream_fail(stream, &error);
        return;
    }
    stream_watch(stream);
}

static void on_multi_step(void *user)
{
    struct stream *stream = user;
    CURLMsg *message;
    int left;
    while (stream->state == STREAM_CONNECTING &&
           (message = curl_multi_info_read(stream->multi.handle, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE)
            continue;
        if (message->data.result == CURLE_OK)
            stream_connected(stream);
        else
            stream_fail_transfer(stream, message->data.result);
    }
}

static void stream_connect(struct stream *stream)
{
    const struct endpoint *endpoint = &stream->docker->endpoint;
    struct error error = ERROR_INIT;
    CURL *easy = stream->easy = curl_easy_init();
    stream->state = STREAM_CONNECTING;
    int bad = easy == NULL || endpoint_apply(endpoint, easy, stream->detail) < 0;
    if (!bad) {
        bad |= curl_easy_setopt(easy, CURLOPT_URL, endpoint->url);
        bad |= curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
        bad |= curl_multi_add_handle(stream->multi.handle, easy) != CURLM_OK;
    }
    if (bad) {
        error_set(&error, ERROR_NOMEM, "out of memory");
        stream_fail(stream, &error);
    }
}

static void on_wake(uv_idle_t *idle)
{
    struct stream *stream = idle->data;
    uv_idle_stop(idle);
    struct error error = ERROR_INIT;
    if (stream->docker->closing) {
        error_set(&error, ERROR_CANCELLED, "the connection to the engine was closed");
        stream_fail(stream, &error);
    } else if (stream->state == STREAM_ASKING || stream->state == STREAM_OPEN) {
        stream_turn(stream, false);
    } else if (stream->error.code != ERROR_NONE) {
        stream_fail(stream, &stream->error);
    } else if (stream->state == STREAM_VERSION && stream->docker->version_state == VERSION_AGREED) {
        stream_connect(stream);
    } else if (stream->state == STREAM_VERSION) {
        docker_want_version(stream->docker);
    }
}

static void stream_wake(struct stream *stream)
{
    uv_idle_start(&stream->wake, on_wake);
}

static struct stream *stream_new(struct docker *docker, const char *id)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL)
        return NULL;
    if (docker->chunk == NULL)
        docker->chunk = malloc(READ_CHUNK);
    stream->id = strdup(id != NULL ? id : "");
    if (docker->chunk == NULL || stream->id == NULL ||
        multi_open(&stream->multi, docker->loop, docker->log, on_multi_step, stream) < 0) {
        free(stream->id);
        free(stream);
        return NULL;
    }
    stream->base.engine = &docker->base;
    stream->docker = docker;
    uv_idle_init(docker->loop, &stream->wake);
    uv_timer_init(docker->loop, &stream->deadline);
    stream->wake.data = stream->deadline.data = stream;
    stream->handles = 3;
    docker->users++;
    list_push_back(&docker->streams, &stream->link);
    return stream;
}

struct engine_stream *docker_container_attach(struct engine *engine, const char *id,
                                              const struct engine_stream_handler *handler, void *user)
{
    struct docker *docker = docker_of(engine);
    struct stream *stream = docker->users > 0 ? stream_new(docker, id) : NULL; /* 0: in its very last answers */
    if (stream == NULL)
        return NULL;
    stream->handler = handler;
    stream->user = user;
    if (!name_valid(stream->id)) {
        stream->id[0] = '\0';
        error_set(&stream->error, ERROR_INVALID, "not a container's name or id");
    }
    uv_update_time(docker->loop);
    uv_timer_start(&stream->deadline, on_deadline, docker->timeout_ms, 0);
    stream_wake(stream);
    return &stream->base;
}

void docker_stream_close(struct engine_stream *base)
{
    stream_end(stream_of(base));
}

/* --- all of them ---------------------------------------------------------------------------------- */

/* What they are told may open others, and close any. */
static void streams_take(struct docker *docker, struct list *streams)
{
    list_init(streams);
    while (!list_empty(&docker->streams)) {
        struct list *node = docker->streams.next;
        list_remove(node);
        list_push_back(streams, node);
    }
}

void streams_version_settled(struct docker *docker, const struct error *error)
{
    struct list streams;
    streams_take(docker, &streams);
    while (!list_empty(&streams)) {
        struct stream *stream = list_entry(streams.next, struct stream, link);
        list_remove(&stream->link);
        list_push_back(&docker->streams, &stream->link);
        if (stream->state != STREAM_VERSION || stream->error.code != ERROR_NONE || docker->closing)
            continue;
        if (error != NULL)
            stream_fail(stream, error);
        else
            stream_connect(stream);
    }
}

void streams_cancel(struct docker *docker)
{
    struct error error = ERROR_INIT;
    error_set(&error, ERROR_CANCELLED, "the connection to the engine was closed");
    struct list streams;
    streams_take(docker, &streams);
    while (!list_empty(&streams))
        stream_fail(list_entry(streams.next, struct stream, link), &error);
}
