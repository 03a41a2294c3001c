/* The API over a real socket, in front of a double of the executor. The server runs on a thread of its own; the tests
 * are its blocking client. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "api/server.h"
#include "base/clock.h"
#include "fake_executor.h"
#include "wire/frame.h"
#include "wire/message.h"

#define CODER "\"agentType\":\"coder\","

struct service {
    uv_loop_t loop;
    uv_async_t stop;
    pthread_t thread;
    struct fake_counters counters;
    struct executor *executor;
    struct api_server *api;
    struct config *config;
    struct log log;
    char directory[64], socket[96];
    atomic_uint shutdowns;
    atomic_bool forced;
};

static struct service service;

static void on_shutdown(void *user, bool force)
{
    struct service *at = user;
    atomic_store(&at->forced, force);
    atomic_fetch_add(&at->shutdowns, 1);
}

static void on_stop(uv_async_t *async)
{
    struct service *at = async->data;
    api_server_close(at->api, NULL, NULL);
    fake_executor_stop(at->executor);
    uv_close((uv_handle_t *)async, NULL);
}

static void *serve(void *user)
{
    uv_run(&((struct service *)user)->loop, UV_RUN_DEFAULT);
    return NULL;
}

static int set_up(void **state)
{
    static const char text[] = "agentConfigs:\n"
                               "  coder:\n"
                               "    command: [echo, \"{{description}}\", \"{{input.n}}\", \"{{agent.name}}\"]\n";
    struct error error = ERROR_INIT;
    (void)state;
    memset(&service, 0, sizeof service);
    strcpy(service.directory, "/tmp/wp-unit-XXXXXX");
    assert_non_null(mkdtemp(service.directory));
    snprintf(service.socket, sizeof service.socket, "%s/run/api.sock", service.directory);
    service.config = config_parse(text, sizeof text - 1, "test", false, NULL, 0, &error);
    assert_non_null(service.config);
    uv_loop_init(&service.loop);
    uv_async_init(&service.loop, &service.stop, on_stop);
    service.stop.data = &service;
    service.executor = fake_executor_new(&service.loop, &service.counters);
    struct api_options options = {.loop = &service.loop,
                                  .executor = service.executor,
                                  .config = service.config,
                                  .log = &service.log,
                                  .socket = service.socket,
                                  .shutdown = on_shutdown,
                                  .user = &service};
    service.api = api_server_open(&options, &error);
    assert_non_null(service.api);
    assert_int_equal(pthread_create(&service.thread, NULL, serve, &service), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    uv_async_send(&service.stop);
    pthread_join(service.thread, NULL);
    assert_int_equal(uv_loop_close(&service.loop), 0); /* every handle was closed */
    fake_executor_free(service.executor);
    config_free(service.config);
    assert_int_equal(access(service.socket, F_OK), -1);
    char run[96];
    snprintf(run, sizeof run, "%s/run", service.directory);
    assert_int_equal(rmdir(run), 0); /* socket and lock are gone */
    rmdir(service.directory);
    return 0;
}

/* --- the client ------------------------------------------------------------------------------------------------- */

struct answer {
    int status;
    char head[4096];
    char *body;
    size_t size;
    json_t *json;
};

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct timeval patience = {.tv_sec = 10};
    strcpy(address.sun_path, service.socket);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fd;
}

static void put_request(int fd, const char *method, const char *path, const char *headers, const char *body)
{
    char *text;
    int size = asprintf(&text, "%s %s HTTP/1.1\r\nHost: w\r\n%sContent-Length: %zu\r\n\r\n%s", method, path, headers,
                        strlen(body), body);
    assert_int_equal(send(fd, text, (size_t)size, MSG_NOSIGNAL), size);
    free(text);
}

/* As far as `end`, one byte at a time: what follows belongs to somebody else. */
static size_t read_until(int fd, char *out, size_t size, const char *end)
{
    size_t at = 0;
    while (at + 1 < size && recv(fd, out + at, 1, 0) == 1) {
        out[++at] = '\0';
        if (at >= strlen(end) && strcmp(out + at - strlen(end), end) == 0)
            return at;
    }
    out[at] = '\0';
    return 0;
}

static void read_exactly(int fd, void *out, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t got = recv(fd, (char *)out + at, size - at, 0);
        assert_true(got > 0);
        at += (size_t)got;
    }
}

static void read_head(int fd, struct answer *answer)
{
    memset(answer, 0, sizeof *answer);
    assert_true(read_until(fd, answer->head, sizeof answer->head, "\r\n\r\n") > 0);
    assert_int_equal(sscanf(answer->head, "HTTP/1.1 %d", &answer->status), 1);
}

