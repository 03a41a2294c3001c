/* Attach streams of containers, on a real engine. */
#include <fcntl.h>

#include "attached.h"
#include "conformance.h"

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
