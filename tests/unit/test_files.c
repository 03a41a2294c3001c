/* The host's side of file transfer: disk and tar, both ways, and what hostile tars and tree streams try. */
#include <archive.h>
#include <archive_entry.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "base/buffer.h"
#include "files/files.h"
#include "files_helper.h"
#include "tree/memory.h"

static const struct tree_limits no_limits = {0};

/* Everything from one to the other, as a relay would, in frames' payloads. 0, or -1 with the receiver's error. */
static int copy(struct tree_source *source, struct tree_sink *sink, struct error *err)
{
    static uint8_t payload[FRAME_DATA_MAX];
    bool ended = false;
    int result = 0;
    while (!ended && result == 0) {
        size_t size = tree_source_read(source, payload, sizeof payload, &ended);
        assert_true(size > 0);
        result = tree_sink_feed(sink, payload, size, err);
    }
    assert_true(result != 0 || tree_sink_done(sink));
    return result;
}

static int copy_disk(const char *from, const char *to, const char *name, struct error *err)
{
    struct tree_source *source = tree_source_disk(from, err);
    if (source == NULL)
        return -1;
    struct tree_sink *sink = tree_sink_disk(to, name, &no_limits, err);
    int result = sink == NULL ? -1 : copy(source, sink, err);
    tree_sink_free(sink);
    tree_source_free(source);
    return result;
}

static void must_copy(const char *from, const char *to, const char *name)
{
    struct error error = ERROR_INIT;
    if (copy_disk(from, to, name, &error) < 0)
        fail_msg("%s to %s: %s", from, to, error.message);
}

static void make_tree(const char *root)
{
    shell("cd '%s' && mkdir -p tree/d/e tree/ro && printf hello > tree/d/x && : > tree/empty && ln -s d/x tree/l && "
          "ln -s ../d/x tree/d/up && printf r > tree/ro/f && chmod 555 tree/ro && chmod 640 tree/d/x && "
          "touch -h -d @1000000000 tree/l tree/empty tree/ro/f && touch -d @1100000000 tree/ro && "
          "head -c 300000 /dev/urandom > tree/d/e/random && chmod 4755 tree/d/e/random && "
          "printf n > \"$(printf 'tree/new\\nline')\" && printf b > \"$(printf 'tree/\\377\\376')\"",
          root);
}

/* `time`: how find prints it. */
static void assert_same(const char *a, const char *b, const char *time)
{
    shell("diff -r --no-dereference '%s' '%s'", a, b);
    shell("list() { cd \"$1\" && find . -mindepth 1 ! -path ./d/e/random ! -type l -printf '%%p %%m %s\\n' | sort; "
          "}; "
          "test \"$(list '%s')\" = \"$(list '%s')\"",
          time, a, b);
}

static void assert_same_tree(const char *a, const char *b)
{
    assert_same(a, b, "%T@");
}

/* --- disk to disk --------------------------------------------------------------------------------- */