/* The next piece of a chunked body; 0 at its end. */
static size_t read_chunk(int fd, char **chunk)
{
    char line[32];
    assert_true(read_until(fd, line, sizeof line, "\r\n") > 0);
    size_t size = strtoul(line, NULL, 16);
    *chunk = malloc(size + 3);
    read_exactly(fd, *chunk, size + 2);
    (*chunk)[size] = '\0';
    return size;
}

static void read_answer(int fd, struct answer *answer)
{
    read_head(fd, answer);
    const char *length = strcasestr(answer->head, "content-length:");
    if (length != NULL) {
        answer->size = strtoul(length + 15, NULL, 10);
        answer->body = calloc(1, answer->size + 1);
        read_exactly(fd, answer->body, answer->size);
    } else {
        char *chunk;
        for (size_t size; (size = read_chunk(fd, &chunk)) > 0;) {
            answer->body = realloc(answer->body, answer->size + size + 1);
            memcpy(answer->body + answer->size, chunk, size + 1);
            answer->size += size;
            free(chunk);
        }
        free(chunk);
    }
    answer->json = json_loadb(answer->body, answer->size, 0, NULL);
}

static void answer_free(struct answer *answer)
{
    json_decref(answer->json);
    free(answer->body);
}

static struct answer ask(const char *method, const char *path, const char *headers, const char *body)
{
    struct answer answer;
    int fd = dial();
    put_request(fd, method, path, headers, body);
    read_answer(fd, &answer);
    close(fd);
    return answer;
}

static const char *text_at(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

static const char *error_at(const struct answer *answer, const char *key)
{
    const char *text = text_at(json_object_get(answer->json, "error"), key);
    return text == NULL ? "" : text;
}

static void refused(const char *body, int status, const char *words)
{
    struct answer answer = ask("POST", "/v1/tasks", "", body);
    if (answer.status != status || strstr(error_at(&answer, "message"), words) == NULL)
        fail_msg("%s\n gave %d %s", body, answer.status, answer.body);
    answer_free(&answer);
}

static void wait_for(atomic_uint *counter, unsigned value)
{
    for (int i = 0; i < 2000 && atomic_load(counter) != value; i++)
        usleep(1000);
    assert_int_equal(atomic_load(counter), value);
}

/* --- plain ----------------------------------------------------------------------------------------------------------
 */

static void task_is_run_and_answered(void **state)
{
    (void)state;
    struct answer answer =
        ask("POST", "/v1/tasks", "", "{" CODER "\"command\":[\"echo\",\"a\\\"b\",\"c\"],\"id\":\"x1\"}");
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.head, "X-Task-Id: x1\r\n"));
    assert_string_equal(text_at(answer.json, "output"), "a\"b c");
    assert_true(json_is_true(json_object_get(answer.json, "success")));
    const json_t *metadata = json_object_get(answer.json, "metadata");
    assert_string_equal(text_at(metadata, "taskId"), "x1");
    assert_string_equal(text_at(metadata, "containerName"), "wp-fake");
    const json_t *resources = json_object_get(answer.json, "resourcesUsed");
    assert_true(json_is_null(json_object_get(resources, "diskIO")));
    assert_int_equal(json_integer_value(json_object_get(resources, "networkIO")), 0);
    answer_free(&answer);
    answer = ask("GET", "/v1/tasks/x1", "", "");
    assert_int_equal(answer.status, 200);
    assert_string_equal(text_at(answer.json, "state"), "ended");
    assert_null(json_object_get(json_object_get(answer.json, "result"), "output"));
    answer_free(&answer);
}

static void one_connection_carries_many_requests(void **state)
{
    (void)state;
    int fd = dial();
    for (int i = 0; i < 50; i++) {
        struct answer answer;
        put_request(fd, "POST", "/v1/tasks", "", "{" CODER "\"command\":[\"echo\",\"again\"]}");
        read_answer(fd, &answer);
        assert_int_equal(answer.status, 200);
        assert_string_equal(text_at(answer.json, "output"), "again");
        answer_free(&answer);
    }
    close(fd);
}

static void task_definition_fills_the_template(void **state)
{
    (void)state;
    struct answer answer =
        ask("POST", "/v1/tasks", "",
            "{" CODER "\"task\":{\"description\":\"do it\",\"input\":{\"n\":7}},\"agent\":{\"name\":\"Ada\"}}");
    assert_string_equal(text_at(answer.json, "output"), "do it 7 Ada");
    answer_free(&answer);
    refused("{" CODER "\"task\":{\"description\":\"d\",\"input\":{}},\"agent\":{\"name\":\"A\"}}", 422, "\"input.n\"");
    refused("{\"agentType\":\"tester\",\"task\":{\"description\":\"d\"}}", 422, "no command");
}

