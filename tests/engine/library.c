/* libwarmpool as its users have it: tasks, leases, errors, both modes' common ground, against a real engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <warmpool/warmpool.h>

static char place[] = "/tmp/wp-library-XXXXXX";
static wp_executor *executor;

static int begin(void **state)
{
    (void)state;
    wp_error error;
    if (mkdtemp(place) == NULL)
        return -1;
    char setting[64];
    snprintf(setting, sizeof setting, "stateDir=%s/state", place);
    const char *const settings[] = {setting,         "warmupAgentTypes=coder", "poolSize=1",
                                    "maxPoolSize=2", "queueTimeoutMs=2s",      NULL};
    wp_options options = WP_OPTIONS_INIT;
    options.settings = settings;
    executor = wp_executor_open(&options, &error);
    if (executor == NULL)
        fprintf(stderr, "%s\n", error.message);
    return executor == NULL || wp_executor_ready(executor, 60000, &error) < 0 ? -1 : 0;
}

static int end(void **state)
{
    (void)state;
    char command[100];
    wp_executor_close(executor);
    snprintf(command, sizeof command, "rm -rf %s", place);
    return system(command);
}

static wp_result *run(const char *lease, const char *script)
{
    wp_error error;
    const char *argv[] = {"sh", "-c", script, NULL};
    wp_task task = WP_TASK_INIT;
    task.agent_type = lease == NULL ? "coder" : NULL;
    task.lease = lease;
    task.argv = argv;
    wp_result *result = wp_executor_execute(executor, &task, &error);
    if (result == NULL)
        fprintf(stderr, "%s\n", error.message);
    return result;
}

static void test_a_lease_keeps_files_and_processes(void **state)
{
    (void)state;
    wp_error error;
    char *lease = wp_executor_lease(executor, "coder", -1, &error);
    assert_non_null(lease);
    wp_result *first = run(lease, "echo kept > f; sleep 1000 & echo $! > pid");
    wp_result *second = run(lease, "cat f; kill -0 $(cat pid) && echo lives");
    assert_true(first != NULL && second != NULL);
    assert_string_equal(second->output, "kept\nlives\n");
    assert_string_equal(first->container_id, second->container_id);
    assert_int_equal(second->exec_count, first->exec_count + 1);
    wp_result_free(first);
    wp_result_free(second);
    assert_int_equal(wp_executor_release(executor, lease, &error), 0);
    assert_int_equal(wp_executor_release(executor, lease, &error), -1);
    assert_int_equal(error.code, WP_ERROR_NOT_FOUND);
    wp_result *after = run(NULL, "ls; ps | grep -c '[s]leep' || true");
    assert_non_null(after);
    assert_string_equal(after->output, "0\n");
    wp_result_free(after);
    free(lease);
}

static void test_a_lease_that_there_is_not(void **state)
{
    (void)state;
    wp_error error;
    const char *argv[] = {"true", NULL};
    wp_task task = WP_TASK_INIT;
    task.argv = argv;
    task.lease = "l0000000000000000";
    assert_null(wp_executor_execute(executor, &task, &error));
    assert_int_equal(error.code, WP_ERROR_NOT_FOUND);
    assert_null(wp_executor_lease(executor, NULL, -1, &error));
    assert_int_equal(error.code, WP_ERROR_INVALID);
    assert_null(wp_executor_lease(executor, "Not A Type", -1, &error));
    assert_int_equal(error.code, WP_ERROR_INVALID);
}

static void test_a_lease_waits_for_a_container_and_no_longer_than_it_may(void **state)
{
    (void)state;
    wp_error error;
    char *one = wp_executor_lease(executor, "coder", -1, &error),
         *two = wp_executor_lease(executor, "coder", -1, &error);
    assert_true(one != NULL && two != NULL);
    assert_null(wp_executor_lease(executor, "coder", -1, &error)); /* maxPoolSize is 2 */
    assert_int_equal(error.code, WP_ERROR_TIMEOUT);
    assert_int_equal(wp_executor_release(executor, one, &error), 0);
    char *three = wp_executor_lease(executor, "coder", 200, &error);
    assert_non_null(three);
    sleep(2); /* its time to live is over */
    assert_int_equal(wp_executor_release(executor, three, &error), -1);
    assert_int_equal(wp_executor_release(executor, two, &error), 0);
    free(one);
    free(two);
    free(three);
}

static void test_callers_of_an_older_header_are_served(void **state)
{
    (void)state;
    wp_error error;
    const char *argv[] = {"echo", "old", NULL};
    wp_task task = WP_TASK_INIT;
    task.struct_size = offsetof(wp_task, lease);
    task.agent_type = "coder";
    task.argv = argv;
    task.lease = (const char *)1; /* not read */
    wp_result *result = wp_executor_execute(executor, &task, &error);
    assert_non_null(result);
    assert_string_equal(result->output, "old\n");
    wp_result_free(result);
}

static void test_secrets(void **state)
{
    (void)state;
    wp_error error;
    wp_secret secrets[] = {{.name = "KEY", .value = "a\0b", .size = 3},
                           {.name = "WORD", .value = "xyz", .size = 3, .as_env = 1}};
    const char *argv[] = {"sh", "-c", "cat $WARMPOOL_SECRET_KEY; echo .$WORD", NULL};
    wp_task task = WP_TASK_INIT;
    task.agent_type = "coder";
    task.argv = argv;
    task.secrets = secrets;
    task.secret_count = 2;
    wp_result *result = wp_executor_execute(executor, &task, &error);
    assert_non_null(result);
    assert_int_equal(result->output_size, 8);
    assert_memory_equal(result->output, "a\0b.xyz\n", 8);
    wp_result_free(result);

    secrets[1].name = "KEY"; /* twice */
    assert_null(wp_executor_execute(executor, &task, &error));
    assert_int_equal(error.code, WP_ERROR_INVALID);
    assert_non_null(strstr(error.message, "two secrets \"KEY\""));
    secrets[1].name = NULL;
    assert_null(wp_executor_execute(executor, &task, &error));
    secrets[1] = (wp_secret){.name = "NONE", .size = 3};
    assert_null(wp_executor_execute(executor, &task, &error));
    assert_non_null(strstr(error.message, "must have a value"));
    task.secret_count = 33;
    assert_null(wp_executor_execute(executor, &task, &error));
    assert_int_equal(error.code, WP_ERROR_INVALID);
    assert_null(strstr(error.message, "xyz"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lease_keeps_files_and_processes),
        cmocka_unit_test(test_a_lease_that_there_is_not),
        cmocka_unit_test(test_a_lease_waits_for_a_container_and_no_longer_than_it_may),
        cmocka_unit_test(test_callers_of_an_older_header_are_served),
        cmocka_unit_test(test_secrets),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
