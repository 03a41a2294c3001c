/* Engines that are not there, hang, lie or break. Needs none: the engine is the test's own. */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "trouble.h"

static int world_up(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->f = fixture_new();
    w->opened = result_of(w->f);
    *state = w;
    return 0;
}

static int world_down(void **state)
{
    struct world *w = *state;
    fixture_close(w->f);
    if (w->fake.fixture != NULL && !w->fake.closed)
        fake_stop(&w->fake);
    fixture_free(w->f);
    free(w);
    return 0;
}

struct fixture *world_open(struct world *w, const char *reply, uint32_t timeout_ms, unsigned max_parallel)
{
    w->fake.reply = reply;
    fake_start(&w->fake, w->f);
    fixture_open(w->f, w->fake.host, timeout_ms, max_parallel, &w->opened);
    expect_ok(&w->opened);
    return w->f;
}

static void test_no_engine_then_one(void **state)
{
    struct world *w = *state;
    struct fixture *f = w->f;
    char host[100];
    snprintf(host, sizeof(host), "unix://%s/fake.sock", f->directory);
    fixture_open(f, host, 5000, 0, &w->opened);
    expect_error(&w->opened, ERROR_UNAVAILABLE, "is the engine running?");
    struct result first = result_of(f), second = result_of(f);
    CALL(f, engine_container_start(f->engine, ID, on_done, &first));
    expect_error(&first, ERROR_UNAVAILABLE, "start container " ID);
    /* The next request finds the engine that came up, and nobody had to ask for a version. */
    w->fake.reply = "HTTP/1.1 204 No Content\r\n\r\n";
    fake_start(&w->fake, f);
    CALL(f, engine_container_start(f->engine, ID, on_done, &second));
    expect_ok(&second);
    assert_string_equal(engine_info(f->engine)->api_version, "1.41");
    assert_string_equal(w->fake.paths, "/v1.41/containers/" ID "/start\n");
}

/* Another engine may stand where the old one was. */
static void test_engine_replaced(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, "HTTP/1.1 204 No Content\r\n\r\n", 5000, 0);
    struct result lost = result_of(f), found = result_of(f);
    fake_stop(&w->fake);
    CALL(f, engine_container_start(f->engine, ID, on_done, &lost));
    expect_error(&lost, ERROR_UNAVAILABLE, "is the engine running?");
    w->fake.version = "{\"ApiVersion\":\"1.44\",\"MinAPIVersion\":\"1.44\"}";
    fake_start(&w->fake, f);
    CALL(f, engine_container_start(f->engine, ID, on_done, &found));
    expect_ok(&found);
    assert_string_equal(w->fake.paths, "/v1.44/containers/" ID "/start\n");
}

static void test_sockets_stay_here(void **state)
{
    struct world *w = *state;
    struct result result = result_of(w->f);
    struct fixture *f = world_open(w, "HTTP/1.1 204 No Content\r\n\r\n", 5000, 0);
    CALL(f, engine_container_start(f->engine, ID, on_done, &result));
    expect_ok(&result);
    unsigned seen = 0;
    for (int fd = 3; fd < 256; fd++) {
        struct sockaddr_un peer = {0};
        socklen_t size = sizeof(peer);
        if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0 || strstr(peer.sun_path, "/fake.sock") == NULL)
            continue;
        seen++;
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    }
    assert_int_equal(seen, 1); /* and one connection is enough for requests one after another */
}

