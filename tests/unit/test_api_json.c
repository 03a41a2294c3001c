/* What the API writes and reads as JSON: the writer, results, requests. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "api/request.h"
#include "api/result.h"
#include "base/json_write.h"
#include "wire/message.h"

static void text_is(struct buffer *out, const char *expected)
{
    assert_string_equal(buffer_text(out), expected);
    buffer_free(out);
}

/* --- the writer ------------------------------------------------------------------------------------------------- */

static void values_and_commas(void **state)
{
    struct buffer out = {0};
    struct json_writer json = {.out = &out};
    (void)state;
    jw_open(&json, '{');
    jw_key(&json, "a");
    jw_uint(&json, UINT64_MAX);
    jw_key(&json, "b");
    jw_open(&json, '[');
    jw_int(&json, -5);
    jw_double(&json, 0.5);
    jw_double(&json, NAN);
    jw_double(&json, INFINITY);
    jw_bool(&json, true);
    jw_open(&json, '{');
    jw_close(&json, '}');
    jw_null(&json);
    jw_close(&json, ']');
    jw_key(&json, "c");
    jw_text(&json, NULL);
    jw_close(&json, '}');
    text_is(&out, "{\"a\":18446744073709551615,\"b\":[-5,0.5,null,null,true,{},null],\"c\":null}");
}

static void text_is_escaped(void **state)
{
    struct buffer out = {0};
    struct json_writer json = {.out = &out};
    (void)state;
    jw_text(&json, "a\"\\\n\r\t\x01\x7f/\xc3\xbc\xf0\x9f\x98\x80");
    text_is(&out, "\"a\\\"\\\\\\n\\r\\t\\u0001\\u007f/\xc3\xbc\xf0\x9f\x98\x80\"");
    json = (struct json_writer){.out = &out};
    jw_bytes(&json, (const uint8_t *)"a\0b\xff\xc3", 5);
    text_is(&out, "\"a\\u0000b\xef\xbf\xbd\xef\xbf\xbd\"");
}

/* Whatever the bytes, what is written is JSON. */
static void any_bytes_make_json(void **state)
{
    (void)state;
    unsigned seed = 7;
    for (int round = 0; round < 3000; round++) {
        uint8_t bytes[24];
        size_t size = (size_t)rand_r(&seed) % sizeof bytes;
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)(rand_r(&seed) % 3 == 0 ? rand_r(&seed) % 128 : 128 + rand_r(&seed) % 128);
        struct buffer out = {0};
        struct json_writer json = {.out = &out};
        jw_bytes(&json, bytes, size);
        json_t *read =
            json_loadb((char *)buffer_data(&out), buffer_length(&out), JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_non_null(read);
        if (utf8_prefix(bytes, size, NULL) == size) {
            assert_int_equal(json_string_length(read), size);
            assert_memory_equal(json_string_value(read), bytes, size);
        }
        json_decref(read);
        buffer_free(&out);
    }
}

static void base64_of_every_length(void **state)
{
    static const char *const expected[] = {"\"\"", "\"Zg==\"", "\"Zm8=\"", "\"Zm9v\"", "\"Zm9vYg==\""};
    (void)state;
    for (size_t size = 0; size < 5; size++) {
        struct buffer out = {0};
        struct json_writer json = {.out = &out};
        jw_base64(&json, (const uint8_t *)"foobar", size);
        text_is(&out, expected[size]);
    }
}

