/* The runner's side of file transfer: its own source, with the connection replaced by a list of the frames it sends.
 * Its mounts are scratch directories. What a daemon may ask for wrongly, and what a task may have left there. Then, as
 * root, the real runner as PID 1 of a namespace. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "files_helper.h"
#include "runner/runner.h"
#include "tree/memory.h"

static struct runner runner;
static const char *root; /* of the mount "/workspace", with "outside" and "canary" beside it */

/* --- the connection's doubles --------------------------------------------------------------------- */

static struct message_file_result result;
static char result_text[1000], result_path[FILE_PATH_MAX + 1];
static unsigned results, ended;
static uint64_t credited, sent_bytes;
static struct tree_memory received;
static char failed_text[500];
static unsigned failed_error;

static void take_file(const struct frame *frame)
{
    const uint8_t *next = frame->payload, *end = next + frame->length;
    assert_true(frame->length > 0 && ended == 0);
    sent_bytes += frame->length;
    tree_memory_feed(&received, frame->payload, frame->length);
    while (next < end) {
        struct file_record record;
        ptrdiff_t taken = file_record_decode(next, (size_t)(end - next), &record);
        assert_true(taken > 0);
        next += taken;
        if (record.kind == RECORD_FAIL) {
            failed_error = record.error;
            snprintf(failed_text, sizeof failed_text, "%.200s|%.200s", record.path, record.link);
        }
        bool last = record.kind == RECORD_FAIL || record.kind == RECORD_END;
        assert_int_equal(last && next == end, last);
        assert_true(!last || (frame->flags & FRAME_FLAG_EOF) != 0);
    }
    ended += (frame->flags & FRAME_FLAG_EOF) != 0;
}

static void take_frame(const struct frame *frame)
{
    struct message_credit credit;
    assert_int_equal(frame->task, 7);
    switch (frame->type) {
    case FRAME_FILE:
        take_file(frame);
        break;
    case FRAME_FILE_RESULT:
        assert_int_equal(message_file_result_decode(frame->payload, frame->length, &result), 0);
        snprintf(result_text, sizeof result_text, "%s", result.text);
        snprintf(result_path, sizeof result_path, "%s", result.path);
        results++;
        break;
    case FRAME_CREDIT:
        assert_int_equal(message_credit_decode(frame->payload, frame->length, &credit), 0);
        assert_int_equal(credit.stream, WIRE_FILES);
        credited += credit.bytes;
        break;
    default:
        fail_msg("a frame of type %u", frame->type);
    }
}

void link_flush(struct runner *unused)
{
    struct frame frame;
    (void)unused;
    size_t at = 0;
    while (at < runner.output_end) {
        ptrdiff_t taken = frame_decode(runner.output + at, runner.output_end - at, &frame);
        assert_true(taken > 0);
        take_frame(&frame);
        at += (size_t)taken;
    }
    runner.output_end = 0;
}

uint8_t *conn_reserve(struct runner *unused, size_t size)
{
    (void)unused;
    if (sizeof runner.output - runner.output_end < FRAME_HEADER_BYTES + size)
        return NULL;
    return runner.output + runner.output_end + FRAME_HEADER_BYTES;
}

size_t conn_room(struct runner *unused)
{
    (void)unused;
    size_t room = sizeof runner.output - runner.output_end, kept = FRAME_HEADER_BYTES + 4096;
    return room > kept ? room - kept : 0;
}

void conn_commit(struct runner *unused, uint8_t type, uint8_t flags, uint32_t task, size_t size)
{
    (void)unused;
    frame_encode_header(runner.output + runner.output_end, type, flags, task, (uint32_t)size);
    runner.output_end += FRAME_HEADER_BYTES + size;
}

void conn_send(struct runner *unused, uint8_t type, uint32_t task, const void *payload, size_t size)
{
    uint8_t *room = conn_reserve(unused, size);
    assert_non_null(room);
    memcpy(room, payload, size);
    conn_commit(unused, type, 0, task, size);
}