static void test_a_tree_arrives_as_it_was(void **state)
{
    (void)state;
    struct stat status;
    const char *root = scratch_new();
    make_tree(root);
    shell("mkdir '%s/out'", root);
    must_copy(path_of("%s/tree", root), path_of("%s/out", root), "tree");
    assert_same_tree(path_of("%s/tree", root), path_of("%s/out/tree", root));
    assert_int_equal(stat(path_of("%s/out/tree/d/e/random", root), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0755); /* never setuid */
    assert_int_equal(lstat(path_of("%s/out/tree/l", root), &status), 0);
    assert_int_equal(status.st_mtime, 1000000000);
    must_copy(path_of("%s/tree", root), path_of("%s/out", root), "tree"); /* and once more over it */
    assert_same_tree(path_of("%s/tree", root), path_of("%s/out/tree", root));
    scratch_remove(root);
}

static void test_destinations_are_those_of_cp(void **state)
{
    (void)state;
    const char *root = scratch_new();
    struct error error = ERROR_INIT;
    shell("cd '%s' && mkdir dir out && printf f > file && printf d > dir/in && printf old > out/old", root);
    const char *file = path_of("%s/file", root), *dir = path_of("%s/dir", root);
    must_copy(file, path_of("%s/out", root), "file"); /* into a directory */
    assert_file(path_of("%s/out/file", root), "f");
    must_copy(file, path_of("%s/out/new", root), "file"); /* under a new name */
    assert_file(path_of("%s/out/new", root), "f");
    must_copy(file, path_of("%s/out/old", root), "file"); /* over a file */
    assert_file(path_of("%s/out/old", root), "f");
    must_copy(dir, path_of("%s/out", root), "dir"); /* a directory into a directory */
    assert_file(path_of("%s/out/dir/in", root), "d");
    must_copy(dir, path_of("%s/out/fresh", root), "dir"); /* a directory under a new name */
    assert_file(path_of("%s/out/fresh/in", root), "d");
    must_copy(path_of("%s/dir/.", root), path_of("%s/out", root), ""); /* its content */
    assert_file(path_of("%s/out/in", root), "d");

    assert_int_equal(copy_disk(file, path_of("%s/out/nowhere/", root), "file", &error), -1);
    assert_non_null(strstr(error.message, "does not exist"));
    assert_int_equal(copy_disk(file, path_of("%s/nowhere/x", root), "file", &error), -1);
    assert_int_equal(copy_disk(file, path_of("%s/out/old/", root), "file", &error), -1);
    assert_non_null(strstr(error.message, "not a directory"));
    assert_int_equal(copy_disk(dir, path_of("%s/out/old", root), "dir", &error), -1); /* a directory over a file */
    assert_file(path_of("%s/out/old", root), "f");
    shell("mkdir '%s/out/taken'", root);
    assert_int_equal(copy_disk(file, path_of("%s/out", root), "taken", &error), -1); /* a file over a directory */
    assert_non_null(strstr(error.message, "a directory is in its place"));
    assert_int_equal(copy_disk(path_of("%s/absent", root), path_of("%s/out", root), "x", &error), -1);
    assert_non_null(strstr(error.message, "absent"));
    shell("test -z \"$(find '%s' -name '.warmpool*')\"", root);
    scratch_remove(root);
}

static void test_sparse_files_stay_sparse(void **state)
{
    (void)state;
    const char *root = scratch_new();
    struct stat status;
    shell("cd '%s' && mkdir out && truncate -s 8G big && printf middle | dd of=big bs=1 seek=5000000000 conv=notrunc "
          "status=none && truncate -s 8G hole",
          root);
    must_copy(path_of("%s/big", root), path_of("%s/out", root), "big");
    must_copy(path_of("%s/hole", root), path_of("%s/out", root), "hole");
    assert_int_equal(stat(path_of("%s/out/big", root), &status), 0);
    assert_true(status.st_size == 8LL << 30);
    assert_true(status.st_blocks < 1000);
    assert_int_equal(stat(path_of("%s/out/hole", root), &status), 0);
    assert_true(status.st_size == 8LL << 30);
    assert_true(status.st_blocks < 1000);
    char text[7] = "";
    int fd = open(path_of("%s/out/big", root), O_RDONLY);
    assert_int_equal(pread(fd, text, 6, 5000000000), 6);
    close(fd);
    assert_string_equal(text, "middle");
    scratch_remove(root);
}

static void test_special_files_are_left_out_and_said(void **state)
{
    (void)state;
    const char *root = scratch_new();
    struct error error = ERROR_INIT;
    shell("cd '%s' && mkdir tree out && mkfifo tree/fifo && printf x > tree/file", root);
    struct tree_source *source = tree_source_disk(path_of("%s/tree", root), &error);
    struct tree_sink *sink = tree_sink_disk(path_of("%s/out", root), "tree", &no_limits, &error);
    assert_int_equal(copy(source, sink, &error), 0);
    assert_int_equal(tree_sink_totals(sink)->skipped, 1);
    assert_int_equal(tree_sink_totals(sink)->entries, 2);
    tree_sink_free(sink);
    tree_source_free(source);
    assert_file(path_of("%s/out/tree/file", root), "x");
    assert_absent(path_of("%s/out/tree/fifo", root));
    assert_int_equal(copy_disk(path_of("%s/tree/fifo", root), path_of("%s/out", root), "fifo", &error), -1);
    scratch_remove(root);
}

static void test_ten_thousand_files(void **state)
{
    (void)state;
    const char *root = scratch_new();
    shell(
        "cd '%s' && mkdir tree out && cd tree && for d in $(seq 100); do mkdir $d && (cd $d && for f in $(seq 100); do "
        "echo $d.$f > $f; done); done",
        root);
    must_copy(path_of("%s/tree", root), path_of("%s/out", root), "tree");
    assert_same_tree(path_of("%s/tree", root), path_of("%s/out/tree", root));
    shell("test $(find '%s/out' -type f | wc -l) = 10000", root);
    scratch_remove(root);
}

static void test_limits_end_a_copy(void **state)
{
    (void)state;
    static const struct tree_limits limits[] = {{.max_bytes = 299999}, {.max_entries = 5}};
    const char *root = scratch_new();
    make_tree(root);
    for (size_t i = 0; i < 2; i++) {
        struct error error = ERROR_INIT;
        shell("mkdir '%s/out%zu'", root, i);
        struct tree_source *source = tree_source_disk(path_of("%s/tree", root), &error);
        struct tree_sink *sink = tree_sink_disk(path_of("%s/out%zu", root, i), "tree", &limits[i], &error);
        assert_int_equal(copy(source, sink, &error), -1);
        assert_non_null(strstr(error.message, "than allowed"));
        tree_sink_free(sink);
        tree_source_free(source);
    }
    scratch_remove(root);
}

static uint64_t high_water_kib(void)
{
    char line[200];
    unsigned long long value = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        sscanf(line, "VmHWM: %llu", &value);
    if (file != NULL)
        fclose(file);
    return value;
}

/* In a process of its own, whose memory is then looked at. */
static void assert_bounded(void (*work)(const char *root), const char *root)
{
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open("/proc/self/clear_refs", O_WRONLY);
        if (fd >= 0 && write(fd, "5", 1) < 0)
            _exit(3);
        work(root);
        _exit(high_water_kib() < 32 * 1024 ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void gigabyte_on_disk(const char *root)
{
    must_copy(path_of("%s/big", root), path_of("%s/out", root), "big");
}

static void gigabyte_of_tar(const char *root)
{
    struct error error = ERROR_INIT;
    int ends[2];
    if (pipe(ends) < 0)
        _exit(4);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        dup2(ends[1], 1);
        execlp("tar", "tar", "-C", root, "-cf", "-", "big", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    int null = open("/dev/null", O_WRONLY);
    struct tree_source *source = tree_source_tar(ends[0], &error);
    struct tree_sink *sink = tree_sink_tar(null, "x", &no_limits, &error);
    if (source == NULL || sink == NULL || copy(source, sink, &error) < 0 || tree_sink_totals(sink)->bytes != 1 << 30)
        _exit(5);
    waitpid(pid, NULL, 0);
}

static void test_a_gigabyte_needs_little_memory(void **state)
{
    (void)state;
    const char *root = scratch_new();
    shell("mkdir '%s/out' && fallocate -l 1G '%s/big' && printf end | dd of='%s/big' bs=1 seek=1073741821 conv=notrunc "
          "status=none",
          root, root, root);
    assert_bounded(gigabyte_on_disk, root);
    shell("cmp '%s/big' '%s/out/big'", root, root);
    assert_bounded(gigabyte_of_tar, root);
    scratch_remove(root);
}

/* --- tar ------------------------------------------------------------------------------------------ */

struct tar_entry {
    const char *name;
    mode_t type; /* AE_IF...; 0: a hard link */
    const char *link;
    const char *data;
    size_t size; /* of data; 0: strlen */
};

enum tar_format { USTAR, PAX, GNU };

static void tar_add(struct archive *archive, const struct tar_entry *from)
{
    struct archive_entry *entry = archive_entry_new();
    size_t size = from->data == NULL ? 0 : from->size != 0 ? from->size : strlen(from->data);
    archive_entry_set_pathname(entry, from->name);
    archive_entry_set_perm(entry, 0755);
    archive_entry_set_mtime(entry, 1000000000, 0);
    archive_entry_set_filetype(entry, from->type == 0 ? AE_IFREG : from->type);
    archive_entry_set_size(entry, (la_int64_t)size);
    if (from->type == AE_IFLNK)
        archive_entry_set_symlink(entry, from->link);
    if (from->type == 0)
        archive_entry_set_hardlink(entry, from->link);
    if (from->type == AE_IFCHR || from->type == AE_IFBLK)
        archive_entry_set_rdev(entry, makedev(1, 3));
    assert_true(archive_write_header(archive, entry) >= ARCHIVE_WARN);
    if (size > 0)
        assert_int_equal(archive_write_data(archive, from->data, size), size);
    archive_entry_free(entry);
}

/* A tar that ends with its two zero blocks, in a file without a name. */
static int make_tar(enum tar_format format, const char *filter, const struct tar_entry *entries, size_t count)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    struct archive *archive = archive_write_new();
    if (format == USTAR)
        archive_write_set_format_ustar(archive);
    else if (format == PAX)
        archive_write_set_format_pax(archive);
    else
        archive_write_set_format_gnutar(archive);
    if (strcmp(filter, "gzip") == 0)
        archive_write_add_filter_gzip(archive);
    else if (strcmp(filter, "zstd") == 0)
        archive_write_add_filter_zstd(archive);
    archive_write_set_bytes_per_block(archive, 512);
    archive_write_set_bytes_in_last_block(archive, 1);
    assert_int_equal(archive_write_open_fd(archive, fd), ARCHIVE_OK);
    for (size_t i = 0; i < count; i++)
        tar_add(archive, &entries[i]);
    assert_int_equal(archive_write_close(archive), ARCHIVE_OK);
    archive_write_free(archive);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

/* 0, or -1 with the *sender's* error. */
static int unpack_tar(int fd, const char *to, struct error *err)
{
    struct error receiver = ERROR_INIT;
    struct tree_source *source = tree_source_tar(fd, err);
    if (source == NULL)
        return -1;
    struct tree_sink *sink = tree_sink_disk(to, "", &no_limits, err);
    assert_non_null(sink);
    int received = copy(source, sink, &receiver);
    int sent = tree_source_result(source, err);
    if (received != sent)
        fail_msg("sent %d \"%s\", received %d \"%s\"", sent, err->message, received, receiver.message);
    tree_sink_free(sink);
    tree_source_free(source);
    return sent;
}

static const char long_name[] =
    "a/name/that/is/longer/than/the/hundred/bytes/which/a/header/has/room/for/and/so/needs/something/more/to/be/held";
static const char zeros[2048];
static const struct tar_entry good_entries[] = {
    {"./", AE_IFDIR, NULL, NULL, 0},
    {"./d/", AE_IFDIR, NULL, NULL, 0},
    {"./d//file", AE_IFREG, NULL, "content", 0},
    {"d/empty", AE_IFREG, NULL, "", 0},
    {"d/link", AE_IFLNK, "../d/file", NULL, 0},
    {"hard", 0, "./d/file", NULL, 0},
    {"without/parents/x", AE_IFREG, NULL, "x", 0},
    {"new\nline", AE_IFREG, NULL, "n", 0},
    {"not-utf8-\xff\xfe", AE_IFREG, NULL, "b", 0},
    {"\xc3\xa4", AE_IFREG, NULL, "u", 0},
    {long_name, AE_IFREG, NULL, "long", 0},
    {"zeros", AE_IFREG, NULL, zeros, sizeof zeros}, /* these two look like an end when they are cut right */
    {"fewer", AE_IFREG, NULL, zeros, 1000},
};
#define GOOD_ENTRIES (sizeof good_entries / sizeof good_entries[0])

static void assert_good(const char *to)
{
    struct stat a, b;
    assert_file(path_of("%s/d/file", to), "content");
    assert_file(path_of("%s/d/empty", to), "");
    assert_file(path_of("%s/without/parents/x", to), "x");
    assert_file(path_of("%s/new\nline", to), "n");
    assert_file(path_of("%s/not-utf8-\xff\xfe", to), "b");
    assert_file(path_of("%s/\xc3\xa4", to), "u");
    assert_file(path_of("%s/%s", to, long_name), "long");
    assert_int_equal(stat(path_of("%s/d/link", to), &a), 0);
    assert_int_equal(stat(path_of("%s/hard", to), &b), 0);
    assert_int_equal(a.st_ino, b.st_ino);
    assert_int_equal(a.st_mtime, 1000000000);
    assert_int_equal(stat(path_of("%s/zeros", to), &a), 0);
    assert_int_equal(a.st_size, sizeof zeros);
    assert_int_equal(stat(path_of("%s/d", to), &a), 0);
    assert_int_equal(a.st_mtime, 1000000000);
}

static void test_tars_of_all_kinds_are_unpacked(void **state)
{
    (void)state;
    static const char *const filters[] = {"", "gzip", "zstd"};
    for (int format = USTAR; format <= GNU; format++)
        for (size_t filter = 0; filter < 3; filter++) {
            struct error error = ERROR_INIT;
            const char *root = scratch_new();
            int fd = make_tar((enum tar_format)format, filters[filter], good_entries, GOOD_ENTRIES);
            if (unpack_tar(fd, root, &error) < 0)
                fail_msg("format %d %s: %s", format, filters[filter], error.message);
            assert_good(root);
            close(fd);
            scratch_remove(root);
        }
}

static void test_gnu_tar_s_own_sparse_formats(void **state)
{
    (void)state;
    static const char *const formats[] = {"gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1",
                                          "posix --sparse-version=1.0"};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        struct error error = ERROR_INIT;
        struct stat status;
        const char *root = scratch_new();
        shell("cd '%s' && mkdir out && truncate -s 3G f && printf middle | dd of=f bs=1 seek=2000000000 conv=notrunc "
              "status=none && tar -S --format=%s -cf t f",
              root, formats[i]);
        int fd = open(path_of("%s/t", root), O_RDONLY);
        if (unpack_tar(fd, path_of("%s/out", root), &error) < 0)
            fail_msg("%s: %s", formats[i], error.message);
        close(fd);
        assert_int_equal(stat(path_of("%s/out/f", root), &status), 0);
        assert_true(status.st_size == 3LL << 30);
        assert_true(status.st_blocks < 1000);
        char text[7] = "";
        fd = open(path_of("%s/out/f", root), O_RDONLY);
        assert_int_equal(pread(fd, text, 6, 2000000000), 6);
        close(fd);
        assert_string_equal(text, "middle");
        scratch_remove(root);
    }
}

static void test_a_tar_cut_at_any_byte_never_succeeds(void **state)
{
    (void)state;
    static const struct {
        enum tar_format format;
        const char *filter;
        off_t step;
    } kinds[] = {{USTAR, "", 1}, {GNU, "", 7}, {PAX, "", 7}, {USTAR, "gzip", 1}, {USTAR, "zstd", 1}};
    static uint8_t payload[FRAME_DATA_MAX];
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
        int fd = make_tar(kinds[kind].format, kinds[kind].filter, good_entries, GOOD_ENTRIES);
        off_t size = lseek(fd, 0, SEEK_END), cut = size;
        while (cut-- > 0) {
            if (cut % 512 != 0 && cut % kinds[kind].step != 0)
                continue;
            struct error error = ERROR_INIT;
            bool ended = false;
            assert_int_equal(ftruncate(fd, cut), 0); /* ever shorter */
            lseek(fd, 0, SEEK_SET);
            struct tree_source *source = tree_source_tar(fd, &error);
            while (source != NULL && !ended)
                tree_source_read(source, payload, sizeof payload, &ended);
            if (source != NULL && tree_source_result(source, &error) == 0)
                fail_msg("kind %zu cut at %lld of %lld", kind, (long long)cut, (long long)size);
            tree_source_free(source);
        }
        close(fd);
    }
}

static void test_hostile_tars_are_refused_and_write_nothing_outside(void **state)
{
    (void)state;
    static const struct {
        struct tar_entry entries[2];
        const char *names; /* the entry that the error names */
    } tars[] = {
        {{{"/tmp/warmpool-evil", AE_IFREG, NULL, "x", 0}}, "/tmp/warmpool-evil"},
        {{{"../evil", AE_IFREG, NULL, "x", 0}}, "../evil"},
        {{{"a/../../evil", AE_IFREG, NULL, "x", 0}}, "a/../../evil"},
        {{{"a/..", AE_IFDIR, NULL, NULL, 0}}, "a/.."},
        {{{"out", AE_IFLNK, "/etc", NULL, 0}, {"out/evil", AE_IFREG, NULL, "x", 0}}, "out"},
        {{{"out", AE_IFLNK, "..", NULL, 0}, {"out/evil", AE_IFREG, NULL, "x", 0}}, "out"},
        {{{"a/out", AE_IFLNK, "../../x", NULL, 0}}, "a/out"},
        {{{"hard", 0, "../canary", NULL, 0}}, "hard"},
        {{{"hard", 0, "/etc/passwd", NULL, 0}}, "hard"},
        {{{"null", AE_IFCHR, NULL, NULL, 0}}, "null"},
        {{{"disk", AE_IFBLK, NULL, NULL, 0}}, "disk"},
        {{{"fifo", AE_IFIFO, NULL, NULL, 0}}, "fifo"},
    };
    for (size_t i = 0; i < sizeof tars / sizeof tars[0]; i++)
        for (int format = USTAR; format <= GNU; format++) {
            struct error error = ERROR_INIT;
            const char *root = scratch_new();
            size_t count = tars[i].entries[1].name == NULL ? 1 : 2;
            shell("mkdir '%s/dst'", root);
            write_file(path_of("%s/canary", root), "whole");
            int fd = make_tar((enum tar_format)format, "", tars[i].entries, count);
            assert_int_equal(unpack_tar(fd, path_of("%s/dst", root), &error), -1);
            if (strstr(error.message, tars[i].names) == NULL || strstr(error.message, "refused") == NULL)
                fail_msg("%zu: %s", i, error.message);
            close(fd);
            assert_file(path_of("%s/canary", root), "whole");
            shell("test \"$(ls '%s')\" = \"$(printf 'canary\\ndst')\"", root);
            scratch_remove(root);
        }
    assert_absent("/tmp/warmpool-evil");
    assert_absent("/etc/evil");
}

static void test_names_in_messages_are_made_fit_to_print(void **state)
{
    (void)state;
    char out[TREE_QUOTE_MAX], text[1000];
    assert_string_equal(tree_quote(out, "a\nb\x1b[31m\xc3\xa4"), "a\\x0ab\\x1b[31m\xc3\xa4");
    assert_string_equal(tree_quote(out, "\xff\xc2\x9b"), "\\xff\\xc2\\x9b");
    memset(text, '\n', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_true(strlen(tree_quote(out, text)) < TREE_QUOTE_MAX);
}

static void test_junk_is_no_tar(void **state)
{
    (void)state;
    struct error error = ERROR_INIT;
    const char *root = scratch_new();
    int empty = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    assert_int_equal(unpack_tar(empty, root, &error), -1);
    assert_non_null(strstr(error.message, "empty"));
    assert_int_equal(write(empty, "this is no tar at all", 21), 21);
    lseek(empty, 0, SEEK_SET);
    assert_int_equal(unpack_tar(empty, root, &error), -1);
    close(empty);
    int nothing = make_tar(USTAR, "", NULL, 0); /* two zero blocks alone are a tar */
    assert_int_equal(unpack_tar(nothing, root, &error), 0);
    close(nothing);
    scratch_remove(root);
}

static void test_a_tree_becomes_a_tar_that_tar_reads(void **state)
{
    (void)state;
    struct error error = ERROR_INIT;
    const char *root = scratch_new();
    make_tree(root);
    shell("mkdir '%s/out' && cd '%s/tree' && truncate -s 1M sparse", root, root);
    int fd = open(path_of("%s/t", root), O_RDWR | O_CREAT, 0600);
    struct tree_source *source = tree_source_disk(path_of("%s/tree", root), &error);
    struct tree_sink *sink = tree_sink_tar(fd, "top", &no_limits, &error);
    assert_int_equal(copy(source, sink, &error), 0);
    tree_sink_free(sink);
    tree_source_free(source);
    close(fd);
    shell("tar -C '%s/out' -xpf '%s/t' 2>/dev/null", root, root);
    assert_same(path_of("%s/tree", root), path_of("%s/out/top", root), "%Ts");
    scratch_remove(root);
}

static void test_a_tar_that_failed_has_no_end(void **state)
{
    (void)state;
    struct error error = ERROR_INIT;
    const char *root = scratch_new();
    struct records stream;
    int fd = open(path_of("%s/t", root), O_RDWR | O_CREAT, 0600);
    struct tree_sink *sink = tree_sink_tar(fd, "", &no_limits, &error);
    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_file(&stream, "a", "content");
    assert_int_equal(tree_sink_feed(sink, stream.bytes, stream_size(&stream), &error), 0);
    tree_sink_free(sink);
    lseek(fd, 0, SEEK_SET);
    struct tree_source *source = tree_source_tar(fd, &error);
    uint8_t payload[FRAME_DATA_MAX];
    bool ended = source == NULL;
    while (!ended)
        tree_source_read(source, payload, sizeof payload, &ended);
    assert_true(source == NULL || tree_source_result(source, &error) < 0);
    tree_source_free(source);
    close(fd);
    scratch_remove(root);
}

/* --- hostile tree streams ------------------------------------------------------------------------- */

/* Feeds what a hostile container might send into DST, with a canary beside it. */
static void assert_contained(struct records *stream, const char *why)
{
    struct error error = ERROR_INIT;
    const char *root = scratch_new();
    shell("mkdir '%s/dst' '%s/outside'", root, root);
    write_file(path_of("%s/canary", root), "whole");
    write_file(path_of("%s/outside/canary", root), "whole");
    struct tree_sink *sink = tree_sink_disk(path_of("%s/dst", root), "tree", &no_limits, &error);
    assert_non_null(sink);
    assert_int_equal(tree_sink_feed(sink, stream->bytes, stream_size(stream), &error), -1);
    assert_false(tree_sink_done(sink));
    if (strstr(error.message, why) == NULL)
        fail_msg("%s", error.message);
    assert_int_equal(tree_sink_feed(sink, stream->bytes, stream_size(stream), &error), -1);
    tree_sink_free(sink);
    assert_file(path_of("%s/canary", root), "whole");
    assert_file(path_of("%s/outside/canary", root), "whole");
    shell("test $(find '%s/outside' | wc -l) = 2 && test $(ls -a '%s' | wc -l) = 5", root, root);
    shell("test -z \"$(find '%s' -name '.warmpool*')\"", root);
    scratch_remove(root);
}

static void test_hostile_streams_stay_inside(void **state)
{
    (void)state;
    struct records stream;
    stream_begin(&stream); /* a link out, then a file through it */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_SYMLINK, "a", "../../outside", 0);
    stream_file(&stream, "a/canary", "broken");
    assert_contained(&stream, "leads out of the tree");

    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_SYMLINK, "a", "/etc", 0);
    stream_file(&stream, "a/b", "broken");
    assert_contained(&stream, "leads out of the tree");

    stream_begin(&stream); /* a file through a link that is allowed */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_DIRECTORY, "d", "", 0);
    stream_entry(&stream, FILE_SYMLINK, "a", "d", 0);
    stream_file(&stream, "a/b", "x");
    assert_contained(&stream, "a symbolic link stands where a directory has to be");

    stream_begin(&stream); /* ".." behind a link that climbs */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_DIRECTORY, "d", "", 0);
    stream_entry(&stream, FILE_SYMLINK, "d/up", "..", 0);
    stream_entry(&stream, FILE_SYMLINK, "out", "d/up/../../outside", 0);
    assert_contained(&stream, "leads out of the tree");

    stream_begin(&stream); /* the root itself */
    stream_entry(&stream, FILE_SYMLINK, "", "../outside", 0);
    assert_contained(&stream, "leads out of the tree");

    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_file(&stream, "../canary", "broken");
    assert_contained(&stream, "damaged");

    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_file(&stream, "/tmp/warmpool-evil", "broken");
    assert_contained(&stream, "damaged");

    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_HARDLINK, "h", "../../canary", 0);
    assert_contained(&stream, "damaged");

    stream_begin(&stream); /* a hard link to a link */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_SYMLINK, "l", "x", 0);
    stream_entry(&stream, FILE_HARDLINK, "h", "l", 0);
    assert_contained(&stream, "no earlier file");

    stream_begin(&stream); /* a content that is not what its sum says */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_REGULAR, "f", "", 3);
    stream_data(&stream, "abc");
    stream.encoder.out.next[-1] ^= 1;
    tree_encode_sum(&stream.encoder);
    assert_contained(&stream, "does not have the sum");

    stream_begin(&stream); /* the sender gives up in the middle of a file */
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_REGULAR, "f", "", 300);
    stream_data(&stream, "abc");
    tree_encode_fail(&stream.encoder, EIO, "f", "\x1b[2Jbad disk");
    assert_contained(&stream, "f: \\x1b[2Jbad disk");
    assert_absent("/tmp/warmpool-evil");
}

