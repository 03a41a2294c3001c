/* `Upgrade: warmpool`: after the 101 the connection carries the frames of wire/. To the client STDOUT, STDERR, CREDIT
 * (for stdin) and, last, RESULT; from the client STDIN, CREDIT (for what it has taken), SIGNAL, CANCEL,
 * WINCH and FILE. A client
 * that sends anything else or goes away before RESULT has its task ended.
 *
 * What comes before the socket is ours (output of a quick task) waits in the buffer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "api/internal.h"
#include "api/result.h"
#include "wire/message.h"

#define READ_BYTES 65536U
#define SIGNAL_MAX 64U
#define UNREAD_MAX (32U * 1024U * 1024U) /* of frames; a window of output byte by byte is not half of it */

struct upgraded {
    struct list link; /* in server.upgrades */
    struct exchange *exchange;
    struct MHD_UpgradeResponseHandle *handle;
    uv_poll_t poll;
    int fd; /* a duplicate: libuv and libmicrohttpd each close their own; -1 until the socket is ours */
    int events;
    struct buffer out, in;
    uint64_t unconsumed[2], unconsumed_files;
    bool open, closing, result_queued;
};

static void upgraded_flush(struct upgraded *upgraded);
static void upgraded_end(struct upgraded *upgraded);

static void put_flagged(struct upgraded *upgraded, uint8_t type, uint8_t flags, const void *data, size_t size)
{
    uint8_t *room = buffer_reserve(&upgraded->out, FRAME_HEADER_BYTES + size);
    if (room == NULL)
        return;
    frame_encode_header(room, type, flags, 0, (uint32_t)size);
    if (size > 0)
        memcpy(room + FRAME_HEADER_BYTES, data, size);
    buffer_commit(&upgraded->out, FRAME_HEADER_BYTES + size);
}

static void put_frame(struct upgraded *upgraded, uint8_t type, const void *data, size_t size)
{
    put_flagged(upgraded, type, 0, data, size);
}