static void utf8_is_checked(void **state)
{
    static const struct {
        const char *bytes;
        size_t size, valid;
        bool incomplete;
    } cases[] = {
        {"", 0, 0, false},
        {"abc", 3, 3, false},
        {"\xc3\xbc", 2, 2, false},
        {"a\xc3", 2, 1, true},
        {"\xe2\x82", 2, 0, true},
        {"\xf0\x9f\x98", 3, 0, true},
        {"\xf0\x9f\x98\x80!", 5, 5, false},
        {"\xc0\x80", 2, 0, false},         /* overlong */
        {"\xe0\x80\x80", 3, 0, false},     /* overlong */
        {"\xed\xa0\x80", 3, 0, false},     /* surrogate */
        {"\xf4\x90\x80\x80", 4, 0, false}, /* beyond U+10FFFF */
        {"\xf8\x88\x80\x80", 4, 0, false},
        {"\x80", 1, 0, false},
        {"ok\xff", 3, 2, false},
        {"\xe2\x28", 2, 0, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool incomplete = !cases[i].incomplete;
        size_t valid = utf8_prefix((const uint8_t *)cases[i].bytes, cases[i].size, &incomplete);
        if (valid != cases[i].valid || incomplete != cases[i].incomplete)
            fail_msg("case %zu: %zu valid, %s", i, valid, incomplete ? "incomplete" : "whole");
    }
}

/* --- results ------------------------------------------------------------------------------------------------------ */

static json_t *written(const struct task_result *result, bool output)
{
    struct buffer out = {0};
    result_write(&out, result, output);
    json_t *json = json_loadb((char *)buffer_data(&out), buffer_length(&out), JSON_REJECT_DUPLICATES, NULL);
    buffer_free(&out);
    assert_non_null(json);
    return json;
}

static struct task_result sample(void)
{
    return (struct task_result){
        .task_id = "t1",
        .agent_type = "coder",
        .outcome = TASK_EXITED,
        .cli_exit_code = 0,
        .message = "",
        .output = (const uint8_t *)"out",
        .output_size = 3,
        .error = (const uint8_t *)"",
        .container_id = "cid",
        .container_name = "name",
        .pooled = true,
        .total_us = 1500,
        .resources = {EXIT_UNMEASURED, EXIT_UNMEASURED, EXIT_UNMEASURED, EXIT_UNMEASURED, EXIT_UNMEASURED, NULL}};
}

static void result_has_every_field(void **state)
{
    static const char *const fields[] = {"success",       "output",    "error",    "exitCode", "duration",
                                         "resourcesUsed", "artifacts", "metadata", "outcome",  "signal",
                                         "truncated",     "hit",       "timings"};
    static const char *const resources[] = {"cpuTime", "maxMemory", "diskIO", "networkIO", "fileHandles"};
    static const char *const metadata[] = {"taskId",          "agentType",     "containerId", "containerName",
                                           "executionMode",   "securityLevel", "execCount",   "containerAge",
                                           "pooledExecution", "sessionId"};
    static const char *const timings[] = {"queueMs", "dispatchMs", "execMs"};
    (void)state;
    struct task_result result = sample();
    json_t *json = written(&result, true);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        assert_non_null(json_object_get(json, fields[i]));
    for (size_t i = 0; i < sizeof resources / sizeof resources[0]; i++) /* not measured is null, never 0 */
        assert_true(json_is_null(json_object_get(json_object_get(json, "resourcesUsed"), resources[i])));
    for (size_t i = 0; i < sizeof metadata / sizeof metadata[0]; i++)
        assert_non_null(json_object_get(json_object_get(json, "metadata"), metadata[i]));
    for (size_t i = 0; i < sizeof timings / sizeof timings[0]; i++)
        assert_non_null(json_object_get(json_object_get(json, "timings"), timings[i]));
    assert_true(json_number_value(json_object_get(json, "duration")) == 1.5);
    json_decref(json);
}

static void success_is_an_exit_with_zero_only(void **state)
{
    (void)state;
    for (enum task_outcome outcome = TASK_UNKNOWN; outcome <= TASK_REJECTED; outcome++)
        for (int code = -1; code <= 1; code++) {
            struct task_result result = sample();
            result.outcome = outcome;
            result.exit_code = code;
            json_t *json = written(&result, true);
            bool success = json_is_true(json_object_get(json, "success"));
            assert_int_equal(success, outcome == TASK_EXITED && code == 0);
            assert_int_equal(json_is_null(json_object_get(json, "exitCode")), code < 0);
            json_decref(json);
        }
}

static void what_is_no_text_is_base64(void **state)
{
    (void)state;
    struct task_result result = sample();
    result.error = (const uint8_t *)"\xff";
    result.error_size = 1;
    json_t *json = written(&result, true);
    assert_null(json_object_get(json, "outputEncoding"));
    assert_string_equal(json_string_value(json_object_get(json, "errorEncoding")), "base64");
    assert_string_equal(json_string_value(json_object_get(json, "error")), "/w==");
    json_decref(json);
    result = sample();
    result.output = result.error = NULL; /* not captured */
    json = written(&result, true);
    assert_true(json_is_null(json_object_get(json, "output")));
    json_decref(json);
    result.outcome = TASK_TIMED_OUT;
    result.message = "timed out after 5 ms";
    json = written(&result, true);
    assert_string_equal(json_string_value(json_object_get(json, "error")), "timed out after 5 ms");
    json_decref(json);
}

/* --- requests -------------------------------------------------------------------------------------------------------
 */

struct fixture {
    struct config *config;
    struct api_request request;
    struct api_failure failure;
};

static int set_up(void **state)
{
    static const char text[] =
        "agentConfigs:\n"
        "  coder:\n"
        "    command: [\"a-{{description}}-{{n}}\", \"{{deep.er}}\", \"{{task}}\", \"{{task.flag}}\", "
        "\"{{agent.name}}\", \"{{open\"]\n";
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct error error = ERROR_INIT;
    fixture->config = config_parse(text, sizeof text - 1, "test", false, NULL, 0, &error);
    assert_non_null(fixture->config);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    config_free(fixture->config);
    free(fixture);
    return 0;
}

static int parse(struct fixture *fixture, const char *body)
{
    return api_request_parse(&fixture->request, body, strlen(body), fixture->config, NULL, &fixture->failure);
}

static void request_is_read(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(parse(fixture,
                           "{\"agentType\":\"coder\",\"command\":[\"a\",\"\"],\"env\":{\"K\":\"v=w\",\"L\":\"\"},"
                           "\"stdin\":\"a\\u0000b\",\"workdir\":\"/x\",\"timeoutMs\":\"2s\",\"killTimeout\":7,"
                           "\"queueTimeoutMs\":0,\"maxOutputBytes\":\"1k\",\"priority\":\"high\",\"id\":\"i\","
                           "\"fresh\":true,\"captureOutput\":true,\"streamOutput\":false}"),
                     0);
    const struct task_request *task = &fixture->request.task;
    assert_string_equal(task->agent_type, "coder");
    assert_string_equal(task->argv[1], "");
    assert_null(task->argv[2]);
    assert_string_equal(task->env[0], "K=v=w");
    assert_string_equal(task->env[1], "L=");
    assert_null(task->env[2]);
    assert_int_equal(task->stdin_size, 3);
    assert_memory_equal(task->stdin_data, "a\0b", 3);
    assert_string_equal(task->workdir, "/x");
    assert_int_equal(task->timeout_ms, 2000);
    assert_int_equal(task->kill_timeout_ms, 7);
    assert_int_equal(task->queue_timeout_ms, 0);
    assert_int_equal(task->max_output_bytes, 1024);
    assert_int_equal(task->priority, PRIORITY_HIGH);
    assert_true(task->fresh && task->capture && !task->stream);
    api_request_free(&fixture->request);
    assert_int_equal(parse(fixture, "{\"agentType\":\"coder\",\"command\":[\"a\"]}"), 0);
    assert_int_equal(task->timeout_ms, -1);
    assert_int_equal(task->max_output_bytes, -1);
    assert_int_equal(task->priority, PRIORITY_NORMAL);
    assert_null(task->env);
    api_request_free(&fixture->request);
}

static void template_is_filled(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(parse(fixture, "{\"agentType\":\"coder\",\"task\":{\"description\":\"d {{n}}\",\"n\":1.5,"
                                    "\"deep\":{\"er\":[1]},\"flag\":true},\"agent\":{\"name\":\"A\"}}"),
                     0);
    const char *const *argv = fixture->request.task.argv;
    assert_string_equal(argv[0], "a-d {{n}}-1.5"); /* what was filled in is not a template again */
    assert_string_equal(argv[1], "[1]");
    assert_string_equal(argv[2], "{\"deep\":{\"er\":[1]},\"description\":\"d {{n}}\",\"flag\":true,\"n\":1.5}");
    assert_string_equal(argv[3], "true");
    assert_string_equal(argv[4], "A");
    assert_string_equal(argv[5], "{{open");
    assert_null(argv[6]);
    api_request_free(&fixture->request);
    assert_int_equal(parse(fixture, "{\"agentType\":\"coder\",\"task\":{\"description\":\"a\\u0000b\",\"n\":1,"
                                    "\"deep\":{\"er\":1},\"flag\":true},\"agent\":{\"name\":\"A\"}}"),
                     -1);
    assert_int_equal(fixture->failure.status, 400);
    api_request_free(&fixture->request);
    assert_int_equal(parse(fixture, "{\"agentType\":\"coder\",\"task\":{\"description\":\"a\",\"n\":1}}"), -1);
    assert_int_equal(fixture->failure.status, 422);
    assert_non_null(strstr(fixture->failure.error.message, "deep.er"));
    assert_true(fixture->failure.hint[0] != '\0');
    api_request_free(&fixture->request);
}

/* Every beginning of a good request, and every byte of it changed: an answer, never a crash or a leak. */
static void damaged_requests_are_survived(void **state)
{
    struct fixture *fixture = *state;
    static const char good[] = "{\"agentType\":\"coder\",\"task\":{\"description\":\"d\",\"n\":1,\"deep\":{\"er\":1},"
                               "\"flag\":false},\"agent\":{\"name\":\"A\"},\"env\":{\"A\":\"1\"},\"stdin\":\"aGk=\","
                               "\"stdinEncoding\":\"base64\",\"timeoutMs\":5}";
    char body[sizeof good];
    for (size_t size = 0; size < sizeof good - 1; size++) {
        assert_int_equal(api_request_parse(&fixture->request, good, size, fixture->config, NULL, &fixture->failure),
                         -1);
        assert_true(fixture->failure.status >= 400 && fixture->failure.hint != NULL);
        api_request_free(&fixture->request);
    }
    for (size_t at = 0; at < sizeof good - 1; at++)
        for (const char *with = "\"\\{}[],:0x\xff"; *with != '\0'; with++) {
            memcpy(body, good, sizeof good);
            body[at] = *with;
            api_request_parse(&fixture->request, body, sizeof good - 1, fixture->config, NULL, &fixture->failure);
            api_request_free(&fixture->request);
        }
}

static void stdin_takes_base64(void **state)
{
    static const struct {
        const char *text, *bytes;
    } cases[] = {{"", ""},        {"Zg==", "f"}, {"Zg", "f"},     {"Zm8=", "fo"},
                 {"Zm9v", "foo"}, {"Z", NULL},   {"Zm9=v", NULL}, {"Zm 9", NULL}};
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[160];
        snprintf(body, sizeof body,
                 "{\"agentType\":\"coder\",\"command\":[\"a\"],\"stdin\":\"%s\",\"stdinEncoding\":\"base64\"}",
                 cases[i].text);
        assert_int_equal(parse(fixture, body), cases[i].bytes == NULL ? -1 : 0);
        if (cases[i].bytes != NULL) {
            assert_int_equal(fixture->request.task.stdin_size, strlen(cases[i].bytes));
            assert_memory_equal(fixture->request.task.stdin_data, cases[i].bytes, strlen(cases[i].bytes));
        }
        api_request_free(&fixture->request);
    }
}

int main(void)
{
#define WITH_CONFIG(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_commas),
        cmocka_unit_test(text_is_escaped),
        cmocka_unit_test(any_bytes_make_json),
        cmocka_unit_test(base64_of_every_length),
        cmocka_unit_test(utf8_is_checked),
        cmocka_unit_test(result_has_every_field),
        cmocka_unit_test(success_is_an_exit_with_zero_only),
        cmocka_unit_test(what_is_no_text_is_base64),
        WITH_CONFIG(request_is_read),
        WITH_CONFIG(template_is_filled),
        WITH_CONFIG(damaged_requests_are_survived),
        WITH_CONFIG(stdin_takes_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