/* --- set up --------------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    (void)state;
    root = scratch_new();
    shell("cd '%s' && mkdir mount inner queue outside && printf whole > canary && printf whole > outside/canary", root);
    memset(&runner, 0, offsetof(struct runner, input_small));
    runner.synced = true;
    runner.output_end = 0;
    static const char *const mounts[] = {"/workspace", "/workspace/inner", "/dev/mqueue"};
    static const char *const directories[] = {"mount", "inner", "queue"};
    runner.mount_count = 3;
    for (unsigned i = 0; i < 3; i++) {
        runner.mounts[i] = mounts[i];
        runner.mount_fds[i] = open(path_of("%s/%s", root, directories[i]), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(runner.mount_fds[i] >= 0);
    }
    results = ended = failed_error = 0;
    credited = sent_bytes = 0;
    failed_text[0] = result_text[0] = result_path[0] = '\0';
    tree_memory_free(&received);
    tree_memory_init(&received, 1 << 30, 0);
    return 0;
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static int tear_down(void **state)
{
    (void)state;
    files_cancel(&runner, 0);
    for (unsigned i = 0; i < 3; i++)
        close(runner.mount_fds[i]);
    /* whatever happened, nothing beside the mount was touched */
    assert_file(path_of("%s/canary", root), "whole");
    assert_file(path_of("%s/outside/canary", root), "whole");
    shell("test $(ls -A '%s/outside' | wc -l) = 1 && test $(ls -A '%s' | wc -l) = 5", root, root);
    scratch_remove(root);
    return 0;
}

static void put(const char *destination, const char *name, uint32_t flags)
{
    uint8_t payload[MESSAGE_PUT_BYTES_MAX];
    struct message_put message = {.flags = flags, .destination = destination, .name = name};
    struct frame frame = {.type = FRAME_PUT, .task = 7, .payload = payload};
    frame.length = (uint32_t)message_put_encode(&message, payload);
    assert_true(files_put(&runner, &frame));
    link_flush(&runner);
}

static void feed(const struct records *stream, uint8_t flags)
{
    struct frame frame = {.type = FRAME_FILE, .flags = flags, .task = 7, .payload = stream->bytes};
    frame.length = (uint32_t)stream_size(stream);
    files_feed(&runner, &frame);
    link_flush(&runner);
}

/* A file that becomes "x" in one go; the result's errno. */
static unsigned put_file(const char *destination, const char *name, uint32_t flags)
{
    struct records stream;
    results = 0;
    stream_begin(&stream);
    stream_file(&stream, "", "x");
    tree_encode_end(&stream.encoder);
    put(destination, name, flags);
    if (results == 0)
        feed(&stream, FRAME_FLAG_EOF);
    assert_int_equal(results, 1);
    assert_int_equal(runner.files.kind, FILES_NONE);
    return result.error;
}

static bool ask(const char *source, uint64_t max_bytes, uint64_t max_entries)
{
    uint8_t payload[MESSAGE_GET_BYTES_MAX];
    struct message_get message = {.source = source, .max_bytes = max_bytes, .max_entries = max_entries};
    struct frame frame = {.type = FRAME_GET, .task = 7, .payload = payload};
    frame.length = (uint32_t)message_get_encode(&message, payload);
    ended = failed_error = 0;
    failed_text[0] = '\0';
    tree_memory_free(&received);
    tree_memory_init(&received, 1 << 30, 0);
    bool allowed = files_get(&runner, &frame);
    link_flush(&runner);
    return allowed;
}

/* The whole of it, giving credit. */
static void get(const char *source)
{
    assert_true(ask(source, 0, 0));
    for (unsigned i = 0; ended == 0; i++) {
        assert_true(i < 1000000);
        files_step(&runner);
        link_flush(&runner);
        files_credit(&runner, 7, 65536);
    }
    assert_int_equal(runner.files.kind, FILES_NONE);
}

/* --- PUT ------------------------------------------------------------------------------------------ */

static void test_a_tree_is_put_and_answered_with_its_sum(void **state)
{
    (void)state;
    struct records stream;
    unsigned before = open_descriptors();
    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_DIRECTORY, "d", "", 0);
    stream_file(&stream, "d/f", "content");
    stream_entry(&stream, FILE_SYMLINK, "d/l", "/anywhere", 0); /* inside the container a link may lead anywhere */
    stream_entry(&stream, FILE_HARDLINK, "h", "d/f", 0);
    stream_entry(&stream, FILE_DIRECTORY_DONE, "d", "", 0);
    tree_encode_end(&stream.encoder);
    put("/workspace", "tree", 0);
    assert_int_equal(results, 0);
    assert_true(runner.dirty);
    feed(&stream, FRAME_FLAG_EOF);
    assert_int_equal(results, 1);
    assert_int_equal(result.error, 0);
    assert_int_equal(result.entries, 5);
    assert_int_equal(result.bytes, 7);
    assert_memory_equal(result.digest, stream.encoder.out.next - SHA256_BYTES, SHA256_BYTES);
    assert_file(path_of("%s/mount/tree/d/f", root), "content");
    assert_file(path_of("%s/mount/tree/h", root), "content");
    assert_int_equal(open_descriptors(), before);
}

