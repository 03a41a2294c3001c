#include "attached.h"

static void expect_from_loop(const struct attached *a)
{
    if (a->f->calling)
        fail_msg("a callback from inside the call");
    assert_false(a->closed_by_user);
    assert_int_equal(a->closed, 0);
}

static void on_opened(void *user)
{
    struct attached *a = user;
    expect_from_loop(a);
    a->opened++;
    a->open = true;
}

static uint8_t pattern_byte(size_t at)
{
    return (uint8_t)((at * 2654435761U) >> 13);
}

static void on_data(void *user, const uint8_t *data, size_t size)
{
    struct attached *a = user;
    expect_from_loop(a);
    assert_int_equal(a->opened, 1);
    assert_true(size > 0);
    for (size_t i = 0; a->pattern && i < size; i++) {
        if (data[i] != pattern_byte(a->received + i))
            fail_msg("byte %zu came back wrong", a->received + i);
    }
    a->received += size;
    if (!a->pattern)
        buffer_append(&a->in, data, size);
    if (a->received >= a->wanted)
        a->complete = true;
    if (a->close_at_data) {
        a->closed_by_user = true;
        engine_stream_close(a->stream);
    }
}

void pattern_send(struct attached *a)
{
    uint8_t piece[50000];
    while (a->sent < a->total) {
        size_t size = a->total - a->sent < sizeof(piece) ? a->total - a->sent : sizeof(piece);
        for (size_t i = 0; i < size; i++)
            piece[i] = pattern_byte(a->sent + i);
        bool calling = a->f->calling;
        a->f->calling = true;
        size_t taken = engine_stream_write(a->stream, piece, size);
        a->f->calling = calling;
        assert_true(taken <= size);
        a->sent += taken;
        if (taken < size)
            return;
    }
}

static void on_writable(void *user)
{
    struct attached *a = user;
    expect_from_loop(a);
    a->is_writable = true;
    if (a->pattern)
        pattern_send(a);
}

static void on_closed(void *user, const struct error *error)
{
    struct attached *a = user;
    expect_from_loop(a);
    assert_non_null(error);
    a->closed++;
    a->error = *error;
    a->ended = true;
}

static const struct engine_stream_handler handler = {on_opened, on_data, on_writable, on_closed};

void attach(struct fixture *f, struct attached *a, const char *id)
{
    *a = (struct attached){.f = f};
    CALL(f, a->stream = engine_container_attach(f->engine, id, &handler, a));
    assert_non_null(a->stream);
}

void attach_ok(struct fixture *f, struct attached *a, const char *id)
{
    attach(f, a, id);
    while (!a->open && !a->ended)
        uv_run(&f->loop, UV_RUN_ONCE);
    if (a->ended)
        fail_msg("%s", a->error.message);
}

void detach(struct attached *a)
{
    CALL(a->f, engine_stream_close(a->stream));
    a->closed_by_user = true;
    buffer_free(&a->in);
}

void say(struct attached *a, const char *text)
{
    size_t taken;
    CALL(a->f, taken = engine_stream_write(a->stream, text, strlen(text)));
    assert_int_equal(taken, strlen(text));
}

void hear(struct attached *a, const char *text)
{
    a->wanted = a->received + strlen(text) - buffer_length(&a->in);
    a->complete = buffer_length(&a->in) >= strlen(text);
    while (!a->complete && !a->ended)
        uv_run(&a->f->loop, UV_RUN_ONCE);
    if (a->ended)
        fail_msg("%s; so far: %.*s", a->error.message, (int)buffer_length(&a->in), (const char *)buffer_data(&a->in));
    assert_int_equal(buffer_length(&a->in), strlen(text));
    assert_memory_equal(buffer_data(&a->in), text, strlen(text));
    buffer_consume(&a->in, strlen(text));
}

void expect_closed(struct attached *a, enum error_code code, const char *words)
{
    wait_until(a->f, &a->ended);
    assert_int_equal(a->closed, 1);
    if (a->error.code != code || strstr(a->error.message, words) == NULL)
        fail_msg("expected %s with \"%s\", got %s: %s", error_code_name(code), words, error_code_name(a->error.code),
                 a->error.message);
    buffer_free(&a->in);
}
