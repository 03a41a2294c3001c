/* The default image's tar: what is in it, and what is said when it cannot be made. */
#include <archive.h>
#include <archive_entry.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "daemon/image.h"

struct found {
    mode_t mode;
    char link[128];
    int64_t size;
    bool there;
};

static struct found tar_find(const struct buffer *tar, const char *path)
{
    struct found found = {0};
    struct archive *archive = archive_read_new();
    struct archive_entry *entry;
    archive_read_support_format_tar(archive);
    assert_int_equal(archive_read_open_memory(archive, buffer_data(tar), buffer_length(tar)), ARCHIVE_OK);
    while (archive_read_next_header(archive, &entry) == ARCHIVE_OK) {
        const char *name = archive_entry_pathname(entry);
        size_t length = strlen(path);
        if (strncmp(name, path, length) != 0 || (name[length] != '\0' && strcmp(name + length, "/") != 0))
            continue;
        assert_false(found.there);
        found.there = true;
        found.mode = archive_entry_mode(entry);
        found.size = archive_entry_size(entry);
        assert_int_equal(archive_entry_uid(entry), 0);
        if (archive_entry_symlink(entry) != NULL)
            snprintf(found.link, sizeof(found.link), "%s", archive_entry_symlink(entry));
    }
    archive_read_free(archive);
    return found;
}

static void test_content(void **state)
{
    _cleanup_buffer_ struct buffer tar = {0};
    struct error error = ERROR_INIT;
    if (image_tar_build(&tar, &error) < 0)
        fail_msg("%s", error.message);
    struct stat host;
    assert_int_equal(stat(IMAGE_BUSYBOX, &host), 0);
    struct found busybox = tar_find(&tar, "bin/busybox");
    assert_int_equal(busybox.mode, S_IFREG | 0755);
    assert_int_equal(busybox.size, host.st_size);
    assert_string_equal(tar_find(&tar, "bin/sh").link, "/bin/busybox");
    assert_string_equal(tar_find(&tar, "usr/bin/env").link, "/bin/busybox");
    assert_int_equal(tar_find(&tar, "tmp").mode, S_IFDIR | 01777);
    assert_int_equal(tar_find(&tar, "var/tmp").mode, S_IFDIR | 01777);
    assert_int_equal(tar_find(&tar, "workspace").mode, S_IFDIR | 01777);
    assert_int_equal(tar_find(&tar, "root").mode, S_IFDIR | 0700);
    assert_true(tar_find(&tar, "etc/passwd").there);
    assert_true(tar_find(&tar, "etc/os-release").there);
    assert_int_equal(tar_find(&tar, "etc/ssl/certs/ca-certificates.crt").there,
                     access("/etc/ssl/certs/ca-certificates.crt", R_OK) == 0);
}

static void test_same_bytes_each_time(void **state)
{
    _cleanup_buffer_ struct buffer first = {0}, second = {0};
    assert_int_equal(image_tar_build(&first, NULL), 0);
    assert_int_equal(image_tar_build(&second, NULL), 0);
    assert_int_equal(buffer_length(&first), buffer_length(&second));
    assert_memory_equal(buffer_data(&first), buffer_data(&second), buffer_length(&first));
}

static void expect_refused(const char *path, enum error_code code)
{
    _cleanup_buffer_ struct buffer tar = {0};
    struct error error = ERROR_INIT;
    assert_int_equal(image_tar_build_from(path, &tar, &error), -1);
    assert_int_equal(error.code, code);
    assert_non_null(strstr(error.message, "apt-get install busybox-static"));
    assert_int_equal(buffer_length(&tar), 0);
}

static void test_refused(void **state)
{
    expect_refused("/nonexistent/busybox", ERROR_NOT_FOUND);
    expect_refused("/bin/ls", ERROR_INVALID);        /* dynamic */
    expect_refused("/etc/passwd", ERROR_INVALID);    /* not a program */
    expect_refused("/sbin/ldconfig", ERROR_INVALID); /* a script, or static and without applets */
}

static void test_truncated_program(void **state)
{
    char path[] = "/tmp/test_image.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *busybox = fopen(IMAGE_BUSYBOX, "re");
    assert_non_null(busybox);
    char head[70]; /* the ELF header, and program headers cut off */
    assert_int_equal(fread(head, 1, sizeof(head), busybox), sizeof(head));
    assert_int_equal(write(fd, head, sizeof(head)), sizeof(head));
    fclose(busybox);
    close(fd);
    expect_refused(path, ERROR_INVALID);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content),
        cmocka_unit_test(test_same_bytes_each_time),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_truncated_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
