#include "transport/runner_conn.h"

#include <stdlib.h>
#include <string.h>

/* What may wait for a runner that does not read: two RUNs and a window of stdin. Beyond it the runner is considered
 * lost. */
#define OUTPUT_MAX (2U * FRAME_RUN_MAX + 4U * FRAME_DATA_MAX)

struct runner_conn {
    const struct carrier_ops *ops;
    void *carrier; /* NULL once closed */
    const struct runner_handler *handler;
    void *user;
    struct buffer in;  /* the beginning of a frame that has not arrived whole */
    struct buffer out; /* not written yet */
    uint64_t sent;
    uint8_t marker[SYNC_MARKER_BYTES];
    bool skip; /* what comes before HELLO is of an earlier conversation */
    bool tail; /* what tells the conversation follows each frame */
    bool hello_seen;
    bool lost;
};

/* Of each frame on the attach stream. */
static void put_tail(struct runner_conn *conn)
{
    uint8_t tail[FRAME_TAIL_BYTES] = {0};
    memcpy(tail, conn->marker, FRAME_TAIL_MARKER);
    if (conn->tail)
        buffer_append(&conn->out, tail, sizeof tail);
}

static void put_frame(struct runner_conn *conn, uint8_t type, uint8_t flags, uint32_t task, const void *payload,
                      size_t size)
{
    if (conn->lost)
        return;
    uint8_t *room = buffer_reserve(&conn->out, FRAME_HEADER_BYTES + size);
    if (room == NULL)
        return;
    frame_encode_header(room, type, flags, task, (uint32_t)size);
    if (size > 0)
        memcpy(room + FRAME_HEADER_BYTES, payload, size);
    buffer_commit(&conn->out, FRAME_HEADER_BYTES + size);
    put_tail(conn);
}

static void put_u32(uint8_t out[4], uint32_t value)
{
    struct wire_writer writer = {.next = out, .end = out + 4};
    wire_put_u32(&writer, value);
}

static void conn_close_carrier(struct runner_conn *conn)
{
    void *carrier = conn->carrier;
    conn->carrier = NULL;
    if (carrier != NULL)
        conn->ops->close(carrier);
}

static void conn_lose(struct runner_conn *conn, const struct error *error)
{
    if (conn->lost)
        return;
    conn->lost = true;
    conn_close_carrier(conn);
    conn->handler->lost(conn->user, error);
}

struct runner_conn *runner_conn_new(const struct carrier_ops *ops, void *carrier, const struct message_sync *sync,
                                    const uint8_t *token, const struct runner_handler *handler, void *user)
{
    struct runner_conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        return NULL;
    conn->ops = ops;
    conn->carrier = carrier;
    conn->handler = handler;
    conn->user = user;
    conn->skip = conn->tail = token != NULL;
    memcpy(conn->marker, sync->marker, sizeof conn->marker);
    if (token != NULL)
        buffer_append(&conn->out, token, SYNC_TOKEN_BYTES);
    struct message_sync full = *sync;
    full.version = WIRE_VERSION;
    uint8_t payload[MESSAGE_SYNC_BYTES];
    message_sync_encode(&full, payload);
    put_frame(conn, FRAME_SYNC, 0, 0, payload, sizeof payload);
    return conn;
}

struct runner_conn *runner_conn_free(struct runner_conn *conn)
{
    if (conn == NULL)
        return NULL;
    conn->lost = true;
    conn_close_carrier(conn);
    buffer_free(&conn->in);
    buffer_free(&conn->out);
    free(conn);
    return NULL;
}

bool runner_conn_ready(const struct runner_conn *conn)
{
    return conn != NULL && conn->hello_seen && !conn->lost;
}

void runner_conn_stop(struct runner_conn *conn)
{
    conn->lost = true;
    conn_close_carrier(conn);
}

void runner_conn_broken(struct runner_conn *conn, const struct error *error)
{
    conn_lose(conn, error);
}