static void wrong_requests_say_where(void **state)
{
    (void)state;
    refused("", 400, "not JSON");
    refused("{", 400, "not JSON");
    refused("[1]", 400, "$ must be an object");
    refused("{\"command\":[\"true\"]}", 400, "$.agentType is missing");
    refused("{" CODER "\"command\":[\"a\",5]}", 400, "$.command[1] must be a string");
    refused("{" CODER "\"command\":[]}", 400, "$.command must be");
    refused("{" CODER "\"command\":[\"\"]}", 400, "$.command[0]");
    refused("{" CODER "\"command\":[\"a\\u0000b\"]}", 400, "$.command[0] must not contain a NUL");
    refused("{" CODER "\"command\":[\"a\"],\"colour\":1}", 400, "$.colour is not known");
    refused("{" CODER "\"command\":[\"a\"],\"secrets\":[]}", 400, "$.secrets must be an object");
    refused("{" CODER "\"command\":[\"a\"],\"secrets\":{\"A\":1}}", 400, "$.secrets.A must be a string");
    refused("{" CODER "\"command\":[\"a\"],\"secrets\":{\"A\":{}}}", 400, "$.secrets.A must be a string");
    refused("{" CODER "\"command\":[\"a\"],\"secrets\":{\"A B\":\"\"}}", 400, "\"A B\" must have a name");
    refused("{" CODER "\"command\":[\"a\"],\"secrets\":{\"A\":{\"value\":\"\",\"as\":\"file \"}}}", 400,
            "$.secrets.A.as must be file or env");
    refused("{" CODER "\"command\":[\"a\"],\"async\":true}", 400, "$.async is not supported");
    refused("{" CODER "\"command\":[\"a\"],\"env\":{\"A\":1}}", 400, "$.env.A must be a string");
    refused("{" CODER "\"command\":[\"a\"],\"env\":{\"A=B\":\"\"}}", 400, "no name of a variable");
    refused("{" CODER "\"command\":[\"a\"],\"timeoutMs\":-1}", 400, "$.timeoutMs");
    refused("{" CODER "\"command\":[\"a\"],\"timeoutMs\":\"soon\"}", 400, "$.timeoutMs");
    refused("{" CODER "\"command\":[\"a\"],\"priority\":\"urgent\"}", 400, "$.priority");
    refused("{" CODER "\"command\":[\"a\"],\"stdin\":\"***\",\"stdinEncoding\":\"base64\"}", 400, "$.stdin");
    refused("{" CODER "\"command\":[\"a\"],\"task\":{}}", 400, "exclude each other");
    refused("{" CODER "\"agentType\":\"tester\",\"command\":[\"a\"]}", 400, "not JSON"); /* a key twice */
    refused("{" CODER "\"command\":[\"\xff\"]}", 400, "not JSON");
}

static void outcomes_have_their_status(void **state)
{
    (void)state;
    refused("{" CODER "\"command\":[\"starved\"]}", 503, "no such image");
    refused("{" CODER "\"command\":[\"full\"]}", 429, "queue of coder is full");
    struct answer answer = ask("POST", "/v1/tasks", "", "{" CODER "\"command\":[\"full\"]}");
    assert_non_null(strstr(answer.head, "Retry-After:"));
    answer_free(&answer);
    answer = ask("POST", "/v1/tasks", "", "{" CODER "\"command\":[\"missing\"]}");
    assert_int_equal(answer.status, 200);
    assert_int_equal(json_integer_value(json_object_get(answer.json, "exitCode")), 127);
    assert_true(json_is_false(json_object_get(answer.json, "success")));
    assert_non_null(strstr(text_at(answer.json, "error"), "not found"));
    answer_free(&answer);
    answer = ask("POST", "/v1/tasks", "", "{" CODER "\"command\":[\"bytes\"]}");
    assert_string_equal(text_at(answer.json, "output"), "//4Aeg==");
    assert_string_equal(text_at(answer.json, "outputEncoding"), "base64");
    answer_free(&answer);
    answer = ask("POST", "/v1/tasks", "",
                 "{" CODER "\"command\":[\"cat\"],\"stdin\":\"aGk=\",\"stdinEncoding\":\"base64\"}");
    assert_string_equal(text_at(answer.json, "output"), "hi");
    answer_free(&answer);
}

static void vanished_client_ends_its_task(void **state)
{
    (void)state;
    int fd = dial();
    put_request(fd, "POST", "/v1/tasks", "", "{" CODER "\"command\":[\"sleep\"]}");
    wait_for(&service.counters.running, 1);
    assert_int_equal(atomic_load(&service.counters.abandoned), 0);
    close(fd);
    wait_for(&service.counters.abandoned, 1);
    wait_for(&service.counters.running, 0);
}