static void test_versions(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *version, *words, *agreed;
        enum error_code code;
    } rows[] = {
        {"{\"ApiVersion\":\"1.40\",\"Version\":\"19.03\"}", "upgrade it to Docker 20.10", "", ERROR_ENGINE},
        {"{\"ApiVersion\":\"1.90\",\"MinAPIVersion\":\"1.80\"}", "upgrade warmpool", "", ERROR_ENGINE},
        {"{\"ApiVersion\":\"1.44\",\"MinAPIVersion\":\"1.24\"}", "", "1.44", ERROR_NONE},
        {"{\"ApiVersion\":\"1.52\",\"MinAPIVersion\":\"1.44\"}", "", "1.47", ERROR_NONE},
        {"{\"ApiVersion\":\"2.1\"}", "not understood", "", ERROR_PROTOCOL},
        {"{\"ApiVersion\":\"1.4x\"}", "not understood", "", ERROR_PROTOCOL},
        {"{\"ApiVersion\":\"1.99999999999999999999\"}", "not understood", "", ERROR_PROTOCOL},
        {"{\"ApiVersion\":141}", "not understood", "", ERROR_PROTOCOL},
        {"[]", "not understood", "", ERROR_PROTOCOL},
        {"{\"ApiVersion\":", "not JSON", "", ERROR_PROTOCOL},
        {"", "not understood", "", ERROR_PROTOCOL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        w->fake.version = rows[i].version;
        fake_start(&w->fake, w->f);
        struct result opened = result_of(w->f);
        fixture_open(w->f, w->fake.host, 5000, 0, &opened);
        if (rows[i].code != ERROR_NONE)
            expect_error(&opened, rows[i].code, rows[i].words);
        else
            expect_ok(&opened);
        assert_string_equal(engine_info(w->f->engine)->api_version, rows[i].agreed);
        fixture_close(w->f);
        fake_stop(&w->fake);
    }
}

/* Under way or waiting for a place: each request answers after the time allowed, once. */
static void test_stall(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, NULL, 300, 2);
    struct result results[10];
    uint64_t begun = uv_hrtime();
    for (size_t i = 0; i < 10; i++) {
        results[i] = result_of(f);
        CALL(f, engine_container_start(f->engine, ID, on_done, &results[i]));
    }
    for (size_t i = 0; i < 10; i++)
        expect_error(&results[i], ERROR_TIMEOUT, "no answer within 300 ms");
    uint64_t spent_ms = (uv_hrtime() - begun) / 1000000;
    assert_in_range(spent_ms, 290, 1500);
    assert_in_range(w->fake.most_open, 1, 2);
    wait_ms(f, 400);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(results[i].answers, 1);
}

static void test_stall_at_opening(void **state)
{
    struct world *w = *state;
    w->fake.stall_all = true;
    fake_start(&w->fake, w->f);
    fixture_open(w->f, w->fake.host, 200, 0, &w->opened);
    expect_error(&w->opened, ERROR_TIMEOUT, "no answer within 200 ms");
}

/* A busy engine makes requests wait longer than the time allowed for one of them, and none fails. */
static void test_busy_is_not_dead(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, NULL, 400, 1);
    struct result results[4];
    for (size_t i = 0; i < 4; i++) {
        char id[16];
        snprintf(id, sizeof(id), "c%zu", i);
        results[i] = result_of(f);
        CALL(f, engine_container_start(f->engine, id, on_done, &results[i]));
    }
    for (size_t i = 0; i < 4; i++) {
        wait_ms(f, 250);
        fake_answer_stalled(&w->fake, "HTTP/1.1 204 No Content\r\n\r\n");
        expect_ok(&results[i]);
    }
    assert_string_equal(w->fake.paths, "/v1.41/containers/c0/start\n/v1.41/containers/c1/start\n"
                                       "/v1.41/containers/c2/start\n/v1.41/containers/c3/start\n");
    assert_int_equal(w->fake.most_open, 1);
}

#define JSON_REPLY(json) "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" json