static void test_destinations(void **state)
{
    (void)state;
    shell("cd '%s/mount' && mkdir d && printf old > f && ln -s ../outside out && ln -s canary l", root);
    assert_int_equal(put_file("/workspace", "a", 0), 0);
    assert_file(path_of("%s/mount/a", root), "x");
    assert_int_equal(put_file("/workspace/./d//", "a", 0), 0);
    assert_file(path_of("%s/mount/d/a", root), "x");
    assert_int_equal(put_file("/workspace/f", "a", 0), 0);
    assert_file(path_of("%s/mount/f", root), "x");
    assert_int_equal(put_file("/workspace/new/b", "a", 0), ENOENT);
    assert_int_equal(put_file("/workspace/new/b", "a", PUT_MAKE_PARENTS), 0);
    assert_file(path_of("%s/mount/new/b", root), "x");
    assert_int_equal(put_file("/workspace/e/", "a", 0), ENOENT);
    assert_int_equal(put_file("/workspace/e/", "a", PUT_MAKE_PARENTS), 0);
    assert_file(path_of("%s/mount/e/a", root), "x");
    assert_int_equal(put_file("/workspace/inner/i", "a", 0), 0); /* the innermost mount */
    assert_file(path_of("%s/inner/i", root), "x");
    assert_int_equal(put_file("/workspace/l", "a", 0), 0); /* a link is replaced */
    assert_file(path_of("%s/mount/l", root), "x");

    assert_int_equal(put_file("/workspace/f/", "a", 0), ENOTDIR);
    assert_int_equal(put_file("/workspace/d", "", 0), EISDIR); /* a file where a directory's content is meant */
    assert_int_equal(put_file("/workspace/out/a", "a", PUT_MAKE_PARENTS), ENOTDIR);
    assert_int_equal(put_file("/workspace/out/", "a", PUT_MAKE_PARENTS), ELOOP);
    static const char *const outside[] = {"/",        "/etc/x",       "/workspacex/a", "/workspace2", "/dev/mqueue/a",
                                          "/dev/shm", "//workspace/a"};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++)
        assert_int_equal(put_file(outside[i], "a", PUT_MAKE_PARENTS), EROFS);
    static const char *const up[] = {"/workspace/../outside/a", "/workspace/..", "/workspace/d/../../outside/a",
                                     "/workspace/../", "/workspace/d/.."};
    for (size_t i = 0; i < sizeof up / sizeof up[0]; i++)
        assert_int_equal(put_file(up[i], "a", PUT_MAKE_PARENTS), EINVAL);
}

static void test_frames_that_are_not_allowed(void **state)
{
    (void)state;
    struct frame frame = {.type = FRAME_PUT, .task = 7, .payload = (const uint8_t *)"junk", .length = 4};
    assert_false(files_put(&runner, &frame));
    assert_false(files_get(&runner, &frame));
    assert_false(ask("relative", 0, 0));
}

static void assert_put_fails(struct records *stream, unsigned error)
{
    unsigned before = open_descriptors();
    results = 0;
    put("/workspace", "", 0);
    feed(stream, FRAME_FLAG_EOF);
    assert_int_equal(results, 1);
    if (result.error != error)
        fail_msg("%u: %s", result.error, result_text);
    feed(stream, FRAME_FLAG_EOF); /* what still comes is dropped */
    assert_int_equal(results, 1);
    assert_int_equal(open_descriptors(), before);
    shell("test -z \"$(find '%s' -name '.warmpool*')\"", root);
}