static int handle_hello(struct runner_conn *conn, const struct frame *frame, struct error *error)
{
    struct message_hello hello;
    if (message_hello_decode(frame->payload, frame->length, &hello) < 0)
        return error_set(error, ERROR_PROTOCOL, "the runner sent a malformed HELLO");
    if (hello.version != WIRE_VERSION)
        return error_set(error, ERROR_PROTOCOL, "the runner speaks protocol version %u, this side %u", hello.version,
                         WIRE_VERSION);
    if (memcmp(hello.marker, conn->marker, sizeof conn->marker) != 0)
        return error_set(error, ERROR_PROTOCOL, "the runner's HELLO does not answer this connection's SYNC");
    conn->hello_seen = true;
    conn->handler->hello(conn->user, &hello);
    return 0;
}

static int malformed(const struct frame *frame, struct error *error)
{
    return error_set(error, ERROR_PROTOCOL, "the runner sent a malformed %s", frame_type_name(frame->type));
}

static int handle_frame(struct runner_conn *conn, const struct frame *frame, struct error *error)
{
    const struct runner_handler *handler = conn->handler;
    if (!conn->hello_seen) {
        if (frame->type != FRAME_HELLO)
            return error_set(error, ERROR_PROTOCOL, "the runner sent %s before HELLO", frame_type_name(frame->type));
        return handle_hello(conn, frame, error);
    }
    switch (frame->type) {
    case FRAME_STDOUT:
    case FRAME_STDERR:
        handler->output(conn->user, frame->task, frame->type == FRAME_STDOUT ? 1 : 2, frame->payload, frame->length,
                        (frame->flags & FRAME_FLAG_EOF) != 0);
        return 0;
    case FRAME_CREDIT: {
        struct message_credit credit;
        if (message_credit_decode(frame->payload, frame->length, &credit) < 0 ||
            (credit.stream != WIRE_STDIN && credit.stream != WIRE_FILES))
            return malformed(frame, error);
        if (credit.stream == WIRE_FILES)
            handler->file_credit(conn->user, frame->task, credit.bytes);
        else
            handler->credit(conn->user, frame->task, credit.bytes);
        return 0;
    }
    case FRAME_FILE:
        handler->file(conn->user, frame->task, frame->payload, frame->length, (frame->flags & FRAME_FLAG_EOF) != 0);
        return 0;
    case FRAME_FILE_RESULT: {
        struct message_file_result result;
        if (message_file_result_decode(frame->payload, frame->length, &result) < 0)
            return malformed(frame, error);
        handler->file_result(conn->user, frame->task, &result);
        return 0;
    }
    case FRAME_EXIT: {
        struct message_exit message;
        if (message_exit_decode(frame->payload, frame->length, &message) < 0)
            return malformed(frame, error);
        handler->exited(conn->user, frame->task, &message);
        return 0;
    }
    case FRAME_RECEIPT: {
        struct receipt receipt;
        if (receipt_decode(frame->payload, frame->length, &receipt) < 0)
            return malformed(frame, error);
        handler->receipt(conn->user, &receipt);
        return 0;
    }
    case FRAME_PONG: {
        struct message_pong pong;
        if (message_pong_decode(frame->payload, frame->length, &pong) < 0)
            return malformed(frame, error);
        handler->pong(conn->user, &pong);
        return 0;
    }
    case FRAME_LOG: {
        char text[512];
        if (frame->length < 1)
            return malformed(frame, error);
        size_t size = frame->length - 1 < sizeof text - 1 ? frame->length - 1 : sizeof text - 1;
        memcpy(text, frame->payload + 1, size);
        text[size] = '\0';
        handler->log(conn->user, frame->payload[0], text);
        return 0;
    }
    default:
        return error_set(error, ERROR_PROTOCOL, "the runner sent %s, which is not its to send",
                         frame_type_name(frame->type));
    }
}

/* Handles the whole frames in `data` and returns how many bytes they took, or -1 with `error`. */
static ptrdiff_t handle_frames(struct runner_conn *conn, const uint8_t *data, size_t size, struct error *error)
{
    size_t used = 0;
    while (!conn->lost) {
        struct frame frame;
        ptrdiff_t taken = frame_decode(data + used, size - used, &frame);
        if (taken < 0)
            return error_set(error, ERROR_PROTOCOL, "the runner sent bytes that are no frame");
        if (taken == 0)
            break;
        if (handle_frame(conn, &frame, error) < 0)
            return -1;
        used += (size_t)taken;
    }
    return (ptrdiff_t)used;
}