/* Past the buffer while that is empty; what the socket does not take goes into it. */
static void put_output_frame(struct upgraded *upgraded, uint8_t type, const uint8_t *data, size_t size)
{
    uint8_t header[FRAME_HEADER_BYTES];
    struct iovec parts[2] = {{.iov_base = header, .iov_len = sizeof header},
                             {.iov_base = (void *)(uintptr_t)data, .iov_len = size}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    frame_encode_header(header, type, 0, 0, (uint32_t)size);
    ssize_t sent = 0;
    if (upgraded->open && !upgraded->closing && buffer_length(&upgraded->out) == 0)
        sent = sendmsg(upgraded->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    size_t taken = sent > 0 ? (size_t)sent : 0; /* what is wrong shows with the next flush */
    if (taken < sizeof header)
        buffer_append(&upgraded->out, header + taken, sizeof header - taken);
    size_t of_data = taken > sizeof header ? taken - sizeof header : 0;
    buffer_append(&upgraded->out, data + of_data, size - of_data);
}

/* --- from the task ---------------------------------------------------------------------------------------------- */

static void on_output(void *user, struct task *task, int stream, const uint8_t *data, size_t size)
{
    struct upgraded *upgraded = ((struct exchange *)user)->upgraded;
    if (upgraded == NULL) { /* the client left while the connection was still being upgraded */
        executor_task_consumed(task, stream, size);
        return;
    }
    upgraded->unconsumed[stream == 2] += size;
    while (size > 0) {
        size_t piece = size < FRAME_DATA_MAX ? size : FRAME_DATA_MAX;
        put_output_frame(upgraded, stream == 1 ? FRAME_STDOUT : FRAME_STDERR, data, piece);
        data += piece;
        size -= piece;
    }
    upgraded_flush(upgraded);
}

static void put_credit(struct upgraded *upgraded, enum wire_stream stream, uint32_t bytes)
{
    struct message_credit credit = {.stream = (uint8_t)stream, .bytes = bytes};
    uint8_t payload[MESSAGE_CREDIT_BYTES];
    if (upgraded->open && buffer_length(&upgraded->out) > UNREAD_MAX) { /* one that only writes, byte by byte */
        upgraded_end(upgraded);
        return;
    }
    message_credit_encode(&credit, payload);
    put_frame(upgraded, FRAME_CREDIT, payload, sizeof payload);
    upgraded_flush(upgraded);
}

static void on_stdin_ready(void *user, struct task *task, size_t size)
{
    struct upgraded *upgraded = ((struct exchange *)user)->upgraded;
    (void)task;
    if (upgraded == NULL)
        return;
    put_credit(upgraded, WIRE_STDIN, size == SIZE_MAX ? UINT32_MAX : (uint32_t)size);
}

static void on_file_ready(void *user, struct task *task, size_t size)
{
    struct upgraded *upgraded = ((struct exchange *)user)->upgraded;
    (void)task;
    if (upgraded != NULL)
        put_credit(upgraded, WIRE_FILES, (uint32_t)size);
}

static void on_file_result(void *user, struct task *task, const struct message_file_result *result)
{
    struct upgraded *upgraded = ((struct exchange *)user)->upgraded;
    uint8_t payload[MESSAGE_FILE_RESULT_BYTES_MAX];
    (void)task;
    if (upgraded == NULL)
        return;
    put_frame(upgraded, FRAME_FILE_RESULT, payload, message_file_result_encode(result, payload));
    upgraded_flush(upgraded);
}

static void on_file(void *user, struct task *task, const uint8_t *data, size_t size, bool eof)
{
    struct upgraded *upgraded = ((struct exchange *)user)->upgraded;
    if (upgraded == NULL) {
        executor_task_file_consumed(task, size);
        return;
    }
    upgraded->unconsumed_files += size;
    put_flagged(upgraded, FRAME_FILE, eof ? FRAME_FLAG_EOF : 0, data, size);
    upgraded_flush(upgraded);
}

static void put_result(struct upgraded *upgraded, const struct task_result *result)
{
    struct buffer json = {0};
    result_write(&json, result, result->output != NULL);
    struct message_result message = {
        .exit_code = (uint32_t)result->cli_exit_code, .message = result->message, .json = buffer_text(&json)};
    size_t size = message.json == NULL ? 0 : message_result_size(&message);
    if (size > FRAME_RESULT_MAX) { /* captured as well as streamed, and escapes made it too large: it has been sent */
        buffer_consume(&json, buffer_length(&json));
        result_write(&json, result, false);
        message.json = buffer_text(&json);
        size = message.json == NULL ? 0 : message_result_size(&message);
    }
    if (message.json != NULL) {
        uint8_t *room = buffer_reserve(&upgraded->out, FRAME_HEADER_BYTES + size);
        if (room != NULL) {
            frame_encode_header(room, FRAME_RESULT, 0, 0, (uint32_t)size);
            message_result_encode(&message, room + FRAME_HEADER_BYTES, size);
            buffer_commit(&upgraded->out, FRAME_HEADER_BYTES + size);
        }
    }
    buffer_free(&json);
}

static void on_ended(void *user, struct task *task, const struct task_result *result)
{
    struct exchange *exchange = user;
    struct upgraded *upgraded = exchange->upgraded;
    struct api_server *server = exchange->server;
    (void)task;
    exchange->task = NULL;
    exchange->ended = true;
    if (upgraded != NULL) {
        put_result(upgraded, result);
        upgraded->result_queued = true;
        upgraded_flush(upgraded);
    }
    server_remember(server, result);
}

const struct task_handler upgrade_handler = {.output = on_output,
                                             .stdin_ready = on_stdin_ready,
                                             .file_ready = on_file_ready,
                                             .file_result = on_file_result,
                                             .file = on_file,
                                             .ended = on_ended};

/* --- the socket --------------------------------------------------------------------------------------------------- */

static void on_ready(uv_poll_t *poll, int status, int events);

static void upgraded_poll(struct upgraded *upgraded, int events)
{
    if (upgraded->events == events)
        return;
    upgraded->events = events;
    uv_poll_start(&upgraded->poll, events, on_ready);
}

static void upgraded_flush(struct upgraded *upgraded)
{
    if (!upgraded->open || upgraded->closing)
        return;
    while (buffer_length(&upgraded->out) > 0) {
        ssize_t sent =
            send(upgraded->fd, buffer_data(&upgraded->out), buffer_length(&upgraded->out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            upgraded_poll(upgraded, UV_READABLE | UV_WRITABLE | UV_DISCONNECT);
            return;
        }
        if (sent < 0) {
            upgraded_end(upgraded);
            return;
        }
        buffer_consume(&upgraded->out, (size_t)sent);
    }
    if (upgraded->result_queued || upgraded->out.failed)
        upgraded_end(upgraded);
    else
        upgraded_poll(upgraded, UV_READABLE | UV_DISCONNECT);
}

/* --- from the client ------------------------------------------------------------------------------------------------
 */

static int handle_credit(struct upgraded *upgraded, const struct frame *frame)
{
    struct message_credit credit;
    if (message_credit_decode(frame->payload, frame->length, &credit) < 0 || credit.stream == WIRE_STDIN)
        return -1;
    uint64_t *unconsumed =
        credit.stream == WIRE_FILES ? &upgraded->unconsumed_files : &upgraded->unconsumed[credit.stream == WIRE_STDERR];
    if (credit.bytes > *unconsumed) /* more than it was given */
        return -1;
    *unconsumed -= credit.bytes;
    if (upgraded->exchange->task == NULL)
        return 0;
    if (credit.stream == WIRE_FILES)
        executor_task_file_consumed(upgraded->exchange->task, credit.bytes);
    else
        executor_task_consumed(upgraded->exchange->task, credit.stream, credit.bytes);
    return 0;
}

static int handle_number(struct upgraded *upgraded, const struct frame *frame)
{
    struct wire_reader reader = {.next = frame->payload, .end = frame->payload + frame->length};
    uint32_t number = wire_get_u32(&reader);
    struct task *task = upgraded->exchange->task;
    if (wire_reader_end(&reader) < 0 || (frame->type == FRAME_SIGNAL && (number == 0 || number > SIGNAL_MAX)))
        return -1;
    if (task == NULL)
        return 0;
    if (frame->type == FRAME_SIGNAL)
        executor_task_signal(task, (int)number);
    else
        executor_task_cancel(task);
    return 0;
}

static int handle_winch(struct upgraded *upgraded, const struct frame *frame)
{
    struct message_winch winch;
    if (message_winch_decode(frame->payload, frame->length, &winch) < 0)
        return -1;
    if (upgraded->exchange->task != NULL)
        executor_task_winch(upgraded->exchange->task, winch.rows, winch.columns);
    return 0;
}

static int handle_frame(struct upgraded *upgraded, const struct frame *frame)
{
    struct task *task = upgraded->exchange->task;
    switch (frame->type) {
    case FRAME_STDIN:
        return task == NULL ? 0
                            : executor_task_stdin(task, frame->payload, frame->length,
                                                  (frame->flags & FRAME_FLAG_EOF) != 0, NULL);
    case FRAME_FILE:
        return task == NULL ? 0
                            : executor_task_file(task, frame->payload, frame->length,
                                                 (frame->flags & FRAME_FLAG_EOF) != 0, NULL);
    case FRAME_CREDIT:
        return handle_credit(upgraded, frame);
    case FRAME_SIGNAL:
    case FRAME_CANCEL:
        return handle_number(upgraded, frame);
    case FRAME_WINCH:
        return handle_winch(upgraded, frame);
    default:
        return -1;
    }
}

/* What a client may send: a header of any other type is refused before its payload, which may be large, is awaited. */
static bool may_come(uint8_t type)
{
    return type == FRAME_STDIN || type == FRAME_CREDIT || type == FRAME_SIGNAL || type == FRAME_CANCEL ||
           type == FRAME_WINCH || type == FRAME_FILE;
}

static int handle_input(struct upgraded *upgraded)
{
    while (!upgraded->closing) {
        struct frame frame;
        if (buffer_length(&upgraded->in) >= FRAME_HEADER_BYTES && !may_come(buffer_data(&upgraded->in)[2]))
            return -1;
        ptrdiff_t taken = frame_decode(buffer_data(&upgraded->in), buffer_length(&upgraded->in), &frame);
        if (taken < 0 || (taken > 0 && handle_frame(upgraded, &frame) < 0))
            return -1;
        if (taken == 0)
            return 0;
        buffer_consume(&upgraded->in, (size_t)taken);
    }
    return 0;
}

static void upgraded_read(struct upgraded *upgraded)
{
    uint8_t *room = buffer_reserve(&upgraded->in, READ_BYTES);
    ssize_t got = room == NULL ? -1 : recv(upgraded->fd, room, READ_BYTES, MSG_DONTWAIT);
    if (got < 0 && room != NULL && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0)
        buffer_commit(&upgraded->in, (size_t)got);
    if (got <= 0 || handle_input(upgraded) < 0)
        upgraded_end(upgraded);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct upgraded *upgraded = poll->data;
    if (!upgraded->closing && (events & UV_WRITABLE))
        upgraded_flush(upgraded);
    if (!upgraded->closing && ((events & (UV_READABLE | UV_DISCONNECT)) || status < 0))
        upgraded_read(upgraded);
}

/* --- begin and end
 * ---------------------------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
    struct upgraded *upgraded = handle->data;
    struct api_server *server = upgraded->exchange->server;
    buffer_free(&upgraded->out);
    buffer_free(&upgraded->in);
    exchange_release(upgraded->exchange);
    free(upgraded);
    server_handle_closed(server);
}

static void upgraded_end(struct upgraded *upgraded)
{
    struct exchange *exchange = upgraded->exchange;
    if (upgraded->closing)
        return;
    upgraded->closing = true;
    list_remove(&upgraded->link);
    struct task *task = exchange->task;
    exchange->task = NULL;
    if (task != NULL)
        executor_task_abandon(task);
    uv_poll_stop(&upgraded->poll);
    close(upgraded->fd);
    MHD_upgrade_action(upgraded->handle, MHD_UPGRADE_ACTION_CLOSE);
    exchange->server->handles++;
    uv_close((uv_handle_t *)&upgraded->poll, on_closed);
    server_run(exchange->server);
}

static void on_upgraded(void *user, struct MHD_Connection *connection, void *state, const char *extra,
                        size_t extra_size, MHD_socket socket, struct MHD_UpgradeResponseHandle *handle)
{
    struct exchange *exchange = user;
    struct upgraded *upgraded = exchange->upgraded;
    (void)connection;
    (void)state;
    upgraded->handle = handle;
    upgraded->fd = dup(socket);
    if (upgraded->fd < 0 || uv_poll_init(exchange->server->loop, &upgraded->poll, upgraded->fd) < 0) {
        if (upgraded->fd >= 0)
            close(upgraded->fd);
        list_remove(&upgraded->link);
        exchange->upgraded = NULL; /* the exchange ends with its connection, the task with the exchange */
        buffer_free(&upgraded->out);
        free(upgraded);
        MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
        return;
    }
    upgraded->poll.data = upgraded;
    upgraded->open = true;
    exchange->holds++;
    buffer_append(&upgraded->in, extra, extra_size);
    upgraded_poll(upgraded, UV_READABLE | UV_DISCONNECT);
    if (handle_input(upgraded) < 0)
        upgraded_end(upgraded);
    else
        upgraded_flush(upgraded);
}

enum MHD_Result upgrade_begin(struct exchange *exchange)
{
    struct upgraded *upgraded = calloc(1, sizeof *upgraded);
    struct MHD_Response *response = upgraded == NULL ? NULL : MHD_create_response_for_upgrade(on_upgraded, exchange);
    if (response == NULL) {
        free(upgraded);
        return MHD_NO;
    }
    upgraded->exchange = exchange;
    upgraded->fd = -1;
    list_init(&upgraded->link);
    list_push_back(&exchange->server->upgrades, &upgraded->link);
    MHD_add_response_header(response, MHD_HTTP_HEADER_UPGRADE, "warmpool");
    MHD_add_response_header(response, "X-Task-Id", exchange->task_id);
    exchange->upgraded = upgraded;
    enum MHD_Result result = MHD_queue_response(exchange->connection, MHD_HTTP_SWITCHING_PROTOCOLS, response);
    MHD_destroy_response(response);
    exchange->answered = true;
    if (result != MHD_YES) {
        list_remove(&upgraded->link);
        exchange->upgraded = NULL;
        free(upgraded);
        return exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid", "the request cannot be upgraded",
                              "it must be HTTP/1.1 with `Connection: Upgrade`");
    }
    exchange->server->again = true; /* the 101 leaves in the next run */
    return MHD_YES;
}

void upgrade_abort(struct exchange *exchange)
{
    struct upgraded *upgraded = exchange->upgraded;
    if (upgraded->open)
        return;
    exchange->upgraded = NULL;
    list_remove(&upgraded->link);
    buffer_free(&upgraded->out);
    free(upgraded);
}

void upgrades_close(struct api_server *server)
{
    list_for_each_safe (node, &server->upgrades) {
        struct upgraded *upgraded = list_entry(node, struct upgraded, link);
        if (upgraded->open)
            upgraded_end(upgraded);
    }
}
