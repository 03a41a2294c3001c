/* Container specs as JSON: what an engine cannot be asked about, since it would need another cgroup version. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/spec.h"

static const char *const entrypoint[] = {"/.warmpool/runner", NULL};

static struct container_spec spec_least(void)
{
    return (struct container_spec){.name = "a", .image = "b", .entrypoint = entrypoint, .memory_swappiness = -1};
}

static json_t *host_of(json_t *container)
{
    return json_object_get(container, "HostConfig");
}

static void test_swappiness(void **state)
{
    struct container_spec spec = spec_least();
    json_t *container = spec_container(&spec, NULL);
    assert_null(json_object_get(host_of(container), "MemorySwappiness"));
    spec_drop_swappiness(container); /* nothing to drop */
    json_decref(container);
    spec.memory_swappiness = 0;
    container = spec_container(&spec, NULL);
    assert_true(json_is_integer(json_object_get(host_of(container), "MemorySwappiness")));
    spec_drop_swappiness(container);
    assert_null(json_object_get(host_of(container), "MemorySwappiness"));
    assert_non_null(json_object_get(host_of(container), "OomScoreAdj"));
    json_decref(container);
}

/* What is 0 in a spec is left out: to an engine a 0 may mean something else. */
static void test_unlimited(void **state)
{
    static const char *const absent[] = {"Memory", "MemorySwap", "NanoCpus", "PidsLimit", "Tmpfs", "Runtime"};
    struct container_spec spec = spec_least();
    json_t *container = spec_container(&spec, NULL);
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
        assert_null(json_object_get(host_of(container), absent[i]));
    /* A spec without a network gets none, not the engine's default bridge. */
    assert_string_equal(json_string_value(json_object_get(host_of(container), "NetworkMode")), "none");
    json_decref(container);
}

static void test_security(void **state)
{
    static const char *const more[] = {"apparmor=warmpool", NULL};
    struct container_spec spec = spec_least();
    spec.security_opt = more;
    json_t *container = spec_container(&spec, NULL);
    assert_int_equal(json_array_size(json_object_get(host_of(container), "SecurityOpt")), 1);
    json_decref(container);
    spec.no_new_privileges = true;
    container = spec_container(&spec, NULL);
    json_t *options = json_object_get(host_of(container), "SecurityOpt");
    assert_int_equal(json_array_size(options), 2);
    assert_string_equal(json_string_value(json_array_get(options, 0)), "apparmor=warmpool");
    assert_string_equal(json_string_value(json_array_get(options, 1)), "no-new-privileges");
    assert_string_equal(json_string_value(json_array_get(json_object_get(host_of(container), "CapDrop"), 0)), "ALL");
    json_decref(container);
}

static void expect_refused(const struct container_spec *spec, const char *words)
{
    struct error error = ERROR_INIT;
    assert_null(spec_container(spec, &error));
    assert_int_equal(error.code, ERROR_INVALID);
    assert_non_null(strstr(error.message, words));
}

static void test_refused(void **state)
{
    static const char *const latin[] = {"GOOD=1", "BAD=\xff", NULL};
    struct engine_label label = {"key", NULL};
    struct engine_tmpfs tmpfs = {"relative", 1, 1, false};
    struct engine_bind bind = {"/source", NULL, false};
    struct container_spec spec = spec_least();
    spec.env = latin;
    expect_refused(&spec, "env");
    spec = spec_least();
    spec.labels = &label;
    spec.label_count = 1;
    expect_refused(&spec, "label");
    spec = spec_least();
    spec.tmpfs = &tmpfs;
    spec.tmpfs_count = 1;
    expect_refused(&spec, "absolute");
    spec = spec_least();
    spec.binds = &bind;
    spec.bind_count = 1;
    expect_refused(&spec, "absolute");
    spec = spec_least();
    spec.pids_limit = -1;
    expect_refused(&spec, "out of range");
    spec = spec_least();
    spec.image = "";
    expect_refused(&spec, "image");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_swappiness),
        cmocka_unit_test(test_unlimited),
        cmocka_unit_test(test_security),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