static void test_hostile_streams(void **state)
{
    (void)state;
    struct records stream;
    stream_begin(&stream); /* a link, then through it */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_SYMLINK, "a", "../outside", 0);
    stream_file(&stream, "a/canary", "broken");
    assert_put_fails(&stream, ENOTDIR);

    stream_begin(&stream); /* a directory in the place of a link to one */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_SYMLINK, "b", "../outside", 0);
    stream_entry(&stream, FILE_DIRECTORY, "b", "", 0);
    assert_put_fails(&stream, ENOTDIR);

    stream_begin(&stream); /* attributes through a link */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_SYMLINK, "c", "../outside", 0);
    stream_entry(&stream, FILE_DIRECTORY_DONE, "c", "", 0);
    assert_put_fails(&stream, ENOTDIR);

    stream_begin(&stream); /* a hard link through a link */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_SYMLINK, "d", "../outside", 0);
    stream_entry(&stream, FILE_HARDLINK, "e", "d/canary", 0);
    assert_put_fails(&stream, ENOENT);

    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_file(&stream, "../canary", "broken");
    assert_put_fails(&stream, EBADMSG);

    stream_begin(&stream); /* the last frame, and no end */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    assert_put_fails(&stream, EBADMSG);

    stream_begin(&stream); /* a sum that is wrong: the file does not appear */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_REGULAR, "wrong", "", 3);
    stream_data(&stream, "abc");
    stream.encoder.out.next[-1] ^= 1;
    tree_encode_sum(&stream.encoder);
    assert_put_fails(&stream, EBADMSG);
    assert_absent(path_of("%s/mount/wrong", root));

    stream_begin(&stream); /* the sender gives up */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    tree_encode_fail(&stream.encoder, EACCES, "secret", "cannot open it");
    assert_put_fails(&stream, EACCES);
    assert_string_equal(result_path, "secret");
    assert_string_equal(result_text, "cannot open it");
}

static void test_credit_is_given_as_it_is_used(void **state)
{
    (void)state;
    static char text[30001];
    struct records stream;
    memset(text, 'x', sizeof text - 1);
    put("/workspace", "f", 0);
    uint64_t fed = 0;
    stream_begin(&stream);
    stream_entry(&stream, FILE_REGULAR, "", "", 10 * (sizeof text - 1));
    for (int i = 0; i < 10; i++) {
        stream_data(&stream, text);
        fed += stream_size(&stream);
        feed(&stream, 0);
        stream.encoder.out.next = stream.bytes;
        assert_true(fed - credited < FILES_CREDIT_BATCH);
    }
    tree_encode_sum(&stream.encoder);
    tree_encode_end(&stream.encoder);
    feed(&stream, FRAME_FLAG_EOF);
    assert_int_equal(result.error, 0);
    shell("test $(stat -c %%s '%s/mount/f') = 300000", root);
}

static void test_a_cancelled_put_leaves_no_half_file(void **state)
{
    (void)state;
    struct records stream;
    unsigned before = open_descriptors();
    put("/workspace", "f", 0);
    stream_begin(&stream);
    stream_entry(&stream, FILE_REGULAR, "", "", 10);
    stream_data(&stream, "half");
    feed(&stream, 0);
    files_cancel(&runner, 8); /* another one's */
    assert_int_equal(runner.files.kind, FILES_PUT);
    files_cancel(&runner, 7);
    assert_int_equal(results, 0);
    assert_int_equal(open_descriptors(), before);
    shell("test -z \"$(ls -A '%s/mount')\"", root);
}

static void test_a_full_mount_is_an_error(void **state)
{
    (void)state;
    struct records stream;
    if (geteuid() != 0)
        skip();
    shell("mount -t tmpfs -o size=64k tmpfs '%s/mount'", root);
    close(runner.mount_fds[0]);
    runner.mount_fds[0] = open(path_of("%s/mount", root), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    static char text[30001];
    memset(text, 'x', sizeof text - 1);
    put("/workspace", "f", 0);
    for (int i = 0; i < 5 && results == 0; i++) {
        stream_begin(&stream);
        if (i == 0)
            stream_entry(&stream, FILE_REGULAR, "", "", 1 << 20);
        stream_data(&stream, text);
        feed(&stream, 0);
    }
    unsigned error = result.error;
    unsigned left = (unsigned)results;
    close(runner.mount_fds[0]);
    runner.mount_fds[0] = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    shell("r=0; test -z \"$(ls -A '%s/mount')\" || r=1; umount -l '%s/mount'; exit $r", root, root);
    assert_int_equal(left, 1);
    assert_int_equal(error, ENOSPC);
}

/* A task that is still there (in a lease) swaps a directory for a link, as fast as it can. */
static volatile bool racing;

static void *race(void *unused)
{
    const char *a = path_of("%s/mount/tree/a", root), *b = path_of("%s/mount/tree/b", root);
    (void)unused;
    while (racing)
        syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2 /* RENAME_EXCHANGE */);
    return NULL;
}

