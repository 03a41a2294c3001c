/* Attach streams of containers, on a real engine. */
#include <fcntl.h>

#include "conformance.h"

struct attached {
    struct fixture *f;
    struct engine_stream *stream;
    bool open, is_writable, ended, closed_by_user;
    unsigned opened, closed;
    struct error error;
    struct buffer in;
    size_t wanted; /* bytes of `in` */
    bool complete;
    /* test_echo: a pattern instead of `in` */
    bool pattern;
    size_t sent, received, total;
    bool close_at_data;
};

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

static void pattern_send(struct attached *a)
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

static void attach(struct fixture *f, struct attached *a, const char *id)
{
    *a = (struct attached){.f = f};
    CALL(f, a->stream = engine_container_attach(f->engine, id, &handler, a));
    assert_non_null(a->stream);
}

static void attach_ok(struct fixture *f, struct attached *a, const char *id)
{
    attach(f, a, id);
    wait_until(f, &a->open);
    assert_false(a->ended);
}

static void detach(struct attached *a)
{
    CALL(a->f, engine_stream_close(a->stream));
    a->closed_by_user = true;
    buffer_free(&a->in);
}

static void say(struct attached *a, const char *text)
{
    size_t taken;
    CALL(a->f, taken = engine_stream_write(a->stream, text, strlen(text)));
    assert_int_equal(taken, strlen(text));
}

/* Waits for as many bytes, and compares all that came. */
static void hear(struct attached *a, const char *text)
{
    a->wanted = a->received + strlen(text) - buffer_length(&a->in);
    a->complete = buffer_length(&a->in) >= strlen(text);
    wait_until(a->f, &a->complete);
    assert_int_equal(buffer_length(&a->in), strlen(text));
    assert_memory_equal(buffer_data(&a->in), text, strlen(text));
    buffer_consume(&a->in, strlen(text));
}

static void expect_closed(struct attached *a, enum error_code code, const char *words)
{
    wait_until(a->f, &a->ended);
    assert_int_equal(a->closed, 1);
    if (a->error.code != code || strstr(a->error.message, words) == NULL)
        fail_msg("expected %s with \"%s\", got %s: %s", error_code_name(code), words, error_code_name(a->error.code),
                 a->error.message);
    buffer_free(&a->in);
}

static void create_with(struct fixture *f, struct made *made, const char *name, const char *const *entrypoint,
                        struct result *created)
{
    made_spec(f, made, name);
    made->spec.entrypoint = entrypoint;
    made->spec.open_stdin = true;
    create_ok(f, &made->spec, created);
}

static const char *const cat[] = {"/bin/cat", NULL};

/* Attached before it was started; then more than all buffers hold goes both ways at once. */
void test_echo(void **state)
{
    struct fixture *f = *state;
    struct made made;
    struct result created;
    struct attached a;
    create_with(f, &made, "echo", cat, &created);
    attach(f, &a, created.id);
    size_t early;
    CALL(f, early = engine_stream_write(a.stream, "x", 1));
    assert_int_equal(early, 0);
    wait_until(f, &a.open);
    wait_until(f, &a.is_writable);
    start_ok(f, created.id);
    say(&a, "hello\n");
    hear(&a, "hello\n");
    a.pattern = true;
    a.received = 0;
    a.total = a.wanted = 20 * MIB;
    a.complete = false;
    pattern_send(&a);
    wait_until(f, &a.complete);
    wait_ms(f, 50);
    assert_int_equal(a.received, 20 * MIB);
    assert_int_equal(a.sent, 20 * MIB);
    detach(&a);
    remove_ok(f, created.id);
    wait_ms(f, 50);
    assert_int_equal(a.closed, 0);
}

/* What is written to the process while nobody is attached is lost, what was written by us before is not. */
void test_attach_again(void **state)
{
    struct fixture *f = *state;
    static const char *const script[] = {"/bin/sh", "-c", "echo $$; while read x; do echo got $x; done", NULL};
    struct made made;
    struct result created;
    struct attached a;
    create_with(f, &made, "again", script, &created);
    attach_ok(f, &a, created.id);
    start_ok(f, created.id);
    hear(&a, "1\n");
    for (int i = 0; i < 5; i++) {
        char line[32], answer[40];
        snprintf(line, sizeof(line), "round %d\n", i);
        snprintf(answer, sizeof(answer), "got round %d\n", i);
        say(&a, line);
        hear(&a, answer);
        detach(&a);
        attach_ok(f, &a, created.id);
    }
    detach(&a);
    remove_ok(f, created.id);
}

/* All that a process said is there before the end is, and its stderr is for the log. */
void test_stream_of_ended(void **state)
{
    struct fixture *f = *state;
    static const char *const script[] = {
        "/bin/sh", "-c", "echo secret words >&2; read x; yes 0123456789abcde | head -n 65536; exit 3", NULL};
    struct made made;
    struct result created;
    struct attached a;
    create_with(f, &made, "ended", script, &created);
    attach_ok(f, &a, created.id);
    start_ok(f, created.id);
    say(&a, "go\n");
    expect_closed(&a, ERROR_UNAVAILABLE, "ended the stream");
    assert_int_equal(a.received, MIB);
    assert_non_null(strstr(f->logged, "stderr: secret words"));
    assert_non_null(strstr(a.error.message, "attach to container "));
    remove_ok(f, created.id);
}

void test_attach_errors(void **state)
{
    struct fixture *f = *state;
    struct attached a;
    attach(f, &a, "wp-no-such-container");
    expect_closed(&a, ERROR_NOT_FOUND, "wp-no-such-container");
    assert_int_equal(a.opened, 0);
    attach(f, &a, "a/../b");
    expect_closed(&a, ERROR_INVALID, "not a container's name");
}

static unsigned descriptors(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* From inside a callback, at once after opening, by closing the engine: the connection is gone, nothing follows. */
void test_stream_closing(void **state)
{
    struct fixture *shared = *state, *f = fixture_new();
    struct made made;
    struct result created, opened = result_of(f);
    struct attached a, never, last;
    create_with(shared, &made, "closing", cat, &created);
    start_ok(shared, created.id);
    fixture_open(f, NULL, 30000, 0, &opened);
    expect_ok(&opened);
    unsigned before = descriptors();
    attach_ok(f, &a, created.id);
    assert_true(descriptors() > before);
    detach(&a);
    assert_int_equal(descriptors(), before);
    attach_ok(f, &a, created.id);
    a.close_at_data = true;
    say(&a, "hello\n");
    wait_until(f, &a.closed_by_user);
    assert_int_equal(descriptors(), before);
    buffer_free(&a.in);
    attach(f, &never, created.id);
    detach(&never);
    attach_ok(f, &a, created.id);
    attach(f, &last, created.id);
    fixture_close(f);
    assert_int_equal(a.error.code, ERROR_CANCELLED);
    assert_int_equal(a.closed, 1);
    assert_int_equal(last.error.code, ERROR_CANCELLED);
    assert_int_equal(last.closed, 1);
    assert_int_equal(never.opened + never.closed, 0);
    fixture_free(f);
    remove_ok(shared, created.id);
}