/* DST has links of the user's own; what comes replaces them and is not written through them. */
static void test_what_is_there_is_replaced_and_not_written_through(void **state)
{
    (void)state;
    struct error error = ERROR_INIT;
    const char *root = scratch_new();
    struct records stream;
    shell("cd '%s' && mkdir -p dst/tree out && printf whole > out/a && printf whole > out/b && ln -s ../../out/a "
          "dst/tree/a "
          "&& ln out/b dst/tree/b && ln -s ../../out dst/tree/d",
          root);
    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_file(&stream, "a", "new");
    stream_file(&stream, "b", "new");
    stream_entry(&stream, FILE_SYMLINK, "b2", "b", 0);
    stream_entry(&stream, FILE_SYMLINK, "b2", "a", 0);
    stream_entry(&stream, FILE_HARDLINK, "c", "a", 0);
    stream_entry(&stream, FILE_HARDLINK, "c", "a", 0);
    stream_entry(&stream, FILE_HARDLINK, "c", "b", 0);
    struct tree_sink *sink = tree_sink_disk(path_of("%s/dst", root), "tree", &no_limits, &error);
    if (tree_sink_feed(sink, stream.bytes, stream_size(&stream), &error) < 0)
        fail_msg("%s", error.message);
    struct records more;
    stream_begin(&more);
    stream_file(&more, "d/evil", "x");
    assert_int_equal(tree_sink_feed(sink, more.bytes, stream_size(&more), &error), -1);
    tree_sink_free(sink);
    assert_file(path_of("%s/dst/tree/a", root), "new");
    assert_file(path_of("%s/dst/tree/b", root), "new");
    assert_file(path_of("%s/dst/tree/c", root), "new");
    assert_file(path_of("%s/out/a", root), "whole");
    assert_file(path_of("%s/out/b", root), "whole");
    assert_absent(path_of("%s/out/evil", root));
    char target[10] = "";
    assert_int_equal(readlink(path_of("%s/dst/tree/b2", root), target, sizeof target - 1), 1);
    assert_string_equal(target, "a");
    scratch_remove(root);
}

