/* The connection to the daemon. Frames are built in one linear output buffer. When the connection breaks, frames of the
 * task's output that were not wholly written are kept for the next one; EXIT is made again; all else was said to
 * somebody who is gone. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runner/runner.h"

#define BACKOFF_MIN_US  10000U
#define BACKOFF_MAX_US  1000000U
#define LOGS_PER_SECOND 20U
#define OUTPUT_RESERVE  4096U /* for small frames when output has filled the buffer */

/* --- output ------------------------------------------------------------------------------------------ */

/* Makes the unsent part begin at the buffer's start. */
static void output_slide(struct runner *runner)
{
    size_t keep = runner->output_frame;
    if (keep == 0)
        return;
    memmove(runner->output, runner->output + keep, runner->output_end - keep);
    runner->output_start -= keep;
    runner->output_end -= keep;
    runner->output_frame = 0;
}

uint8_t *conn_reserve(struct runner *runner, size_t size)
{
    if (sizeof runner->output - runner->output_end < FRAME_HEADER_BYTES + size)
        output_slide(runner);
    if (sizeof runner->output - runner->output_end < FRAME_HEADER_BYTES + size)
        return NULL;
    return runner->output + runner->output_end + FRAME_HEADER_BYTES;
}

size_t conn_room(struct runner *runner)
{
    const size_t kept = FRAME_HEADER_BYTES + OUTPUT_RESERVE;
    if (sizeof runner->output - runner->output_end < kept + FRAME_DATA_MAX)
        output_slide(runner);
    size_t room = sizeof runner->output - runner->output_end;
    return room > kept ? room - kept : 0;
}

void conn_commit(struct runner *runner, uint8_t type, uint8_t flags, uint32_t task, size_t size)
{
    frame_encode_header(runner->output + runner->output_end, type, flags, task, (uint32_t)size);
    runner->output_end += FRAME_HEADER_BYTES + size;
}

void conn_send(struct runner *runner, uint8_t type, uint32_t task, const void *payload, size_t size)
{
    uint8_t *room = conn_reserve(runner, size);
    if (room == NULL) { /* only small frames come here, and the buffer keeps room for many: nobody reads them */
        runner->output_failed = true;
        return;
    }
    memcpy(room, payload, size);
    conn_commit(runner, type, 0, task, size);
}

void runner_log(struct runner *runner, int level, const char *text)
{
    uint64_t now = now_us();
    if (now - runner->log_window_us > 1000000) {
        runner->log_window_us = now;
        runner->log_count = 0;
    }
    size_t size = strlen(text);
    uint8_t *room = ++runner->log_count > LOGS_PER_SECOND || size > 512 ? NULL : conn_reserve(runner, size + 1);
    if (room == NULL)
        return;
    room[0] = (uint8_t)level;
    memcpy(room + 1, text, size);
    conn_commit(runner, FRAME_LOG, 0, 0, size + 1);
}

static void output_written(struct runner *runner, size_t size)
{
    runner->output_start += size;
    if (runner->output_start == runner->output_end) {
        runner->output_start = runner->output_end = runner->output_frame = 0;
        return;
    }
    for (;;) {
        ptrdiff_t whole = frame_size(runner->output + runner->output_frame, runner->output_end - runner->output_frame);
        if (whole <= 0 || runner->output_frame + (size_t)whole > runner->output_start)
            return;
        runner->output_frame += (size_t)whole;
    }
}

void conn_flush(struct runner *runner)
{
    /* Before SYNC nobody is known to listen. */
    while (runner->fd >= 0 && runner->synced && runner->output_end > runner->output_start) {
        ssize_t sent = send(runner->fd, runner->output + runner->output_start,
                            runner->output_end - runner->output_start, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN)
            conn_drop(runner);
        if (sent < 0)
            return;
        output_written(runner, (size_t)sent);
    }
    if (runner->output_failed) {
        runner->output_failed = false;
        conn_drop(runner);
    }
}

/* Keeps the frames of the task's output alone. */
static void output_filter(struct runner *runner)
{
    size_t from = runner->output_frame, to = 0;
    while (from < runner->output_end) {
        ptrdiff_t whole = frame_size(runner->output + from, runner->output_end - from);
        if (whole <= 0)
            break;
        uint8_t type = runner->output[from + 2];
        if (type == FRAME_STDOUT || type == FRAME_STDERR || type == FRAME_LOG) {
            memmove(runner->output + to, runner->output + from, (size_t)whole);
            to += (size_t)whole;
        }
        from += (size_t)whole;
    }
    runner->output_start = runner->output_frame = 0;
    runner->output_end = to;
}