static void test_a_race_for_a_link_never_leads_outside(void **state)
{
    (void)state;
    pthread_t thread;
    unsigned refused = 0;
    shell("cd '%s/mount' && mkdir -p tree/a && ln -s ../../outside tree/b", root);
    racing = true;
    assert_int_equal(pthread_create(&thread, NULL, race, NULL), 0);
    for (int i = 0; i < 3000; i++) {
        struct records stream;
        stream_begin(&stream);
        stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
        stream_file(&stream, "c", "x"); /* so that "a" is looked up anew */
        stream_file(&stream, "a/evil", "x");
        tree_encode_end(&stream.encoder);
        results = 0;
        put("/workspace", "tree", 0);
        feed(&stream, FRAME_FLAG_EOF);
        assert_int_equal(results, 1);
        refused += result.error != 0;
        get("/workspace/tree/a/canary"); /* nor is anything read from there */
        assert_int_not_equal(failed_error, 0);
    }
    racing = false;
    pthread_join(thread, NULL);
    assert_absent(path_of("%s/outside/evil", root));
    print_message("%u of 3000 met the link\n", refused);
}

/* --- GET ------------------------------------------------------------------------------------------ */

static void test_a_tree_is_got_whole(void **state)
{
    (void)state;
    unsigned before = open_descriptors();
    shell("cd '%s/mount' && mkdir -p tree/d && printf one > tree/a && printf two > tree/d/b && ln -s /etc/passwd "
          "tree/l && "
          "mkfifo tree/fifo && head -c 1000000 /dev/zero | tr '\\0' x > tree/d/big",
          root);
    get("/workspace/tree");
    assert_int_equal(failed_error, 0);
    assert_true(received.done);
    assert_int_equal(received.count, 3); /* regular files: nothing was followed */
    assert_int_equal(received.check.entries, 6);
    assert_int_equal(received.check.skipped, 1);
    assert_int_equal(received.bytes, 1000006);
    assert_int_equal(open_descriptors(), before);
    get("/workspace/tree/d/b");
    assert_memory_equal(received.files[0].data, "two", 3);
    assert_string_equal(received.files[0].path, "");
    get("/workspace/tree/d/."); /* the content, as a root of its own */
    assert_int_equal(received.count, 2);
    get("/workspace");
    assert_int_equal(received.count, 3);
    get("/workspace/tree/l"); /* a link is sent as one */
    assert_int_equal(failed_error, 0);
    assert_int_equal(received.count, 0);
    assert_int_equal(received.check.entries, 1);
}

static void assert_get_fails(const char *source, unsigned error)
{
    unsigned before = open_descriptors();
    get(source);
    if (failed_error != error)
        fail_msg("%s: %u %s", source, failed_error, failed_text);
    assert_int_equal(open_descriptors(), before);
}

static void test_what_cannot_be_got(void **state)
{
    (void)state;
    shell("cd '%s/mount' && printf x > file && mkfifo fifo && ln -s ../outside out && mkdir d", root);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/mount/s", root);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    assert_get_fails("/workspace/fifo", EINVAL);
    assert_get_fails("/workspace/s", EINVAL);
    if (geteuid() == 0 && mknod(path_of("%s/mount/null", root), S_IFCHR | 0666, 0x103) == 0)
        assert_get_fails("/workspace/null", EINVAL);
    assert_get_fails("/workspace/absent", ENOENT);
    assert_get_fails("/workspace/absent/x", ENOENT);
    assert_get_fails("/workspace/file/", ENOTDIR);
    assert_get_fails("/workspace/file/x", ENOTDIR);
    assert_get_fails("/workspace/out/", ENOTDIR);
    assert_get_fails("/workspace/out/canary", ENOTDIR);
    assert_get_fails("/workspace/..", EINVAL);
    assert_get_fails("/workspace/../canary", EINVAL);
    assert_get_fails("/workspace/d/../../canary", EINVAL);
    assert_get_fails("/", EROFS);
    assert_get_fails("/etc/passwd", EROFS);
    assert_get_fails("/dev/mqueue", EROFS);
    assert_get_fails("/workspace2", EROFS);
}

