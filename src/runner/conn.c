/* The frames of the connection to the daemon: built in one linear output buffer, handled where they arrived. */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "runner/runner.h"

#define LOGS_PER_SECOND 20U
#define OUTPUT_RESERVE  4096U /* for small frames when output has filled the buffer */

/* --- output ------------------------------------------------------------------------------------------ */

/* Makes the unsent part begin at the buffer's start. */
static void output_slide(struct runner *runner)
{
    size_t start = runner->output_start;
    if (start == 0)
        return;
    memmove(runner->output, runner->output + start, runner->output_end - start);
    runner->output_start = 0;
    runner->output_end -= start;
}

static void note_output(struct runner *runner, size_t end)
{
    if (end > runner->output_touched)
        runner->output_touched = end;
}

uint8_t *conn_reserve(struct runner *runner, size_t size)
{
    if (sizeof runner->output - runner->output_end < FRAME_HEADER_BYTES + size)
        output_slide(runner);
    if (sizeof runner->output - runner->output_end < FRAME_HEADER_BYTES + size)
        return NULL;
    note_output(runner, runner->output_end + FRAME_HEADER_BYTES + size);
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

bool conn_spare(const struct runner *runner)
{
    size_t room = sizeof runner->output - (runner->output_end - runner->output_start);
    return runner->synced && room > OUTPUT_RESERVE / 2;
}

void conn_put(struct runner *runner, const uint8_t *data, size_t size)
{
    memcpy(runner->output + runner->output_end, data, size);
    runner->output_end += size;
    note_output(runner, runner->output_end);
}

void conn_wipe(struct runner *runner)
{
    forget_bytes(runner->output, runner->output_start);
    forget_bytes(runner->output + runner->output_end, runner->output_touched - runner->output_end);
    runner->output_touched = runner->output_end;
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

/* --- input --------------------------------------------------------------------------------------------- */

static void say_hello(struct runner *runner, const struct message_sync *sync)
{
    if (!runner->baseline_known) { /* counted when connected: the runner's own socket is part of it */
        residue_count(runner, &runner->baseline);
        runner->baseline_known = true;
    }
    struct message_hello hello = {.version = WIRE_VERSION,
                                  .flags = runner->dirty ? HELLO_FLAG_DIRTY : 0,
                                  .generation = runner->generation,
                                  .baseline = runner->baseline};
    memcpy(hello.marker, runner->marker, sizeof hello.marker);
    uint8_t payload[MESSAGE_HELLO_BYTES_MAX];
    runner->synced = true;
    task_resume(runner, sync, &hello);
    conn_send(runner, FRAME_HELLO, 0, payload, message_hello_encode(&hello, payload));
    if (runner->warning != NULL)
        runner_log(runner, 1, runner->warning);
    runner->warning = NULL;
}

static bool handle_sync(struct runner *runner, const struct frame *frame)
{
    struct message_sync sync;
    if (frame->type != FRAME_SYNC || message_sync_decode(frame->payload, frame->length, &sync) < 0)
        return false;
    memcpy(runner->marker, sync.marker, sizeof runner->marker);
    runner->output_start = runner->output_end = 0; /* said to nobody; HELLO is the first that is heard */
    files_cancel(runner, 0);                       /* it ended with the connection */
    say_hello(runner, &sync);
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
    /* Nothing of it is needed any more, and there may be secrets in it. */
    forget_bytes((void *)(uintptr_t)frame->payload, frame->length);
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
    files_cancel(runner, 0);
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
    struct message_winch winch;
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
        if (credit.stream == WIRE_FILES)
            files_credit(runner, frame->task, credit.bytes);
        else if (current)
            task_credit(runner, &credit);
        return true;
    case FRAME_WINCH:
        if (message_winch_decode(frame->payload, frame->length, &winch) < 0)
            return false;
        if (current)
            task_winch(runner, &winch);
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
        if (frame->task != 0)
            files_cancel(runner, frame->task);
        return true;
    case FRAME_PUT:
        return files_put(runner, frame);
    case FRAME_GET:
        return files_get(runner, frame);
    case FRAME_FILE:
        files_feed(runner, frame);
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

/* What follows a frame on the attach stream. False: the frame was cut short. */
static bool tail_sound(const struct runner *runner, const uint8_t *tail)
{
    return link_tail(runner) == 0 || tail[FRAME_TAIL_MARKER] == 0;
}

/* Of this conversation, as SYNC always is: it comes right behind the token. */
static bool tail_present(const struct runner *runner, const uint8_t *tail)
{
    return link_tail(runner) == 0 || !runner->synced || memcmp(tail, runner->marker, FRAME_TAIL_MARKER) == 0;
}

ptrdiff_t conn_handle(struct runner *runner, size_t size)
{
    size_t used = 0;
    while (runner->fd >= 0) {
        struct frame frame;
        ptrdiff_t taken = frame_decode(runner->input + used, size - used, &frame);
        if (taken < 0)
            return -1;
        if (taken == 0 || used + (size_t)taken + link_tail(runner) > size)
            break;
        const uint8_t *tail = runner->input + used + (size_t)taken;
        if (!tail_sound(runner, tail) || (tail_present(runner, tail) && !handle_frame(runner, &frame)))
            return -1;
        used += (size_t)taken + link_tail(runner);
    }
    return (ptrdiff_t)used;
}