/* --- connecting ---------------------------------------------------------------------------------------- */

void conn_drop(struct runner *runner)
{
    if (runner->fd < 0)
        return;
    close(runner->fd);
    runner->fd = -1;
    runner->synced = false;
    output_filter(runner);
    if (runner->input != runner->input_small)
        munmap(runner->input, runner->input_size);
    runner->input = runner->input_small;
    runner->input_size = sizeof runner->input_small;
    runner->input_length = 0;
    runner->orphaned_us = now_us();
    runner->connect_backoff_us = BACKOFF_MIN_US;
    runner->connect_us = runner->orphaned_us + BACKOFF_MIN_US;
}

void conn_try(struct runner *runner)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(runner->socket_path);
    if (length >= sizeof address.sun_path)
        _exit(2);
    memcpy(address.sun_path, runner->socket_path, length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
        runner->fd = fd;
        runner->synced = false;
        runner->connect_backoff_us = BACKOFF_MIN_US;
        return;
    }
    if (fd >= 0)
        close(fd);
    if (runner->connect_backoff_us < BACKOFF_MIN_US)
        runner->connect_backoff_us = BACKOFF_MIN_US;
    runner->connect_us = now_us() + runner->connect_backoff_us;
    runner->connect_backoff_us *= 2;
    if (runner->connect_backoff_us > BACKOFF_MAX_US)
        runner->connect_backoff_us = BACKOFF_MAX_US;
}

/* --- input --------------------------------------------------------------------------------------------- */

static void say_hello(struct runner *runner)
{
    if (!runner->baseline_known) { /* counted when connected: the runner's own socket is part of it */
        residue_count(runner, &runner->baseline);
        runner->baseline_known = true;
    }
    struct message_hello hello = {.version = WIRE_VERSION,
                                  .flags = runner->dirty ? HELLO_FLAG_DIRTY : 0,
                                  .task_state = HELLO_TASK_NONE,
                                  .generation = runner->generation,
                                  .baseline = runner->baseline};
    memcpy(hello.marker, runner->marker, sizeof hello.marker);
    if (runner->phase != PHASE_IDLE) {
        hello.task = runner->task.number;
        hello.task_state = runner->phase == PHASE_EXITED ? HELLO_TASK_EXITED : HELLO_TASK_RUNNING;
    }
    uint8_t payload[FRAME_HEADER_BYTES + MESSAGE_HELLO_BYTES_MAX];
    size_t size = message_hello_encode(&hello, payload + FRAME_HEADER_BYTES);
    frame_encode_header(payload, FRAME_HELLO, 0, 0, (uint32_t)size);
    /* Ahead of what was kept: HELLO is the first frame on every connection. The buffer of a new socket takes it whole.
     */
    if (send(runner->fd, payload, FRAME_HEADER_BYTES + size, MSG_NOSIGNAL) != (ssize_t)(FRAME_HEADER_BYTES + size)) {
        conn_drop(runner);
        return;
    }
    runner->synced = true;
    if (runner->phase == PHASE_EXITED)
        task_send_exit(runner);
}

static bool handle_sync(struct runner *runner, const struct frame *frame)
{
    struct message_sync sync;
    if (frame->type != FRAME_SYNC || message_sync_decode(frame->payload, frame->length, &sync) < 0)
        return false;
    memcpy(runner->marker, sync.marker, sizeof runner->marker);
    say_hello(runner);
    return true;
}

static bool get_number(const struct frame *frame, uint32_t *value)
{
    struct wire_reader reader = {.next = frame->payload, .end = frame->payload + frame->length};
    *value = wire_get_u32(&reader);
    return wire_reader_end(&reader) == 0;
}

static bool handle_run(struct runner *runner, const struct frame *frame)
{
    struct message_run run;
    if (runner->phase != PHASE_IDLE || frame->task == 0 || message_run_decode(frame->payload, frame->length, &run) < 0)
        return false;
    task_run(runner, frame->task, &run);
    return true;
}