/* A single file that does not arrive whole leaves what was there before. */
static void test_half_a_file_replaces_nothing(void **state)
{
    (void)state;
    struct error error = ERROR_INIT;
    const char *root = scratch_new();
    struct records stream;
    write_file(path_of("%s/file", root), "old");
    stream_begin(&stream);
    stream_entry(&stream, FILE_REGULAR, "", "", 10);
    stream_data(&stream, "half");
    struct tree_sink *sink = tree_sink_disk(path_of("%s/file", root), "x", &no_limits, &error);
    assert_int_equal(tree_sink_feed(sink, stream.bytes, stream_size(&stream), &error), 0);
    assert_file(path_of("%s/file", root), "old");
    tree_sink_free(sink);
    assert_file(path_of("%s/file", root), "old");
    shell("test $(ls -A '%s' | wc -l) = 1", root);
    scratch_remove(root);
}

/* --- memory --------------------------------------------------------------------------------------- */

static void test_files_in_memory(void **state)
{
    (void)state;
    struct records stream;
    struct tree_memory memory;
    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_file(&stream, "a", "first");
    stream_entry(&stream, FILE_REGULAR, "b", "", 8);
    tree_encode_hole(&stream.encoder, 5);
    stream_data(&stream, "end");
    tree_encode_sum(&stream.encoder);
    stream_file(&stream, "c", "");
    tree_encode_end(&stream.encoder);
    tree_memory_init(&memory, 13, 0);
    assert_int_equal(tree_memory_feed(&memory, stream.bytes, stream_size(&stream)), 0);
    assert_true(memory.done);
    assert_int_equal(memory.count, 3);
    assert_string_equal(memory.files[0].path, "a");
    assert_memory_equal(memory.files[0].data, "first", 5);
    assert_int_equal(memory.files[1].size, 8);
    assert_memory_equal(memory.files[1].data, "\0\0\0\0\0end", 8);
    assert_int_equal(memory.files[2].size, 0);
    tree_memory_free(&memory);
    tree_memory_init(&memory, 12, 0);
    assert_int_equal(tree_memory_feed(&memory, stream.bytes, stream_size(&stream)), -1);
    assert_int_equal(memory.error, EFBIG);
    tree_memory_free(&memory);

    stream_begin(&stream); /* a hole costs its sender nothing */
    stream_entry(&stream, FILE_REGULAR, "", "", INT64_MAX);
    tree_memory_init(&memory, 1 << 20, 0);
    assert_int_equal(tree_memory_feed(&memory, stream.bytes, stream_size(&stream)), -1);
    assert_int_equal(memory.error, EFBIG);
    tree_memory_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tree_arrives_as_it_was),
        cmocka_unit_test(test_destinations_are_those_of_cp),
        cmocka_unit_test(test_sparse_files_stay_sparse),
        cmocka_unit_test(test_special_files_are_left_out_and_said),
        cmocka_unit_test(test_ten_thousand_files),
        cmocka_unit_test(test_limits_end_a_copy),
        cmocka_unit_test(test_a_gigabyte_needs_little_memory),
        cmocka_unit_test(test_tars_of_all_kinds_are_unpacked),
        cmocka_unit_test(test_gnu_tar_s_own_sparse_formats),
        cmocka_unit_test(test_a_tar_cut_at_any_byte_never_succeeds),
        cmocka_unit_test(test_hostile_tars_are_refused_and_write_nothing_outside),
        cmocka_unit_test(test_names_in_messages_are_made_fit_to_print),
        cmocka_unit_test(test_junk_is_no_tar),
        cmocka_unit_test(test_a_tree_becomes_a_tar_that_tar_reads),
        cmocka_unit_test(test_a_tar_that_failed_has_no_end),
        cmocka_unit_test(test_hostile_streams_stay_inside),
        cmocka_unit_test(test_what_is_there_is_replaced_and_not_written_through),
        cmocka_unit_test(test_half_a_file_replaces_nothing),
        cmocka_unit_test(test_files_in_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
