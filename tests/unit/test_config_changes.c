/* What a running daemon can take of another configuration, and what it says of the difference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "config/option.h"

static struct config *parse(const char *text)
{
    struct error error = ERROR_INIT;
    struct config *config = config_parse(text, strlen(text), "test.yaml", false, NULL, 0, &error);
    if (config == NULL)
        fail_msg("%s", error.message);
    return config;
}

struct pair {
    struct config *from, *to;
};

static struct pair pair_of(const char *from, const char *to)
{
    return (struct pair){parse(from), parse(to)};
}

static void pair_free(struct pair *pair)
{
    config_free(pair->from);
    config_free(pair->to);
}

static void on_change(void *user, const char *agent_type, const char *key, const char *from, const char *to)
{
    buffer_printf(user, "%s%s%s: %s -> %s\n", agent_type != NULL ? agent_type : "", agent_type != NULL ? "." : "", key,
                  from, to);
}

static void changed(const char *from, const char *to, const char *expected)
{
    struct pair pair = pair_of(from, to);
    struct buffer out = {0};
    config_changes(pair.from, pair.to, on_change, &out);
    assert_string_equal(buffer_text(&out), expected);
    buffer_free(&out);
    pair_free(&pair);
}

static bool rolls(const char *from, const char *to, const char *agent_type)
{
    struct pair pair = pair_of(from, to);
    bool result = profile_rolls(config_profile_of(pair.from, agent_type), config_profile_of(pair.to, agent_type));
    pair_free(&pair);
    return result;
}

static void refused(const char *from, const char *to, const char *message)
{
    struct pair pair = pair_of(from, to);
    struct error error = ERROR_INIT;
    assert_int_equal(config_reload_check(pair.from, pair.to, &error), -1);
    assert_int_equal(error.code, ERROR_CONFLICT);
    if (strstr(error.message, message) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", message, error.message);
    pair_free(&pair);
}

static void test_what_needs_a_restart_is_refused_with_key_and_values(void **state)
{
    (void)state;
    refused("stateDir: /a\n", "stateDir: /b\n", "stateDir cannot change while the daemon runs (from \"/a\" to \"/b\")");
    refused("", "uidRange: 5-6\n", "uidRange cannot change while the daemon runs (from 2000000000-2000065535 to 5-6)");
    refused("", "networkSubnetPool: 10.1.0.0/16\n", "networkSubnetPool");
    refused("", "orphanTimeout: 1m\n", "(from 600000ms to 60000ms)");
    refused("", "poolSize: 5\nsocket: /x\n", "socket");
    for (size_t i = 0; i < option_count; i++)
        if (options[i].scope != SCOPE_GLOBAL)
            assert_int_not_equal(options[i].reload, RELOAD_RESTART);
}

static void test_the_rest_is_taken(void **state)
{
    (void)state;
    struct pair pair = pair_of("stateDir: /a\n", "stateDir: /a\npoolSize: 5\nmemory: 99m\nlogLevel: debug\n"
                                                 "agentConfigs: {coder: {cpus: 2}, new: {}}\n"
                                                 "registryAuth: {username: u, password: p}\n");
    struct error error = ERROR_INIT;
    assert_int_equal(config_reload_check(pair.from, pair.to, &error), 0);
    assert_int_equal(error.code, ERROR_NONE);
    pair_free(&pair);
}

static void test_what_describes_the_container_rolls_its_type(void **state)
{
    (void)state;
    assert_false(rolls("", "", "coder"));
    assert_false(rolls("", "poolSize: 4\nmaxPoolSize: 20\nmaxContainerAge: 5m\ntimeoutMs: 1\n", "coder"));
    assert_false(rolls("", "command: [a]\n", "coder"));
    assert_true(rolls("", "dockerImage: other\n", "coder"));
    assert_true(rolls("", "agentConfigs: {coder: {memory: 99m}}\n", "coder"));
    assert_false(rolls("", "agentConfigs: {coder: {memory: 99m}}\n", "tester"));
    assert_false(rolls("", "memory: 99m\n", "coder")); /* has its own */
    assert_true(rolls("", "memory: 99m\n", "unheard-of"));
    assert_true(rolls("", "environment: {A: x}\n", "coder"));
    assert_true(rolls("environment: {A: x}\n", "environment: {A: y}\n", "coder"));
    assert_true(rolls("environment: {A: x, B: x}\n", "environment: {A: x}\n", "coder"));
    assert_false(rolls("environment: {A: x, B: y}\n", "environment: {B: y, A: x}\n", "coder"));
    assert_true(rolls("agentConfigs: {own: {cpus: 2}}\n", "", "own"));
}

static void test_changes_are_told_once(void **state)
{
    (void)state;
    changed("poolSize: 3\n", "poolSize: 3\n", "");
    changed("poolSize: 3\n", "poolSize: 4\n", "poolSize: 3 -> 4\n");
    changed("poolSize: 3\nagentConfigs: {coder: {poolSize: 5}}\n",
            "poolSize: 4\nagentConfigs: {coder: {poolSize: 6}}\n", "poolSize: 3 -> 4\ncoder.poolSize: 5 -> 6\n");
    changed("poolSize: 3\n", "poolSize: 3\nagentConfigs: {coder: {poolSize: 6}}\n", "coder.poolSize: 3 -> 6\n");
    changed("poolSize: 3\nagentConfigs: {own: {poolSize: 6}}\n", "poolSize: 3\n", "own.poolSize: 6 -> 3\n");
    changed("logLevel: info\n", "logLevel: debug\n", "logLevel: info -> debug\n");
}

static void test_changes_tell_no_secrets(void **state)
{
    (void)state;
    changed("registryAuth: {username: u, password: one}\n", "registryAuth: {username: u, password: two}\n",
            "registryAuth: (not shown) -> (not shown)\n");
    changed("registryAuth: {identityToken: one}\n", "registryAuth: {identityToken: two}\n",
            "registryAuth: (not shown) -> (not shown)\n");
    changed("", "environment: {API_KEY: s3cret}\nagentConfigs: {coder: {environment: {API_KEY: other}}}\n",
            "environment: (not shown) -> (not shown)\ncoder.environment: (not shown) -> (not shown)\n"
            "tester.environment: (not shown) -> (not shown)\nreviewer.environment: (not shown) -> (not shown)\n"
            "researcher.environment: (not shown) -> (not shown)\nplanner.environment: (not shown) -> (not shown)\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_needs_a_restart_is_refused_with_key_and_values),
        cmocka_unit_test(test_the_rest_is_taken),
        cmocka_unit_test(test_what_describes_the_container_rolls_its_type),
        cmocka_unit_test(test_changes_are_told_once),
        cmocka_unit_test(test_changes_tell_no_secrets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