static void test_lies(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *reply, *words;
        enum error_code code;
    } rows[] = {
        {"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not speak HTTP", ERROR_PROTOCOL},
        {"\x01\x02\x03\x00\xff\r\n\r\n", "does not speak HTTP", ERROR_PROTOCOL},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"Id\":", "broke", ERROR_UNAVAILABLE},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{\"Id\"", "broke", ERROR_UNAVAILABLE},
        {"", "broke", ERROR_UNAVAILABLE},
        {JSON_REPLY("{\"Id\":"), "not JSON", ERROR_PROTOCOL},
        {JSON_REPLY(""), "not a container", ERROR_PROTOCOL},
        {JSON_REPLY("[1,2,3]"), "not a container", ERROR_PROTOCOL},
        {JSON_REPLY("{}"), "not a container", ERROR_PROTOCOL},
        {JSON_REPLY("{\"Id\":7,\"State\":{}}"), "not a container", ERROR_PROTOCOL},
        {JSON_REPLY("{\"Id\":\"../../etc\",\"State\":{}}"), "not a container", ERROR_PROTOCOL},
        {JSON_REPLY("{\"Id\":\"ab\",\"State\":\"running\"}"), "not a container", ERROR_PROTOCOL},
        {JSON_REPLY("{\"Id\":\"ab\",\"State\":{\"Pid\":\"1\"}}"), "not a container", ERROR_PROTOCOL},
        {JSON_REPLY("{\"Id\":\"ab\",\"State\":{\"Pid\":-1}}"), "not a container", ERROR_PROTOCOL},
        {JSON_REPLY("{\"Id\":\"ab\",\"State\":{\"Running\":1}}"), "not a container", ERROR_PROTOCOL},
        {JSON_REPLY("{\"Id\":\"ab\",\"State\":{},\"NetworkSettings\":{\"Networks\":[]}}"), "not a container",
         ERROR_PROTOCOL},
        {JSON_REPLY("{\"Id\":\"ab\",\"State\":{},\"NetworkSettings\":{\"Networks\":{\"n\":{\"NetworkID\":1}}}}"),
         "not a container", ERROR_PROTOCOL},
        {"HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\n{\"message\":\"bad\\u001b[31m\\nthing\\u0007\"}",
         "bad [31m thing", ERROR_ENGINE},
        {"HTTP/1.1 500 Oh\r\n\r\nx\x80y\xc3(\xed\xa0\x80z \xc3\xa9 \xc2\x9bm", "x?y?(???z \xc3\xa9 m", ERROR_ENGINE},
        {"HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\n{\"message\":7}", "{\"message\":7}", ERROR_ENGINE},
        {"HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\n", "HTTP status 500", ERROR_ENGINE},
        {"HTTP/1.1 301 Moved\r\nLocation: /elsewhere\r\nConnection: close\r\n\r\n", "HTTP status 301", ERROR_ENGINE},
        {"HTTP/1.1 404 No\r\nConnection: close\r\n\r\n{\"message\":\"No such container\"}", "No such container",
         ERROR_NOT_FOUND},
        {"HTTP/1.1 409 No\r\nConnection: close\r\n\r\n{\"message\":\"name is in use\"}", "name is in use",
         ERROR_CONFLICT},
    };
    struct fixture *f = world_open(w, NULL, 5000, 0);
    w->fake.hang_up = true;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct result result = result_of(f);
        w->fake.reply = rows[i].reply;
        CALL(f, engine_container_inspect(f->engine, ID, on_inspect, &result));
        expect_error(&result, rows[i].code, rows[i].words);
        assert_non_null(strstr(result.error.message, "inspect container " ID));
    }
}

static void test_lies_in_lists(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, NULL, 5000, 0);
    w->fake.hang_up = true;
    static const char *const bad[] = {
        JSON_REPLY("{\"a\":1}"),
        JSON_REPLY("[1]"),
        JSON_REPLY("[{\"Id\":\"a\"}]"),
        JSON_REPLY("[{\"Id\":\"a\",\"Names\":[]}]"),
        JSON_REPLY("[{\"Id\":\"a\",\"Names\":[7],\"State\":\"x\"}]"),
        JSON_REPLY("[{\"Id\":\"a\",\"Names\":[\"/b\"],\"State\":7}]"),
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct result result = result_of(f);
        w->fake.reply = bad[i];
        CALL(f, engine_container_list(f->engine, LABEL, f->label, on_list, &result));
        expect_error(&result, ERROR_PROTOCOL, "not a list of objects");
    }
    /* What lacks the label is not ours, whatever the engine thinks of filters. */
    struct result result = result_of(f);
    w->fake.reply = JSON_REPLY("[{\"Id\":\"a\",\"Names\":[\"/b\"],\"State\":\"running\",\"Labels\":{\"x\":\"y\"}},"
                               "{\"Id\":\"a\",\"Names\":[\"/b\"],\"State\":\"running\",\"Labels\":null}]");
    CALL(f, engine_container_list(f->engine, LABEL, NULL, on_list, &result));
    expect_ok(&result);
    assert_int_equal(result.count, 0);
}