static void task_is_cancelled_by_another_client(void **state)
{
    (void)state;
    int fd = dial();
    put_request(fd, "POST", "/v1/tasks", "", "{" CODER "\"command\":[\"sleep\"],\"id\":\"s1\"}");
    wait_for(&service.counters.running, 1);
    struct answer answer = ask("GET", "/v1/tasks/s1", "", "");
    assert_string_equal(text_at(answer.json, "state"), "running");
    answer_free(&answer);
    answer = ask("DELETE", "/v1/tasks/s1", "", "");
    assert_int_equal(answer.status, 202);
    answer_free(&answer);
    read_answer(fd, &answer);
    assert_int_equal(answer.status, 200);
    assert_string_equal(text_at(answer.json, "outcome"), "cancelled");
    answer_free(&answer);
    close(fd);
    answer = ask("DELETE", "/v1/tasks/s1", "", "");
    assert_int_equal(answer.status, 409);
    answer_free(&answer);
    answer = ask("DELETE", "/v1/tasks/nobody", "", "");
    assert_int_equal(answer.status, 404);
    answer_free(&answer);
}

/* --- HTTP itself ---------------------------------------------------------------------------------------------------
 */

static void paths_and_methods(void **state)
{
    static const struct {
        const char *method, *path, *body;
        int status;
    } cases[] = {
        {"GET", "/healthz", "", 200},
        {"GET", "/readyz", "", 200},
        {"GET", "/v1/pools", "", 200},
        {"GET", "/v1/pools/coder", "", 200},
        {"GET", "/v1/pools/nobody", "", 404},
        {"PUT", "/v1/pools/coder", "{\"size\":3}", 200},
        {"PUT", "/v1/pools/coder", "{\"size\":null}", 200},
        {"PUT", "/v1/pools/coder", "{\"size\":11}", 400},
        {"PUT", "/v1/pools/coder", "{\"size\":1.5}", 400},
        {"PUT", "/v1/pools/coder", "{}", 400},
        {"POST", "/v1/pools/coder/warm", "{\"size\":3}", 200},
        {"POST", "/v1/pools/coder/warm", "{\"size\":null}", 400},
        {"GET", "/v1/containers", "", 200},
        {"POST", "/v1/containers/c0ffee/refresh", "", 202},
        {"POST", "/v1/containers/beef/refresh", "", 404},
        {"GET", "/v1/metrics", "", 200},
        {"GET", "/v1/status", "", 200},
        {"POST", "/v1/shutdown", "{\"force\":1}", 400},
        {"DELETE", "/v1/pools", "", 405},
        {"GET", "/v1/tasks", "", 405},
        {"PATCH", "/v1/tasks/x", "", 405},
        {"GET", "/v1", "", 404},
        {"GET", "/v1/pools/", "", 404},
        {"GET", "/v1/pools/a/b", "", 404},
        {"GET", "/", "", 404},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct answer answer = ask(cases[i].method, cases[i].path, "", cases[i].body);
        if (answer.status != cases[i].status || answer.json == NULL ||
            (answer.status >= 400) != (json_object_get(answer.json, "error") != NULL))
            fail_msg("%s %s gave %d %s", cases[i].method, cases[i].path, answer.status, answer.body);
        answer_free(&answer);
    }
    struct answer answer = ask("PATCH", "/v1/pools/coder", "", "");
    assert_non_null(strstr(answer.head, "Allow: GET, PUT\r\n"));
    answer_free(&answer);
    assert_int_equal(atomic_load(&service.shutdowns), 0);
    answer = ask("POST", "/v1/shutdown", "", "{\"force\":true}");
    assert_int_equal(answer.status, 202);
    answer_free(&answer);
    assert_int_equal(atomic_load(&service.shutdowns), 1);
    assert_true(atomic_load(&service.forced));
}

static void malformed_http_is_refused(void **state)
{
    static const char *const texts[] = {"GARBAGE\r\n\r\n", "GET\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n",
                                        "POST /v1/tasks HTTP/1.1\r\nHost: w\r\nContent-Length: ten\r\n\r\n"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char text[512] = "";
        int fd = dial();
        send(fd, texts[i], strlen(texts[i]), MSG_NOSIGNAL);
        shutdown(fd, SHUT_WR);
        read_until(fd, text, sizeof text, "\r\n");
        if (text[0] != '\0' && strncmp(text, "HTTP/1.1 400", 12) != 0 && strncmp(text, "HTTP/1.0 400", 12) != 0)
            fail_msg("case %zu gave %s", i, text);
        close(fd);
    }
    struct answer answer = ask("GET", "/healthz", "", ""); /* and it is still there */
    assert_int_equal(answer.status, 200);
    answer_free(&answer);
}