static bool handle_ping(struct runner *runner, const struct frame *frame)
{
    struct wire_reader reader = {.next = frame->payload, .end = frame->payload + frame->length};
    struct message_pong pong = {.nonce = wire_get_u64(&reader)};
    if (wire_reader_end(&reader) < 0)
        return false;
    uint64_t begun = now_us();
    pong.spawn_errno = (uint32_t)spawn_probe(runner);
    pong.spawn_us = (uint32_t)(now_us() - begun);
    figures_pong(&runner->figures, &pong);
    uint8_t payload[MESSAGE_PONG_BYTES];
    message_pong_encode(&pong, payload);
    conn_send(runner, FRAME_PONG, 0, payload, sizeof payload);
    return true;
}

static bool handle_reset(struct runner *runner)
{
    struct receipt receipt;
    uint8_t payload[RECEIPT_BYTES_MAX];
    if (runner->phase != PHASE_IDLE)
        return false;
    reset(runner, &receipt);
    conn_send(runner, FRAME_RECEIPT, 0, payload, receipt_encode(&receipt, payload));
    return true;
}

/* False: the frame is not allowed here. */
static bool handle_frame(struct runner *runner, const struct frame *frame)
{
    if (!runner->synced)
        return handle_sync(runner, frame);
    bool current = runner->phase != PHASE_IDLE && frame->task == runner->task.number;
    uint32_t number;
    struct message_credit credit;
    switch (frame->type) {
    case FRAME_RUN:
        return handle_run(runner, frame);
    case FRAME_STDIN:
        if (current)
            task_stdin(runner, frame->payload, frame->length, (frame->flags & FRAME_FLAG_EOF) != 0);
        return true;
    case FRAME_CREDIT:
        if (message_credit_decode(frame->payload, frame->length, &credit) < 0)
            return false;
        if (current)
            task_credit(runner, &credit);
        return true;
    case FRAME_SIGNAL:
        if (!get_number(frame, &number) || number < 1 || number > 64)
            return false;
        if (current && runner->phase == PHASE_RUNNING)
            kill(-runner->task.pid, (int)number);
        return true;
    case FRAME_CANCEL:
        if (!get_number(frame, &number))
            return false;
        if (current)
            task_cancel(runner, number);
        return true;
    case FRAME_RESET:
        return handle_reset(runner);
    case FRAME_PING:
        return handle_ping(runner, frame);
    case FRAME_ACK:
        if (current && runner->phase == PHASE_EXITED)
            runner->phase = PHASE_IDLE;
        return true;
    default:
        return false;
    }
}

/* A RUN larger than the static buffer gets a mapping for as long as it is there. */
static bool input_grow(struct runner *runner, size_t size)
{
    uint8_t *larger = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (larger == MAP_FAILED)
        return false;
    memcpy(larger, runner->input, runner->input_length);
    if (runner->input != runner->input_small)
        munmap(runner->input, runner->input_size);
    runner->input = larger;
    runner->input_size = size;
    return true;
}

static void input_shrink(struct runner *runner)
{
    if (runner->input == runner->input_small || runner->input_length > sizeof runner->input_small)
        return;
    memcpy(runner->input_small, runner->input, runner->input_length);
    munmap(runner->input, runner->input_size);
    runner->input = runner->input_small;
    runner->input_size = sizeof runner->input_small;
}

/* Handles whole frames. Arguments, environment and secrets of a task do not stay behind in the buffer. */
static bool handle_input(struct runner *runner)
{
    size_t used = 0;
    while (runner->fd >= 0) {
        struct frame frame;
        ptrdiff_t taken = frame_decode(runner->input + used, runner->input_length - used, &frame);
        if (taken < 0)
            return false;
        if (taken == 0)
            break;
        if (!handle_frame(runner, &frame))
            return false;
        used += (size_t)taken;
    }
    if (runner->fd < 0)
        return true;
    size_t left = runner->input_length - used;
    memmove(runner->input, runner->input + used, left);
    if (used > 0)
        explicit_bzero(runner->input + left, used);
    runner->input_length = left;
    ptrdiff_t needed = frame_size(runner->input, left);
    if (needed > (ptrdiff_t)runner->input_size)
        return input_grow(runner, (size_t)needed);
    input_shrink(runner);
    return true;
}

void conn_read(struct runner *runner)
{
    ssize_t got =
        recv(runner->fd, runner->input + runner->input_length, runner->input_size - runner->input_length, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        conn_drop(runner);
        return;
    }
    runner->input_length += (size_t)got;
    if (!handle_input(runner)) {
        runner_log(runner, 1, "the daemon sent what the protocol does not allow");
        conn_drop(runner);
    }
}
