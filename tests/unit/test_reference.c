/* Image references: read as Docker reads them, refused with what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config/reference.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_parts(void **state)
{
    static const struct {
        const char *text, *name, *tag, *digest, *server, *repository;
    } rows[] = {
        {"busybox", "busybox", "", "", "docker.io", "docker.io/library/busybox"},
        {"busybox:1.36", "busybox", "1.36", "", "docker.io", "docker.io/library/busybox"},
        {"docker.io/busybox", "docker.io/busybox", "", "", "docker.io", "docker.io/library/busybox"},
        {"index.docker.io/library/busybox", "index.docker.io/library/busybox", "", "", "docker.io",
         "docker.io/library/busybox"},
        {"team/image:v1", "team/image", "v1", "", "docker.io", "docker.io/team/image"},
        {"localhost/image", "localhost/image", "", "", "localhost", "localhost/image"},
        {"localhost:5000/a/b/c", "localhost:5000/a/b/c", "", "", "localhost:5000", "localhost:5000/a/b/c"},
        {"registry.example/image:A_b.c-d", "registry.example/image", "A_b.c-d", "", "registry.example",
         "registry.example/image"},
        {"127.0.0.1:5000/a@sha256:" HEX64, "127.0.0.1:5000/a", "", "sha256:" HEX64, "127.0.0.1:5000",
         "127.0.0.1:5000/a"},
        {"a:t@sha256:" HEX64, "a", "t", "sha256:" HEX64, "docker.io", "docker.io/library/a"},
        {"[::1]:5000/a", "[::1]:5000/a", "", "", "[::1]:5000", "[::1]:5000/a"},
        {"x/a__b.c-d---e/f", "x/a__b.c-d---e/f", "", "", "docker.io", "docker.io/x/a__b.c-d---e/f"},
        {"image:5000", "image", "5000", "", "docker.io", "docker.io/library/image"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct reference reference;
        struct error error = ERROR_INIT;
        char text[512];
        if (reference_parse(&reference, rows[i].text, &error) < 0)
            fail_msg("%s", error.message);
        assert_string_equal(reference.name, rows[i].name);
        assert_string_equal(reference.tag, rows[i].tag);
        assert_string_equal(reference.digest, rows[i].digest);
        reference_server(&reference, text, sizeof text);
        assert_string_equal(text, rows[i].server);
        reference_repository(&reference, text, sizeof text);
        assert_string_equal(text, rows[i].repository);
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } rows[] = {
        {"", "empty"},
        {"Image", "small letters"},
        {"Team/image", "small letters"},
        {"a//b", "small letters"},
        {"/a", "small letters"},
        {"a/", "small letters"},
        {"a..b", "small letters"},
        {"a___b", "small letters"},
        {"-a", "small letters"},
        {"a-", "small letters"},
        {"a b", "small letters"},
        {"a\n", "\"a?\""},
        {"../etc", "registry is no HOST"},
        {"a:", "tag must be"},
        {"a:-t", "tag must be"},
        {"a:t t", "tag must be"},
        {":t", "tag must be"},
        {"a@", "digest"},
        {"a@sha256:abc", "digest"},
        {"a@sha256:" HEX64 "0", "digest"},
        {"a@md5", "digest"},
        {"@sha256:" HEX64, "digest"},
        {"a@b@sha256:" HEX64, "digest"},
        {"host:port/a", "registry is no HOST"},
        {"host:/a", "registry is no HOST"},
        {"host:70000/a", "registry is no HOST"},
        {"-host.example/a", "registry is no HOST"},
        {"host..example/a", "registry is no HOST"},
        {"https://registry.example/a", "scheme"},
        {"registry.example/", "small letters"},
        {"user:password@registry.example/a", "digest"},
        {"a?tag=b", "small letters"},
        {"a%2fb", "small letters"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct reference reference;
        struct error error = ERROR_INIT;
        if (reference_parse(&reference, rows[i].text, &error) == 0)
            fail_msg("accepted: %s", rows[i].text);
        assert_int_equal(error.code, ERROR_INVALID);
        if (strstr(error.message, rows[i].words) == NULL)
            fail_msg("%s: \"%s\" is not in \"%s\"", rows[i].text, rows[i].words, error.message);
    }
}

static void test_lengths(void **state)
{
    char text[1024];
    struct reference reference;
    struct error error = ERROR_INIT;
    (void)state;
    memset(text, 'a', sizeof text);
    text[255] = '\0';
    assert_int_equal(reference_parse(&reference, text, &error), 0);
    text[255] = 'a', text[256] = '\0';
    assert_int_equal(reference_parse(&reference, text, &error), -1);
    assert_non_null(strstr(error.message, "longer than 255"));
    text[256] = 'a', text[1023] = '\0';
    assert_int_equal(reference_parse(&reference, text, &error), -1);
    assert_non_null(strstr(error.message, "longer than 512"));
    memset(text, 'a', sizeof text);
    text[1] = ':', text[2 + 128] = '\0';
    assert_int_equal(reference_parse(&reference, text, &error), 0);
    text[2 + 128] = 'a', text[3 + 128] = '\0';
    assert_int_equal(reference_parse(&reference, text, &error), -1);
    assert_non_null(strstr(error.message, "1 to 128"));
}

static void test_registry_before_those_without_one(void **state)
{
    static const struct {
        const char *reference, *registry, *at;
    } rows[] = {
        {"team/img:1", "registry.example:5000", "registry.example:5000/team/img:1"},
        {"img", "registry.example/mirror", "registry.example/mirror/img"},
        {"img", "", "img"},
        {"img", NULL, "img"},
        {"img@sha256:" HEX64, "localhost", "localhost/img@sha256:" HEX64},
        {"other.example/img:2", "registry.example:5000", "other.example/img:2"},
        {"docker.io/img", "registry.example:5000", "docker.io/img"},
        {"localhost/img:3", "registry.example:5000", "localhost/img:3"},
        {"sha256:" HEX64, "registry.example:5000", "sha256:" HEX64},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *at = reference_at(rows[i].registry, rows[i].reference);
        assert_string_equal(at, rows[i].at);
        assert_int_equal(reference_check(at, NULL), 0);
        free(at);
    }
}

static void test_pinned(void **state)
{
    static const char *const rows[][2] = {
        {"img", "img@sha256:" HEX64},
        {"img:1", "img@sha256:" HEX64},
        {"host:5000/img", "host:5000/img@sha256:" HEX64},
        {"host:5000/img:1@sha256:0" HEX64, "host:5000/img@sha256:" HEX64},
        {"host.example/a/b@sha256:0" HEX64, "host.example/a/b@sha256:" HEX64},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *pinned = reference_pinned(rows[i][0], "sha256:" HEX64);
        assert_string_equal(pinned, rows[i][1]);
        free(pinned);
    }
}

static void test_registries(void **state)
{
    static const char *const sound[] = {"registry.example", "registry.example:5000",        "localhost",
                                        "127.0.0.1:5000",   "localhost:5000/mirror/of.hub", "[::1]:5000"};
    static const char *const wrong[] = {"registry",
                                        "https://registry.example",
                                        "registry.example/",
                                        "r.example:0",
                                        "r.example/Team",
                                        "r.example:5000:6000",
                                        "user@r.example",
                                        " r.example",
                                        ""};
    (void)state;
    struct error error = ERROR_INIT;
    for (size_t i = 0; i < sizeof sound / sizeof sound[0]; i++)
        if (registry_check(sound[i], &error) < 0)
            fail_msg("%s: %s", sound[i], error.message);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (registry_check(wrong[i], &error) == 0)
            fail_msg("accepted: %s", wrong[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_registry_before_those_without_one),
        cmocka_unit_test(test_pinned),  cmocka_unit_test(test_registries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