static void large_bodies(void **state)
{
    (void)state;
    struct answer answer;
    int fd = dial();
    const char *head = "POST /v1/tasks HTTP/1.1\r\nHost: w\r\nContent-Length: 17000000000\r\n\r\n";
    send(fd, head, strlen(head), MSG_NOSIGNAL);
    read_answer(fd, &answer); /* before the first byte of it */
    assert_int_equal(answer.status, 413);
    answer_free(&answer);
    close(fd);

    size_t size = 10U << 20;
    char *body = malloc(size + 128);
    int at = sprintf(body, "{" CODER "\"command\":[\"cat\"],\"stdin\":\"");
    memset(body + at, 'y', size);
    strcpy(body + at + size, "\"}");
    answer = ask("POST", "/v1/tasks", "", body);
    assert_int_equal(answer.status, 200);
    assert_int_equal(json_string_length(json_object_get(answer.json, "output")), size);
    answer_free(&answer);

    memset(body, '[', 1U << 20); /* small values, many of them */
    for (size_t i = 1; i < 1U << 20; i += 2)
        body[i] = ',';
    body[1U << 20] = '\0';
    refused(body, 400, "more than");
    free(body);
}

/* --- NDJSON ---------------------------------------------------------------------------------------------------------
 */

#define NDJSON "Accept: application/x-ndjson\r\n"

static json_t *line_at(const char *body, int number)
{
    for (int i = 0; i < number && body != NULL; i++)
        body = strchr(body, '\n') == NULL ? NULL : strchr(body, '\n') + 1;
    return body == NULL || *body == '\0' ? NULL : json_loads(body, JSON_DISABLE_EOF_CHECK, NULL);
}

static void line_is(const char *body, int number, const char *type, const char *key, const char *value)
{
    json_t *line = line_at(body, number);
    if (line == NULL || strcmp(text_at(line, "type"), type) != 0 ||
        (key != NULL && (text_at(line, key) == NULL || strcmp(text_at(line, key), value) != 0)))
        fail_msg("line %d is not %s %s in\n%s", number, type, value, body);
    json_decref(line);
}

static void stream_tells_events(void **state)
{
    (void)state;
    struct answer answer = ask("POST", "/v1/tasks", NDJSON, "{" CODER "\"command\":[\"echo\",\"hi\"],\"id\":\"n1\"}");
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.head, "X-Task-Id: n1\r\n"));
    line_is(answer.body, 0, "started", "taskId", "n1");
    line_is(answer.body, 1, "stdout", "data", "hi");
    line_is(answer.body, 2, "stderr", "data", "err");
    line_is(answer.body, 3, "result", NULL, NULL);
    assert_null(line_at(answer.body, 4));
    answer_free(&answer);
    answer = ask("POST", "/v1/tasks", NDJSON, "{" CODER "\"command\":[\"split\"]}");
    line_is(answer.body, 1, "stdout", "data", "gr");
    line_is(answer.body, 2, "stdout", "data",
            "\xc3\xbc\xc3\x9f"
            "e");
    answer_free(&answer);
    answer = ask("POST", "/v1/tasks", NDJSON, "{" CODER "\"command\":[\"bytes\"]}");
    line_is(answer.body, 1, "stdout", "data", "//4Aeg==");
    line_is(answer.body, 1, "stdout", "encoding", "base64");
    answer_free(&answer);
}

static void stream_starts_at_once(void **state)
{
    (void)state;
    struct answer answer;
    char *chunk;
    int fd = dial();
    put_request(fd, "POST", "/v1/tasks", NDJSON, "{" CODER "\"command\":[\"sleep\"]}");
    read_head(fd, &answer);
    assert_true(read_chunk(fd, &chunk) > 0);
    line_is(chunk, 0, "started", NULL, NULL);
    free(chunk);
    assert_int_equal(atomic_load(&service.counters.running), 1);
    close(fd);
    wait_for(&service.counters.abandoned, 1);
}

static void slow_reader_slows_its_task(void **state)
{
    (void)state;
    struct answer answer;
    int fd = dial();
    put_request(fd, "POST", "/v1/tasks", NDJSON, "{" CODER "\"command\":[\"flood\",\"4000000\"]}");
    read_head(fd, &answer);
    usleep(300000);
    size_t stalled = atomic_load(&service.counters.consumed);
    assert_true(stalled < 1000000); /* the socket's buffers hold some */
    usleep(100000);
    assert_int_equal(atomic_load(&service.counters.consumed), stalled);
    size_t total = 0, lines = 0;
    char *chunk;
    for (size_t size; (size = read_chunk(fd, &chunk)) > 0;) {
        for (size_t i = 0; i < size; i++) {
            total += chunk[i] == 'Q';
            lines += chunk[i] == '\n';
        }
        free(chunk);
    }
    free(chunk);
    assert_int_equal(total, 4000000);
    assert_true(atomic_load(&service.counters.ahead_most) <= FAKE_WINDOW + 8192);
    close(fd);
    wait_for(&service.counters.running, 0);
}