#define HELLO_BEFORE_MARKER (FRAME_HEADER_BYTES + sizeof(uint16_t))

/* Drops what comes before a HELLO with our marker, of which nobody else knows. True when that begins the buffer. */
static bool find_hello(struct runner_conn *conn)
{
    for (;;) {
        const uint8_t *data = buffer_data(&conn->in);
        size_t size = buffer_length(&conn->in);
        const uint8_t *marker = size == 0 ? NULL : memmem(data, size, conn->marker, SYNC_MARKER_BYTES);
        if (marker == NULL) {
            const size_t kept = HELLO_BEFORE_MARKER + SYNC_MARKER_BYTES - 1;
            if (size > kept)
                buffer_consume(&conn->in, size - kept);
            return false;
        }
        size_t at = (size_t)(marker - data);
        if (at >= HELLO_BEFORE_MARKER && frame_size(marker - HELLO_BEFORE_MARKER, FRAME_HEADER_BYTES) > 0) {
            buffer_consume(&conn->in, at - HELLO_BEFORE_MARKER);
            return true;
        }
        buffer_consume(&conn->in, at + 1);
    }
}

size_t runner_conn_take_pending(struct runner_conn *conn, uint8_t out[RUNNER_PENDING_MAX])
{
    size_t size = buffer_length(&conn->in);
    if (conn->skip || size == 0 || size > RUNNER_PENDING_MAX)
        return 0;
    memcpy(out, buffer_data(&conn->in), size);
    buffer_consume(&conn->in, size);
    return size;
}

void runner_conn_feed(struct runner_conn *conn, const uint8_t *data, size_t size)
{
    struct error error = ERROR_INIT;
    ptrdiff_t used = 0;
    if (conn->skip) {
        buffer_append(&conn->in, data, size);
        data += size;
        size = 0;
        conn->skip = !find_hello(conn);
    }
    if (conn->skip) {
        /* Not yet. */
    } else if (buffer_length(&conn->in) == 0) {
        used = handle_frames(conn, data, size, &error);
        if (used >= 0 && !conn->lost)
            buffer_append(&conn->in, data + used, size - (size_t)used);
    } else {
        buffer_append(&conn->in, data, size);
        used = handle_frames(conn, buffer_data(&conn->in), buffer_length(&conn->in), &error);
        if (used >= 0 && !conn->lost)
            buffer_consume(&conn->in, (size_t)used);
    }
    if (used >= 0 && conn->in.failed) {
        error_set(&error, ERROR_NOMEM, "out of memory for the runner's output");
        used = -1;
    }
    if (used < 0)
        conn_lose(conn, &error);
}

/* --- requests --------------------------------------------------------------------------------------- */

void runner_conn_run(struct runner_conn *conn, uint32_t task, const struct message_run *run, const char *const argv[],
                     const char *const env[], bool secret)
{
    if (conn->lost)
        return;
    conn->out.wipe |= secret;
    size_t size = message_run_size(run, argv, env);
    uint8_t *room = buffer_reserve(&conn->out, FRAME_HEADER_BYTES + size);
    if (room == NULL)
        return;
    frame_encode_header(room, FRAME_RUN, 0, task, (uint32_t)size);
    message_run_encode(run, argv, env, room + FRAME_HEADER_BYTES, size);
    buffer_commit(&conn->out, FRAME_HEADER_BYTES + size);
    put_tail(conn);
}

void runner_conn_stdin(struct runner_conn *conn, uint32_t task, const void *data, size_t size, bool eof)
{
    const uint8_t *next = data;
    do {
        size_t piece = size < FRAME_DATA_MAX ? size : FRAME_DATA_MAX;
        size -= piece;
        put_frame(conn, FRAME_STDIN, eof && size == 0 ? FRAME_FLAG_EOF : 0, task, next, piece);
        next += piece;
    } while (size > 0);
}