static void test_limits_end_a_get(void **state)
{
    (void)state;
    shell("cd '%s/mount' && printf 12345 > a && printf 12345 > b && truncate -s 1G c", root);
    assert_true(ask("/workspace", 9, 0));
    files_step(&runner);
    link_flush(&runner);
    assert_int_equal(failed_error, EFBIG);
    assert_true(ask("/workspace", 10, 0)); /* holes count for nothing */
    files_step(&runner);
    link_flush(&runner);
    assert_int_equal(failed_error, 0);
    assert_true(ask("/workspace", 0, 3));
    files_step(&runner);
    link_flush(&runner);
    assert_int_equal(failed_error, E2BIG);
}

static void test_a_get_waits_for_credit_and_for_room(void **state)
{
    (void)state;
    shell("head -c 2000000 /dev/zero | tr '\\0' x > '%s/mount/big'", root);
    assert_true(ask("/workspace/big", 0, 0));
    for (int i = 0; i < 10; i++)
        files_step(&runner);
    link_flush(&runner);
    assert_true(sent_bytes <= FILES_CREDIT_INITIAL);
    assert_true(sent_bytes > FILES_CREDIT_INITIAL - FILE_RECORD_MAX);
    assert_false(files_ready(&runner));
    files_credit(&runner, 8, 1 << 20); /* another one's */
    assert_false(files_ready(&runner));
    files_credit(&runner, 7, FILES_CREDIT_BATCH);
    assert_true(files_ready(&runner));
    runner.output_end = sizeof runner.output - FRAME_DATA_MAX; /* nobody takes what is there */
    assert_false(files_ready(&runner));
    runner.output_end = 0;
    runner.synced = false;
    assert_false(files_ready(&runner));
    runner.synced = true;
    uint64_t before = sent_bytes;
    files_credit(&runner, 7, 1 << 30);
    files_step(&runner); /* one turn is bounded, whatever the credit */
    assert_true(sent_bytes - before <= 256 * 1024 + FRAME_DATA_MAX);
    assert_int_equal(ended, 0);
}

static void test_a_file_that_shrinks_fails_and_one_that_grows_ends(void **state)
{
    (void)state;
    shell("head -c 2000000 /dev/zero | tr '\\0' x > '%s/mount/big'", root);
    for (int i = 0; i < 2; i++) {
        assert_true(ask("/workspace/big", 0, 0));
        files_step(&runner);
        link_flush(&runner);
        assert_int_equal(truncate(path_of("%s/mount/big", root), i == 0 ? 3000000 : 100), 0);
        files_credit(&runner, 7, 1 << 30);
        while (ended == 0) {
            files_step(&runner);
            link_flush(&runner);
        }
        if (i == 0) {
            assert_int_equal(failed_error, 0);
            assert_int_equal(received.bytes, 2000000);
        } else {
            assert_int_equal(failed_error, EIO);
            assert_false(received.done);
        }
    }
}

/* Cut where a hole began: what is missing must not pass for a hole. */
static void test_a_sparse_file_that_shrinks_fails(void **state)
{
    (void)state;
    shell("cd '%s/mount' && head -c 409600 /dev/zero | tr '\\0' x > f && printf end | dd of=f bs=1 seek=10000000 "
          "conv=notrunc "
          "status=none",
          root);
    assert_true(ask("/workspace/f", 0, 0));
    files_step(&runner);
    link_flush(&runner);
    assert_int_equal(truncate(path_of("%s/mount/f", root), 409600), 0);
    files_credit(&runner, 7, 1 << 30);
    while (ended == 0) {
        files_step(&runner);
        link_flush(&runner);
    }
    assert_int_equal(failed_error, EIO);
}

