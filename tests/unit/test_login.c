/* Who gets to see the login of registryAuth. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/login.h"

static struct config *parse(const char *text)
{
    struct error error = ERROR_INIT;
    struct config *config = config_parse(text, strlen(text), "test.yaml", false, NULL, 0, &error);
    if (config == NULL)
        fail_msg("%s", error.message);
    return config;
}

static void test_only_its_own_registry(void **state)
{
    static const struct {
        const char *registry, *reference;
        int found;
        const char *server;
    } rows[] = {
        {"registry.example:5000", "registry.example:5000/team/a:1", 1, "registry.example:5000"},
        {"registry.example:5000/mirror", "registry.example:5000/mirror/a", 1, "registry.example:5000"},
        {"registry.example:5000", "registry.example/team/a:1", 0, ""},
        {"registry.example:5000", "registry.example:5001/a", 0, ""},
        {"registry.example", "registry.example.evil.example/a", 0, ""},
        {"registry.example", "evil.example/registry.example/a", 0, ""},
        {"registry.example", "docker.io/library/a", 0, ""},
        {"", "team/a", 1, "docker.io"},
        {"", "docker.io/team/a", 1, "docker.io"},
        {"", "index.docker.io/team/a", 1, "docker.io"},
        {"docker.io", "team/a", 1, "docker.io"},
        {"index.docker.io", "docker.io/team/a", 1, "docker.io"},
        {"", "evil.example/a", 0, ""},
        {"", "localhost/a", 0, ""},
        {"", "not a reference", 0, ""},
    };
    (void)state;
    struct config *config = parse("registryAuth: {username: agent, password: s3cret}\n");
    struct config *none = parse("");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct login login;
        int found = login_find(&login, config, rows[i].registry, rows[i].reference, NULL);
        if (found != rows[i].found)
            fail_msg("%s of %s: %d", rows[i].reference, rows[i].registry, found);
        if (found > 0) {
            assert_string_equal(login.server, rows[i].server);
            assert_string_equal(login.username, "agent");
            assert_string_equal(login.password, "s3cret");
            assert_null(login.identity_token);
        }
        assert_int_equal(login_find(&login, none, rows[i].registry, rows[i].reference, NULL), 0);
    }
    config_free(config);
    config_free(none);
}

static void write_file(const char *path, const char *text, size_t size)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    fclose(file);
}

static void test_password_file(void **state)
{
    char path[] = "/tmp/warmpool-login.XXXXXX", text[256];
    static char large[8192];
    static const struct {
        const char *content;
        size_t size;
        const char *password, *words;
    } rows[] = {
        {"s3cret\n", 7, "s3cret", NULL},    {"two words\r\n", 11, "two words", NULL},
        {"s3cret", 6, "s3cret", NULL},      {"", 0, NULL, "in one line"},
        {"\n", 1, NULL, "in one line"},     {"a\nb\n", 4, NULL, "in one line"},
        {"a\0b\n", 4, NULL, "in one line"}, {large, sizeof large, NULL, "longer than 4095 bytes"},
    };
    (void)state;
    memset(large, 'x', sizeof large);
    close(mkstemp(path));
    snprintf(text, sizeof text, "registryAuth: {username: agent, passwordFile: %s}\n", path);
    struct config *config = parse(text);
    struct login login;
    struct error error = ERROR_INIT;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_file(path, rows[i].content, rows[i].size);
        int found = login_find(&login, config, "", "a", &error);
        assert_int_equal(found, rows[i].password != NULL ? 1 : -1);
        if (rows[i].password != NULL)
            assert_string_equal(login.password, rows[i].password);
        else if (strstr(error.message, rows[i].words) == NULL || strstr(error.message, path) == NULL)
            fail_msg("%s", error.message);
        login_forget(&login);
        assert_string_equal(login.secret, "");
    }
    assert_int_equal(login_find(&login, config, "", "evil.example/a", &error), 0); /* does not even read it */
    unlink(path);
    assert_int_equal(login_find(&login, config, "", "a", &error), -1);
    assert_non_null(strstr(error.message, "No such file"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(login_find(&login, config, "", "a", &error), -1); /* and does not wait for a writer */
    unlink(path);
    config_free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_its_own_registry),
        cmocka_unit_test(test_password_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