/* --- frames ---------------------------------------------------------------------------------------------------------
 */

#define UPGRADE "Connection: Upgrade\r\nUpgrade: warmpool\r\n"

static int upgrade_to(const char *body)
{
    struct answer answer;
    int fd = dial();
    put_request(fd, "POST", "/v1/tasks", UPGRADE, body);
    read_head(fd, &answer);
    assert_int_equal(answer.status, 101);
    assert_non_null(strcasestr(answer.head, "Upgrade: warmpool\r\n"));
    return fd;
}

static void put_frame(int fd, uint8_t type, uint8_t flags, const void *data, size_t size)
{
    uint8_t header[FRAME_HEADER_BYTES];
    frame_encode_header(header, type, flags, 0, (uint32_t)size);
    send(fd, header, sizeof header, MSG_NOSIGNAL);
    if (size > 0)
        send(fd, data, size, MSG_NOSIGNAL);
}

static void get_frame(int fd, struct frame *frame, uint8_t **memory)
{
    uint8_t header[FRAME_HEADER_BYTES];
    read_exactly(fd, header, sizeof header);
    ptrdiff_t size = frame_size(header, sizeof header);
    assert_true(size > 0);
    *memory = malloc((size_t)size);
    memcpy(*memory, header, sizeof header);
    read_exactly(fd, *memory + sizeof header, (size_t)size - sizeof header);
    assert_int_equal(frame_decode(*memory, (size_t)size, frame), size);
}

static void expect_result(const struct frame *frame, unsigned code)
{
    struct message_result result;
    assert_int_equal(frame->type, FRAME_RESULT);
    assert_int_equal(message_result_decode(frame->payload, frame->length, &result), 0);
    assert_int_equal(result.exit_code, code);
    json_t *json = json_loads(result.json, 0, NULL);
    assert_non_null(json_object_get(json, "exitCode"));
    json_decref(json);
}

static void frames_carry_output_and_result(void **state)
{
    (void)state;
    struct frame frame;
    uint8_t *memory;
    int fd = upgrade_to("{" CODER "\"command\":[\"echo\",\"hi\"]}");
    get_frame(fd, &frame, &memory);
    assert_int_equal(frame.type, FRAME_STDOUT);
    assert_memory_equal(frame.payload, "hi", 2);
    free(memory);
    get_frame(fd, &frame, &memory);
    assert_int_equal(frame.type, FRAME_STDERR);
    free(memory);
    get_frame(fd, &frame, &memory);
    expect_result(&frame, 0);
    free(memory);
    char byte;
    assert_int_equal(recv(fd, &byte, 1, 0), 0); /* closed after it */
    close(fd);
    assert_int_equal(atomic_load(&service.counters.abandoned), 0);
}

static void frames_carry_stdin_and_signals(void **state)
{
    (void)state;
    struct frame frame;
    uint8_t *memory;
    uint32_t term = 15;
    int fd = upgrade_to("{" CODER "\"command\":[\"cat\"],\"stdinStream\":true}");
    put_frame(fd, FRAME_STDIN, 0, "abc", 3);
    get_frame(fd, &frame, &memory);
    assert_int_equal(frame.type, FRAME_STDOUT);
    assert_memory_equal(frame.payload, "abc", 3);
    free(memory);
    get_frame(fd, &frame, &memory);
    assert_int_equal(frame.type, FRAME_CREDIT);
    struct message_credit credit;
    assert_int_equal(message_credit_decode(frame.payload, frame.length, &credit), 0);
    assert_int_equal(credit.stream, WIRE_STDIN);
    assert_int_equal(credit.bytes, 3);
    free(memory);
    put_frame(fd, FRAME_SIGNAL, 0, &term, sizeof term);
    wait_for(&service.counters.signalled, 1);
    assert_int_equal(atomic_load(&service.counters.last_signal), 15);
    put_frame(fd, FRAME_STDIN, FRAME_FLAG_EOF, NULL, 0);
    get_frame(fd, &frame, &memory);
    expect_result(&frame, 0);
    free(memory);
    close(fd);
}