static void test_deep_trees(void **state)
{
    (void)state;
    char name[2 * FILE_DEPTH_MAX + 8] = "";
    unsigned before = open_descriptors();
    int at = open(path_of("%s/mount", root), O_RDONLY | O_DIRECTORY);
    for (unsigned i = 0; i < FILE_DEPTH_MAX; i++) {
        assert_int_equal(mkdirat(at, "d", 0755), 0);
        int next = openat(at, "d", O_RDONLY | O_DIRECTORY);
        close(at);
        at = next;
    }
    get("/workspace"); /* as deep as it may be */
    assert_int_equal(failed_error, 0);
    assert_int_equal(received.check.entries, FILE_DEPTH_MAX + 1);
    assert_int_equal(mkdirat(at, "d", 0755), 0);
    close(at);
    get("/workspace"); /* one more */
    assert_int_equal(failed_error, ENAMETOOLONG);
    assert_int_equal(open_descriptors(), before);
    struct records stream; /* and into it */
    for (unsigned i = 0; i < FILE_DEPTH_MAX; i++)
        memcpy(name + 2 * i, "e/", 3);
    name[2 * FILE_DEPTH_MAX - 1] = '\0';
    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_file(&stream, name, "deep");
    tree_encode_end(&stream.encoder);
    put("/workspace", "", 0);
    feed(&stream, FRAME_FLAG_EOF);
    assert_int_equal(result.error, 0);
    assert_file(path_of("%s/mount/%s", root, name), "deep");
}

static void test_many_entries_in_one_directory(void **state)
{
    (void)state;
    shell("cd '%s/mount' && for i in $(seq 1500); do mkdir d$i; echo $i > d$i/f; done", root);
    get("/workspace"); /* reading goes on where it was after each subdirectory */
    assert_int_equal(failed_error, 0);
    assert_int_equal(received.count, 1500);
    assert_int_equal(received.check.entries, 3001);
}

/* --- the real one --------------------------------------------------------------------------------- */

struct peer {
    int fd;
    pid_t pid;
    uint8_t in[512 * 1024];
    size_t length;
};

static void say(struct peer *peer, uint8_t type, uint8_t flags, const void *payload, size_t size)
{
    uint8_t header[FRAME_HEADER_BYTES];
    frame_encode_header(header, type, flags, 7, (uint32_t)size);
    assert_int_equal(write(peer->fd, header, sizeof header), sizeof header);
    for (size_t at = 0; at < size;) {
        ssize_t written = write(peer->fd, (const uint8_t *)payload + at, size - at);
        assert_true(written > 0);
        at += (size_t)written;
    }
}

/* The next frame; its payload is there until the next call. */
static void hear(struct peer *peer, struct frame *frame)
{
    static uint8_t payload[FRAME_DATA_MAX];
    ptrdiff_t taken;
    while ((taken = frame_decode(peer->in, peer->length, frame)) == 0) {
        struct pollfd set = {.fd = peer->fd, .events = POLLIN};
        assert_int_equal(poll(&set, 1, 20000), 1);
        ssize_t got = read(peer->fd, peer->in + peer->length, sizeof peer->in - peer->length);
        assert_true(got > 0);
        peer->length += (size_t)got;
    }
    assert_true(taken > 0);
    memcpy(payload, frame->payload, frame->length);
    frame->payload = payload;
    peer->length -= (size_t)taken;
    memmove(peer->in, peer->in + taken, peer->length);
}

static void begin(struct peer *peer, const char *program)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/sock", root);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 8), 0);
    peer->pid = fork();
    if (peer->pid == 0) {
        execlp("unshare", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", program, "--socket",
               address.sun_path, path_of("%s/mount", root), (char *)NULL);
        _exit(127);
    }
    struct pollfd set = {.fd = listener, .events = POLLIN};
    assert_int_equal(poll(&set, 1, 20000), 1);
    peer->fd = accept(listener, NULL, NULL);
    close(listener);
    unlink(address.sun_path);
    struct message_sync sync = {.version = WIRE_VERSION};
    uint8_t payload[MESSAGE_SYNC_BYTES];
    struct frame frame = {0};
    message_sync_encode(&sync, payload);
    say(peer, FRAME_SYNC, 0, payload, sizeof payload);
    while (frame.type != FRAME_HELLO)
        hear(peer, &frame);
}