static void test_giant_reply(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, NULL, 20000, 0);
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n";
    size_t size = sizeof(head) - 1 + 20000000;
    char *giant = malloc(size);
    assert_non_null(giant);
    memset(giant, ' ', size);
    memcpy(giant, head, sizeof(head) - 1);
    w->fake.reply = giant;
    w->fake.reply_size = size;
    struct result result = result_of(f), deep = result_of(f);
    CALL(f, engine_container_inspect(f->engine, ID, on_inspect, &result));
    expect_error(&result, ERROR_PROTOCOL, "larger than 16 MiB");
    /* Nesting that would overflow a parser's stack. */
    memset(giant + sizeof(head) - 1, '[', 4000000);
    static const char shorter[] = "HTTP/1.1 200 OK\r\nContent-Length: 04000000\r\n\r\n";
    memcpy(giant, shorter, sizeof(shorter) - 1);
    w->fake.reply_size = sizeof(shorter) - 1 + 4000000;
    CALL(f, engine_container_inspect(f->engine, ID, on_inspect, &deep));
    expect_error(&deep, ERROR_PROTOCOL, "not JSON");
    fixture_close(f);
    fake_stop(&w->fake);
    free(giant);
}

static void test_import_hides_error(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, NULL, 5000, 0);
    w->fake.hang_up = true;
    static const struct {
        const char *reply, *words;
        enum error_code code;
    } rows[] = {
        {JSON_REPLY("{\"status\":\"x\"}\r\n{\"error\":\"disk full\"}\r\n"), "disk full", ERROR_ENGINE},
        {JSON_REPLY("{\"status\":\"x\"}\r\n{\"errorDetail\":{\"message\":\"disk full\"}}\r\n"), "disk full",
         ERROR_ENGINE},
        {JSON_REPLY("{\"status\":\"x\"}\r\n{\"sta"), "not JSON", ERROR_PROTOCOL},
        {JSON_REPLY("{\"status\":\"done\"}"), "no image id", ERROR_PROTOCOL},
        {JSON_REPLY(""), "no image id", ERROR_PROTOCOL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct result result = result_of(f);
        w->fake.reply = rows[i].reply;
        CALL(f, engine_image_import(f->engine, "tar", 3, "host:5000/a/b", NULL, on_id, &result));
        expect_error(&result, rows[i].code, rows[i].words);
    }
    assert_non_null(strstr(w->fake.paths, "fromSrc=-&repo=host:5000/a/b:latest\n"));
}

/* Wrong arguments are answered like all else: later, once, and the engine hears nothing of them. */
static void test_wrong_arguments(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, NULL, 5000, 0);
    const char *const argv[] = {"/bin/true", NULL};
    const char *const latin[] = {"NAME=caf\xe9", NULL};
    struct container_spec good = {
        .name = "a", .image = "b", .entrypoint = argv, .memory_swappiness = -1, .network = "none"};
    struct container_spec specs[5] = {good, good, good, good, good};
    specs[0].name = "a/../b";
    specs[1].name = NULL;
    specs[2].image = NULL;
    specs[3].env = latin;
    specs[4].memory_bytes = UINT64_MAX;
    struct result results[14];
    for (size_t i = 0; i < 14; i++)
        results[i] = result_of(f);
    f->calling = true;
    for (size_t i = 0; i < 5; i++)
        engine_container_create(f->engine, &specs[i], on_id, &results[i]);
    engine_container_start(f->engine, "", on_done, &results[5]);
    engine_container_remove(f->engine, "a?force=1", on_done, &results[6]);
    engine_container_inspect(f->engine, NULL, on_inspect, &results[7]);
    engine_image_inspect(f->engine, "../containers", on_image, &results[8]);
    engine_image_import(f->engine, NULL, 0, "a:b", NULL, on_id, &results[9]);
    engine_image_import(f->engine, "x", 1, "a b", NULL, on_id, &results[10]);
    engine_network_remove(f->engine, "a b", on_done, &results[11]);
    engine_volume_create(f->engine, "\n", NULL, 0, on_id, &results[12]);
    engine_container_list(f->engine, "caf\xe9", NULL, on_list, &results[13]);
    f->calling = false;
    for (size_t i = 0; i < 14; i++)
        expect_error(&results[i], ERROR_INVALID, ": ");
    assert_int_equal(w->fake.requests, 0);
}