/* Credit for each byte of stdin is not kept without limit for a client that never reads. */
static void a_client_that_only_writes_is_ended(void **state)
{
    (void)state;
    enum { FRAMES = 4000, ROUNDS = 1000 };
    static uint8_t frames[FRAMES * (FRAME_HEADER_BYTES + 1)];
    for (size_t i = 0; i < FRAMES; i++)
        frame_encode_header(frames + i * (FRAME_HEADER_BYTES + 1), FRAME_STDIN, 0, 0, 1);
    int fd = upgrade_to("{" CODER "\"command\":[\"cat\"],\"stdinStream\":true}");
    int rounds = 0;
    while (rounds < ROUNDS && send(fd, frames, sizeof frames, MSG_NOSIGNAL) > 0)
        rounds++;
    assert_true(rounds < ROUNDS);
    wait_for(&service.counters.abandoned, 1);
    close(fd);
}

/* Frames that follow the request in one packet reach the daemon before the socket is its own. */
static void early_frames_are_not_lost(void **state)
{
    (void)state;
    struct frame frame;
    struct answer answer;
    uint8_t *memory, header[FRAME_HEADER_BYTES];
    const char *body = "{" CODER "\"command\":[\"cat\"],\"stdinStream\":true}";
    char text[512];
    int size =
        snprintf(text, sizeof text, "POST /v1/tasks HTTP/1.1\r\nHost: w\r\n" UPGRADE "Content-Length: %zu\r\n\r\n%s",
                 strlen(body), body);
    frame_encode_header(header, FRAME_STDIN, FRAME_FLAG_EOF, 0, 5);
    memcpy(text + size, header, sizeof header);
    memcpy(text + size + sizeof header, "early", 5);
    int fd = dial();
    send(fd, text, (size_t)size + sizeof header + 5, MSG_NOSIGNAL);
    read_head(fd, &answer);
    assert_int_equal(answer.status, 101);
    get_frame(fd, &frame, &memory);
    assert_int_equal(frame.type, FRAME_STDOUT);
    assert_memory_equal(frame.payload, "early", 5);
    free(memory);
    close(fd);
}

static void cancel_frame_ends_the_task(void **state)
{
    (void)state;
    struct frame frame;
    uint8_t *memory;
    uint32_t grace = 0;
    int fd = upgrade_to("{" CODER "\"command\":[\"sleep\"]}");
    put_frame(fd, FRAME_CANCEL, 0, &grace, sizeof grace);
    get_frame(fd, &frame, &memory);
    expect_result(&frame, 143);
    free(memory);
    close(fd);
}

static void output_waits_for_credit(void **state)
{
    (void)state;
    size_t total = 0;
    struct frame frame;
    uint8_t *memory;
    int fd = upgrade_to("{" CODER "\"command\":[\"flood\",\"1000000\"]}");
    usleep(200000);
    assert_int_equal(atomic_load(&service.counters.consumed), 0); /* nothing was given back yet */
    for (;;) {
        get_frame(fd, &frame, &memory);
        if (frame.type == FRAME_RESULT)
            break;
        total += frame.length;
        struct message_credit credit = {.stream = WIRE_STDOUT, .bytes = frame.length};
        uint8_t payload[MESSAGE_CREDIT_BYTES];
        message_credit_encode(&credit, payload);
        put_frame(fd, FRAME_CREDIT, 0, payload, sizeof payload);
        free(memory);
    }
    expect_result(&frame, 0);
    free(memory);
    assert_int_equal(total, 1000000);
    assert_true(atomic_load(&service.counters.ahead_most) <= FAKE_WINDOW + 8192);
    close(fd);
}

static void frame_sender_is_cut_off(const void *data, size_t size)
{
    unsigned before = atomic_load(&service.counters.abandoned);
    char byte;
    int fd = upgrade_to("{" CODER "\"command\":[\"sleep\"]}");
    send(fd, data, size, MSG_NOSIGNAL);
    assert_true(recv(fd, &byte, 1, 0) <= 0);
    wait_for(&service.counters.abandoned, before + 1);
    close(fd);
}

static void malformed_frames_end_the_task(void **state)
{
    uint8_t frame[64] = {0};
    (void)state;
    frame_sender_is_cut_off("this is no frame", 16);
    frame_encode_header(frame, FRAME_RESULT, 0, 0, 90U << 20); /* not from here, and not waited for */
    frame_sender_is_cut_off(frame, FRAME_HEADER_BYTES);
    frame_encode_header(frame, FRAME_RUN, 0, 0, 0);
    frame_sender_is_cut_off(frame, FRAME_HEADER_BYTES);
    struct message_credit credit = {.stream = WIRE_STDOUT, .bytes = 1}; /* more than it was sent */
    frame_encode_header(frame, FRAME_CREDIT, 0, 0, MESSAGE_CREDIT_BYTES);
    message_credit_encode(&credit, frame + FRAME_HEADER_BYTES);
    frame_sender_is_cut_off(frame, FRAME_HEADER_BYTES + MESSAGE_CREDIT_BYTES);
    frame_encode_header(frame, FRAME_SIGNAL, 0, 0, 4);
    memcpy(frame + FRAME_HEADER_BYTES, "\xff\0\0\0", 4);
    frame_sender_is_cut_off(frame, FRAME_HEADER_BYTES + 4);
    frame_encode_header(frame, FRAME_SIGNAL, 0, 0, 3);
    frame_sender_is_cut_off(frame, FRAME_HEADER_BYTES + 3);
    unsigned before = atomic_load(&service.counters.abandoned);
    int fd = upgrade_to("{" CODER "\"command\":[\"sleep\"]}");
    close(fd); /* and so does silence */
    wait_for(&service.counters.abandoned, before + 1);
}