int runner_conn_put(struct runner_conn *conn, uint32_t task, const struct message_put *put)
{
    uint8_t payload[MESSAGE_PUT_BYTES_MAX];
    size_t size = message_put_encode(put, payload);
    if (size == 0)
        return -1;
    put_frame(conn, FRAME_PUT, 0, task, payload, size);
    return 0;
}

int runner_conn_get(struct runner_conn *conn, uint32_t task, const struct message_get *get)
{
    uint8_t payload[MESSAGE_GET_BYTES_MAX];
    size_t size = message_get_encode(get, payload);
    if (size == 0)
        return -1;
    put_frame(conn, FRAME_GET, 0, task, payload, size);
    return 0;
}

void runner_conn_file(struct runner_conn *conn, uint32_t task, const void *data, size_t size, bool eof)
{
    put_frame(conn, FRAME_FILE, eof ? FRAME_FLAG_EOF : 0, task, data, size);
}

void runner_conn_credit(struct runner_conn *conn, uint32_t task, int stream, uint32_t bytes)
{
    struct message_credit credit = {.stream = (uint8_t)stream, .bytes = bytes};
    uint8_t payload[MESSAGE_CREDIT_BYTES];
    message_credit_encode(&credit, payload);
    put_frame(conn, FRAME_CREDIT, 0, task, payload, sizeof payload);
}

void runner_conn_signal(struct runner_conn *conn, uint32_t task, uint32_t signal)
{
    uint8_t payload[4];
    put_u32(payload, signal);
    put_frame(conn, FRAME_SIGNAL, 0, task, payload, sizeof payload);
}

void runner_conn_cancel(struct runner_conn *conn, uint32_t task, uint32_t grace_ms)
{
    uint8_t payload[4];
    put_u32(payload, grace_ms);
    put_frame(conn, FRAME_CANCEL, 0, task, payload, sizeof payload);
}

void runner_conn_ack(struct runner_conn *conn, uint32_t task)
{
    put_frame(conn, FRAME_ACK, 0, task, NULL, 0);
}

void runner_conn_reset(struct runner_conn *conn)
{
    put_frame(conn, FRAME_RESET, 0, 0, NULL, 0);
}

void runner_conn_winch(struct runner_conn *conn, uint32_t task, uint16_t rows, uint16_t columns)
{
    struct message_winch winch = {.rows = rows, .columns = columns};
    uint8_t payload[MESSAGE_WINCH_BYTES];
    message_winch_encode(&winch, payload);
    put_frame(conn, FRAME_WINCH, 0, task, payload, sizeof payload);
}

void runner_conn_keepalive(struct runner_conn *conn)
{
    put_frame(conn, FRAME_ACK, 0, 0, NULL, 0);
}

void runner_conn_ping(struct runner_conn *conn, uint64_t nonce)
{
    uint8_t payload[8];
    struct wire_writer writer = {.next = payload, .end = payload + sizeof payload};
    wire_put_u64(&writer, nonce);
    put_frame(conn, FRAME_PING, 0, 0, payload, sizeof payload);
}

void runner_conn_flush(struct runner_conn *conn)
{
    if (conn->lost)
        return;
    while (buffer_length(&conn->out) > 0) {
        ssize_t written = conn->ops->write(conn->carrier, buffer_data(&conn->out), buffer_length(&conn->out));
        if (written <= 0) {
            /* Only small frames (signals) can pile up without a limit of their own: a runner that reads none of them is
             * lost. */
            if (buffer_length(&conn->out) > OUTPUT_MAX)
                conn->ops->abort(conn->carrier);
            conn->ops->want_write(conn->carrier);
            return;
        }
        buffer_consume(&conn->out, (size_t)written);
        conn->sent += (uint64_t)written;
    }
    conn->out.wipe = false; /* it is empty */
    if (conn->out.failed)
        conn->ops->abort(conn->carrier);
}

uint64_t runner_conn_sent(const struct runner_conn *conn)
{
    return conn->sent;
}

size_t runner_conn_unsent(const struct runner_conn *conn)
{
    return buffer_length(&conn->out);
}
