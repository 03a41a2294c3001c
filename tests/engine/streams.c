/* Attach streams of containers, on a real engine. */
#include <archive.h>
#include <archive_entry.h>
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

/* An archive of one file. */
static size_t tar_of(char *tar, size_t size, const char *name, const char *content)
{
    size_t used = 0;
    struct archive *archive = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    archive_write_set_format_ustar(archive);
    archive_write_open_memory(archive, tar, size, &used);
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0755);
    archive_entry_set_size(entry, (la_int64_t)strlen(content));
    assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
    assert_int_equal(archive_write_data(archive, content, strlen(content)), strlen(content));
    archive_entry_free(entry);
    archive_write_free(archive);
    return used;
}

static void put_ok(struct fixture *f, const char *id, const char *path, const char *tar, size_t size)
{
    struct result put = result_of(f);
    CALL(f, engine_container_put(f->engine, id, path, tar, size, on_done, &put));
    expect_ok(&put);
}

/* A file goes into a volume by way of a container that is never started, and is run by another one, whose root is
 * read-only, and which cannot change it. */
void test_put(void **state)
{
    struct fixture *f = *state;
    static const char *const script[] = {"/bin/sh", "-c", "/data/hello; (: >/data/new) || exec /bin/cat", NULL};
    char name[40];
    static char tar[65536];
    size_t size = tar_of(tar, sizeof(tar), "hello", "#!/bin/sh\necho from the volume\n");
    snprintf(name, sizeof(name), "wp-test-%d-put", (int)getpid());
    struct engine_label label = {LABEL, f->label};
    struct engine_volume volume = {name, "/data", true};
    struct made made;
    struct result volume_made = result_of(f), helper, created, missing = result_of(f), removed = result_of(f);
    struct attached a;
    CALL(f, engine_volume_create(f->engine, name, &label, 1, on_id, &volume_made));
    expect_ok(&volume_made);
    made_spec(f, &made, "put");
    made.spec.volumes = &volume;
    made.spec.volume_count = 1;
    create_ok(f, &made.spec, &helper);
    put_ok(f, helper.id, "/data", tar, size);
    CALL(f, engine_container_put(f->engine, helper.id, "/no/such/directory", tar, size, on_done, &missing));
    if (is_podman()) /* makes the directory */
        expect_ok(&missing);
    else
        expect_error(&missing, ERROR_NOT_FOUND, "copy files into container");
    remove_ok(f, helper.id);
    volume.writable = false;
    made_spec(f, &made, "put");
    made.spec.entrypoint = script;
    made.spec.open_stdin = true;
    made.spec.volumes = &volume;
    made.spec.volume_count = 1;
    create_ok(f, &made.spec, &created);
    attach_ok(f, &a, created.id);
    start_ok(f, created.id);
    hear(&a, "from the volume\n");
    say(&a, "alive\n");
    hear(&a, "alive\n");
    detach(&a);
    remove_ok(f, created.id);
    CALL(f, engine_volume_remove(f->engine, name, on_done, &removed));
    expect_ok(&removed);
}

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

/* Every byte passes, also those that are keys to detach with at a terminal. */
void test_bytes(void **state)
{
    struct fixture *f = *state;
    struct made made;
    struct result created;
    struct attached a;
    static const char *const keys[] = {"\x10", "\x11", "\x03", "\x04", "\xff", "\n"};
    create_with(f, &made, "bytes", cat, &created);
    attach_ok(f, &a, created.id);
    start_ok(f, created.id);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        say(&a, keys[i]);
        hear(&a, keys[i]);
    }
    detach(&a);
    remove_ok(f, created.id);
}

/* Podman's monitor, 2.1, ends the process's stdin when a stream is closed, however that is done. */
static void expect_stdin_ended(struct fixture *f, const char *id)
{
    struct result status;
    do {
        wait_ms(f, 20);
        status = result_of(f);
        CALL(f, engine_container_inspect(f->engine, id, on_inspect, &status));
        expect_ok(&status);
    } while (status.running);
}

/* The process goes on while nobody is attached, and what was written to it before is not lost. */
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
        if (is_podman()) {
            expect_stdin_ended(f, created.id);
            remove_ok(f, created.id);
            return;
        }
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
    static const char *const talks[] = {"/bin/sh", "-c", "while :; do echo x; sleep 0.05; done", NULL};
    create_with(shared, &made, "closing", talks, &created);
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