/* --- the socket -----------------------------------------------------------------------------------------------------
 */

static struct api_server *open_second(const char *socket, uv_loop_t *loop, struct error *err)
{
    struct api_options options = {.loop = loop, .config = service.config, .log = &service.log, .socket = socket};
    return api_server_open(&options, err);
}

static void second_daemon_is_refused(void **state)
{
    struct error error = ERROR_INIT;
    uv_loop_t loop;
    struct stat status;
    (void)state;
    assert_int_equal(stat(service.socket, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0660);
    uv_loop_init(&loop);
    assert_null(open_second(service.socket, &loop, &error));
    assert_int_equal(error.code, ERROR_CONFLICT);
    assert_non_null(strstr(error.message, service.socket));
    struct answer answer = ask("GET", "/healthz", "", "");
    assert_int_equal(answer.status, 200);
    answer_free(&answer);

    char path[128];
    snprintf(path, sizeof path, "%s/plain", service.directory);
    FILE *file = fopen(path, "w");
    fclose(file);
    error = (struct error)ERROR_INIT;
    assert_null(open_second(path, &loop, &error)); /* what is no socket is not removed */
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
    strcat(path, ".lock");
    unlink(path);

    /* a dead daemon's socket is taken over */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(path, sizeof path, "%s/stale", service.directory);
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    error = (struct error)ERROR_INIT;
    struct api_server *server = open_second(path, &loop, &error);
    assert_non_null(server);
    api_server_close(server, NULL, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* A server that ends takes suspended connections, streams and upgraded ones with it. */
static void end_with_clients(void **state)
{
    (void)state;
    int plain = dial(), stream = dial(), idle = dial();
    put_request(plain, "POST", "/v1/tasks", "", "{" CODER "\"command\":[\"sleep\"]}");
    put_request(stream, "POST", "/v1/tasks", NDJSON, "{" CODER "\"command\":[\"sleep\"]}");
    int frames = upgrade_to("{" CODER "\"command\":[\"sleep\"]}");
    wait_for(&service.counters.running, 3);
    tear_down(NULL);
    char text[4096];
    assert_int_equal(recv(frames, text, 1, 0), 0);
    close(plain);
    close(stream);
    close(frames);
    close(idle);
    assert_int_equal(atomic_load(&service.counters.abandoned), 3);
}

static void speed(void **state)
{
    (void)state;
    enum { ROUNDS = 2000 };
    int fd = dial();
    char text[4096];
    uint64_t begun = clock_us();
    for (int i = 0; i < ROUNDS; i++) {
        put_request(fd, "POST", "/v1/tasks", "", "{" CODER "\"command\":[\"echo\",\"hi\"]}");
        assert_true(recv(fd, text, sizeof text, 0) > 0);
    }
    print_message("%.1f us a request\n", (double)(clock_us() - begun) / ROUNDS);
    close(fd);
}

int main(void)
{
#define SERVED(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SERVED(task_is_run_and_answered),
        SERVED(one_connection_carries_many_requests),
        SERVED(task_definition_fills_the_template),
        SERVED(wrong_requests_say_where),
        SERVED(outcomes_have_their_status),
        SERVED(vanished_client_ends_its_task),
        SERVED(task_is_cancelled_by_another_client),
        SERVED(paths_and_methods),
        SERVED(malformed_http_is_refused),
        SERVED(large_bodies),
        SERVED(stream_tells_events),
        SERVED(stream_starts_at_once),
        SERVED(slow_reader_slows_its_task),
        SERVED(frames_carry_output_and_result),
        SERVED(frames_carry_stdin_and_signals),
        SERVED(a_client_that_only_writes_is_ended),
        SERVED(early_frames_are_not_lost),
        SERVED(cancel_frame_ends_the_task),
        SERVED(output_waits_for_credit),
        SERVED(malformed_frames_end_the_task),
        SERVED(second_daemon_is_refused),
        cmocka_unit_test_setup(end_with_clients, set_up),
        SERVED(speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