static void test_the_real_runner_as_pid_1(void **state)
{
    (void)state;
    char self[PATH_MAX] = "";
    if (geteuid() != 0)
        skip();
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0); /* BUILD/tests/unit/... */
    *strrchr(self, '/') = '\0';
    const char *program = path_of("%s/../../src/runner/warmpool-runner", self);
    static struct peer peer;
    struct records stream;
    struct frame frame;
    struct tree_memory memory;
    uint8_t payload[MESSAGE_PUT_BYTES_MAX];
    begin(&peer, program);

    struct message_put put_message = {.destination = path_of("%s/mount", root), .name = "tree"};
    say(&peer, FRAME_PUT, 0, payload, message_put_encode(&put_message, payload));
    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_REGULAR, "big", "", 3000000);
    static char text[30001];
    memset(text, 'x', sizeof text - 1);
    uint64_t credit = FILES_CREDIT_INITIAL;
    for (int i = 0; i < 100; i++) {
        stream_data(&stream, text);
        credit -= stream_size(&stream);
        say(&peer, FRAME_FILE, 0, stream.bytes, stream_size(&stream));
        stream.encoder.out.next = stream.bytes;
        while (credit < FRAME_DATA_MAX) {
            struct message_credit more;
            hear(&peer, &frame);
            assert_int_equal(frame.type, FRAME_CREDIT);
            assert_int_equal(message_credit_decode(frame.payload, frame.length, &more), 0);
            credit += more.bytes;
        }
    }
    tree_encode_sum(&stream.encoder);
    tree_encode_end(&stream.encoder);
    say(&peer, FRAME_FILE, FRAME_FLAG_EOF, stream.bytes, stream_size(&stream));
    do {
        hear(&peer, &frame);
    } while (frame.type == FRAME_CREDIT);
    assert_int_equal(frame.type, FRAME_FILE_RESULT);
    assert_int_equal(message_file_result_decode(frame.payload, frame.length, &result), 0);
    if (result.error != 0)
        fail_msg("%s", result.text);
    assert_int_equal(result.bytes, 3000000);

    struct message_get get_message = {.source = path_of("%s/mount/tree", root)};
    say(&peer, FRAME_GET, 0, payload, message_get_encode(&get_message, payload));
    tree_memory_init(&memory, 1 << 30, 0);
    bool pinged = false, ponged = false;
    while (!memory.done || !ponged) {
        hear(&peer, &frame);
        if (frame.type == FRAME_PONG)
            ponged = true;
        if (frame.type != FRAME_FILE)
            continue;
        assert_int_equal(tree_memory_feed(&memory, frame.payload, frame.length), 0);
        struct message_credit more = {.stream = WIRE_FILES, .bytes = frame.length};
        uint8_t bytes[MESSAGE_CREDIT_BYTES];
        message_credit_encode(&more, bytes);
        if (!memory.done)
            say(&peer, FRAME_CREDIT, 0, bytes, sizeof bytes);
        if (!pinged) /* answered in between */
            say(&peer, FRAME_PING, 0, "12345678", 8);
        pinged = true;
    }
    assert_int_equal(memory.count, 1);
    assert_memory_equal(memory.files[0].data, text, sizeof text - 1);
    tree_memory_free(&memory);

    say(&peer, FRAME_PUT, 0, payload, message_put_encode(&put_message, payload)); /* left open: RESET ends it */
    say(&peer, FRAME_RESET, 0, NULL, 0);
    do {
        hear(&peer, &frame);
    } while (frame.type != FRAME_RECEIPT);
    struct receipt receipt;
    assert_int_equal(receipt_decode(frame.payload, frame.length, &receipt), 0);
    assert_int_equal(receipt.mount[0].entries, 0);
    close(peer.fd);
    kill(peer.pid, SIGKILL);
    assert_int_equal(waitpid(peer.pid, NULL, 0), peer.pid);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_tree_is_put_and_answered_with_its_sum),
        TEST(test_destinations),
        TEST(test_frames_that_are_not_allowed),
        TEST(test_hostile_streams),
        TEST(test_credit_is_given_as_it_is_used),
        TEST(test_a_cancelled_put_leaves_no_half_file),
        TEST(test_a_full_mount_is_an_error),
        TEST(test_a_race_for_a_link_never_leads_outside),
        TEST(test_a_tree_is_got_whole),
        TEST(test_what_cannot_be_got),
        TEST(test_limits_end_a_get),
        TEST(test_a_get_waits_for_credit_and_for_room),
        TEST(test_a_file_that_shrinks_fails_and_one_that_grows_ends),
        TEST(test_a_sparse_file_that_shrinks_fails),
        TEST(test_deep_trees),
        TEST(test_many_entries_in_one_directory),
        TEST(test_the_real_runner_as_pid_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
