/* The attach transport: the engine's stream to a container's stdin and stdout carries the frames. */
#include <stdlib.h>
#include <string.h>

#include "executor/internal.h"

struct attachment {
    struct worker *worker;        /* NULL once closed */
    struct engine_stream *stream; /* NULL once gone */
    struct runner_conn *conn;     /* NULL until bound */
    uv_timer_t breaking;          /* abort() is answered later */
};

static void attachment_freed(uv_handle_t *handle)
{
    free(handle->data);
}

void attachment_close(struct attachment *attachment)
{
    if (attachment == NULL || attachment->worker == NULL)
        return;
    if (attachment->worker->attachment == attachment)
        attachment->worker->attachment = NULL;
    attachment->worker = NULL;
    attachment->conn = NULL;
    engine_stream_close(attachment->stream);
    attachment->stream = NULL;
    uv_close((uv_handle_t *)&attachment->breaking, attachment_freed);
}

static void broken(struct attachment *attachment, const struct error *error)
{
    struct worker *worker = attachment->worker;
    struct runner_conn *conn = attachment->conn;
    if (conn != NULL) {
        runner_conn_broken(conn, error); /* closes the carrier */
        return;
    }
    attachment_close(attachment);
    worker_attach_closed(worker, error);
}

/* --- from the engine ---------------------------------------------------------------------------------- */

static void on_opened(void *user)
{
    struct attachment *attachment = user;
    worker_attach_opened(attachment->worker);
}

static void on_data(void *user, const uint8_t *data, size_t size)
{
    struct attachment *attachment = user;
    if (attachment->conn != NULL) /* before that nobody was asked anything */
        runner_conn_feed(attachment->conn, data, size);
}

static void on_writable(void *user)
{
    struct attachment *attachment = user;
    if (attachment->conn != NULL)
        runner_conn_flush(attachment->conn);
}

static void on_closed(void *user, const struct error *error)
{
    struct attachment *attachment = user;
    attachment->stream = NULL;
    broken(attachment, error);
}

static const struct engine_stream_handler stream_handler = {
    .opened = on_opened, .data = on_data, .writable = on_writable, .closed = on_closed};

/* --- carrier ------------------------------------------------------------------------------------------ */

static ssize_t carrier_write(void *carrier, const void *data, size_t size)
{
    struct attachment *attachment = carrier;
    return attachment->stream == NULL ? 0 : (ssize_t)engine_stream_write(attachment->stream, data, size);
}

static void carrier_want_write(void *carrier)
{
    (void)carrier; /* a short write is followed by on_writable() in any case */
}

static void on_breaking(uv_timer_t *timer)
{
    struct error error = ERROR_INIT;
    error_set(&error, ERROR_UNAVAILABLE, "the runner does not read");
    broken(timer->data, &error);
}

static void carrier_abort(void *carrier)
{
    struct attachment *attachment = carrier;
    engine_stream_close(attachment->stream);
    attachment->stream = NULL;
    uv_timer_start(&attachment->breaking, on_breaking, 0, 0);
}

static void carrier_close(void *carrier)
{
    attachment_close(carrier);
}

const struct carrier_ops attachment_carrier = {
    .write = carrier_write, .want_write = carrier_want_write, .abort = carrier_abort, .close = carrier_close};

void attachment_bind(struct attachment *attachment, struct runner_conn *conn)
{
    attachment->conn = conn;
}

struct attachment *attachment_open(struct worker *worker)
{
    struct executor *executor = worker->owner->executor;
    struct attachment *attachment = calloc(1, sizeof *attachment);
    if (attachment == NULL)
        return NULL;
    attachment->worker = worker;
    uv_timer_init(executor->loop, &attachment->breaking);
    attachment->breaking.data = attachment;
    attachment->stream = engine_container_attach(executor->engine, worker->id, &stream_handler, attachment);
    if (attachment->stream == NULL) {
        attachment_close(attachment);
        return NULL;
    }
    return attachment;
}