/* --- closing -------------------------------------------------------------------------------------- */

struct closing {
    struct result result;
    struct result again; /* asked for from inside the cancelled one's answer */
    struct fixture *f;
    struct engine *engine;
};

static void on_cancelled(void *user, const struct error *error)
{
    struct closing *closing = user;
    on_done(&closing->result, error);
    engine_container_start(closing->engine, ID, on_done, &closing->again);
}

static void test_close_cancels(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, NULL, 5000, 3);
    struct closing closings[8];
    for (size_t i = 0; i < 8; i++) {
        closings[i] = (struct closing){.result = result_of(f), .again = result_of(f), .f = f, .engine = f->engine};
        CALL(f, engine_container_start(f->engine, ID, on_cancelled, &closings[i]));
    }
    struct result probe = result_of(f);
    wait_ms(f, 50);
    CALL(f, engine_probe(f->engine, on_done, &probe));
    fixture_close(f);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(closings[i].result.answers, 1);
        assert_int_equal(closings[i].result.error.code, ERROR_CANCELLED);
        assert_int_equal(closings[i].again.answers, 1);
        assert_int_equal(closings[i].again.error.code, ERROR_CANCELLED);
    }
    assert_int_equal(probe.answers, 1);
}

static void on_done_then_close(void *user, const struct error *error)
{
    struct closing *closing = user;
    on_done(&closing->result, error);
    closing->f->engine = NULL;
    engine_close(closing->engine, NULL, NULL);
}

/* From inside an answer, with others outstanding; and without anybody waiting for it. */
static void test_close_from_inside(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, "HTTP/1.1 204 No Content\r\n\r\n", 5000, 0);
    struct closing closing = {.result = result_of(f), .f = f, .engine = f->engine};
    struct result other = result_of(f);
    CALL(f, engine_container_start(f->engine, ID, on_done_then_close, &closing));
    CALL(f, engine_container_start(f->engine, ID, on_done, &other));
    wait_answer(&closing.result);
    wait_answer(&other);
    wait_ms(f, 20);
    assert_int_equal(closing.result.answers, 1);
    assert_int_equal(other.answers, 1);
}

static void test_close_before_opened(void **state)
{
    struct world *w = *state;
    struct fixture *f = w->f;
    w->fake.stall_all = true;
    fake_start(&w->fake, f);
    struct engine_options options = {.loop = &f->loop, .log = &f->log, .host = w->fake.host};
    CALL(f, assert_int_equal(engine_open(&f->engine, &options, on_done, &w->opened, NULL), 0));
    struct result waiting = result_of(f);
    CALL(f, engine_container_start(f->engine, ID, on_done, &waiting));
    fixture_close(f);
    assert_int_equal(w->opened.answers, 1);
    assert_int_equal(w->opened.error.code, ERROR_CANCELLED);
    assert_int_equal(waiting.answers, 1);
    assert_int_equal(waiting.error.code, ERROR_CANCELLED);
}

/* --- events --------------------------------------------------------------------------------------- */

struct watcher {
    unsigned opened, broken, events;
    struct error error;
    char action[32];
};

static void on_event(void *user, const struct engine_event *event, const struct error *error)
{
    struct watcher *watcher = user;
    if (event != NULL) {
        watcher->events++;
        snprintf(watcher->action, sizeof(watcher->action), "%s", event->action);
    } else if (error != NULL) {
        watcher->broken++;
        watcher->error = *error;
    } else {
        watcher->opened++;
    }
}

#define EVENT(action) "{\"Type\":\"container\",\"Action\":\"" action "\",\"Actor\":{\"ID\":\"a\",\"Attributes\":{}}}\n"

static void test_hostile_events(void **state)
{
    struct world *w = *state;
    static const char head[] = "HTTP/1.1 200 OK\r\n\r\n" EVENT("start");
    size_t size = sizeof(head) - 1 + 2000000;
    char *endless = malloc(size);
    assert_non_null(endless);
    memset(endless, 'x', size);
    memcpy(endless, head, sizeof(head) - 1);
    static const struct {
        const char *reply, *words;
        unsigned events;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\n\r\n" EVENT("start") "\n" EVENT("die") "garbage\n" EVENT("oom"), "not JSON", 2},
        {"HTTP/1.1 200 OK\r\n\r\n[]\n", "not an event", 0},
        {"HTTP/1.1 200 OK\r\n\r\n{\"Type\":1}\n", "not an event", 0},
        {"HTTP/1.1 200 OK\r\n\r\n{\"Actor\":{\"Attributes\":7}}\n", "not an event", 0},
        {NULL, "more than 1 MiB", 1},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fixture *f = w->f;
        struct watcher watcher = {0};
        struct result opened = result_of(f);
        w->fake.reply = rows[i].reply != NULL ? rows[i].reply : endless;
        w->fake.reply_size = rows[i].reply != NULL ? 0 : size;
        fake_start(&w->fake, f);
        fixture_open(f, w->fake.host, 5000, 0, &opened);
        engine_events(f->engine, LABEL, NULL, on_event, &watcher);
        while (watcher.broken == 0)
            uv_run(&f->loop, UV_RUN_ONCE);
        assert_non_null(strstr(watcher.error.message, rows[i].words));
        assert_int_equal(watcher.opened, 1);
        assert_int_equal(watcher.events, rows[i].events);
        fixture_close(f);
        fake_stop(&w->fake);
    }
    free(endless);
}

/* However often the stream cannot be opened, its owner hears of the outage once. */
static void test_events_outage_told_once(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", 5000, 0);
    struct watcher watcher = {0};
    engine_events(f->engine, LABEL, f->label, on_event, &watcher);
    wait_ms(f, 1000);
    assert_int_equal(watcher.broken, 1);
    assert_int_equal(watcher.opened, 0);
    assert_in_range(w->fake.requests, 3, 5); /* after 0, 100, 300, 700 ms */
}

/* The head of the stream does not come: that is an outage. Once it is there, silence is not. */
static void test_events_stall(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, NULL, 300, 0);
    struct watcher watcher = {0};
    engine_events(f->engine, LABEL, f->label, on_event, &watcher);
    wait_ms(f, 100);
    w->fake.reply = "HTTP/1.1 200 OK\r\n\r\n" EVENT("start");
    wait_ms(f, 1000);
    assert_int_equal(watcher.broken, 1);
    assert_int_equal(watcher.error.code, ERROR_TIMEOUT);
    assert_int_equal(watcher.opened, 1);
    assert_int_equal(watcher.events, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_up, world_down)
    const struct CMUnitTest tests[] = {
        TEST(test_malformed_hosts),
        TEST(test_certificate_files),
        TEST(test_plain_tcp),
        TEST(test_unknown_host),
        TEST(test_podman_create),
        TEST(test_no_engine_then_one),
        TEST(test_versions),
        TEST(test_engine_replaced),
        TEST(test_sockets_stay_here),
        TEST(test_events_stall),
        TEST(test_stall),
        TEST(test_stall_at_opening),
        TEST(test_busy_is_not_dead),
        TEST(test_lies),
        TEST(test_lies_in_lists),
        TEST(test_giant_reply),
        TEST(test_import_hides_error),
        TEST(test_wrong_arguments),
        TEST(test_close_cancels),
        TEST(test_close_from_inside),
        TEST(test_close_before_opened),
        TEST(test_hostile_events),
        TEST(test_events_outage_told_once),
        TEST(test_stream_pieces),
        TEST(test_stream_lies),
        TEST(test_stream_refused),
        TEST(test_stream_stall),
        TEST(test_stream_without_reader),
        TEST(test_pull_progress),
        TEST(test_pull_told_seldom),
        TEST(test_pull_cut),
        TEST(test_pull_garbage),
        TEST(test_pull_errors),
        TEST(test_pull_misleading_name),
        TEST(test_pull_too_much),
        TEST(test_pull_keeps_secrets),
        TEST(test_pull_references),
        TEST(test_pull_stall),
        TEST(test_pull_of_closed),
        TEST(test_pull_by_podman),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
