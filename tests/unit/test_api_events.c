/* GET /v1/events over a real socket: what a client gets, where it goes on, and that one that does not read is cut off
 * and harms nobody. The server runs on a thread of its own; the tests are its blocking clients. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "api/server.h"
#include "fake_executor.h"
#include "telemetry/events.h"

#define READERS_MAX 64

static struct {
    uv_loop_t loop;
    uv_async_t call, stop;
    void (*fn)(int number);
    int number;
    sem_t called;
    pthread_t thread;
    struct fake_counters counters;
    struct executor *executor;
    struct event_log *events;
    struct api_server *api;
    struct config *config;
    struct log log;
    char directory[64], socket[96];
    unsigned runs;
} service;

static void on_call(uv_async_t *async)
{
    (void)async;
    service.fn(service.number);
    sem_post(&service.called);
}

/* In one turn of the server's loop. */
static void on_loop(void (*fn)(int number), int number)
{
    service.fn = fn;
    service.number = number;
    uv_async_send(&service.call);
    sem_wait(&service.called);
}

static void emit(int count)
{
    for (int i = 0; i < count; i++) {
        char id[32];
        snprintf(id, sizeof id, "t%d", i);
        event_emit(
            service.events,
            &(struct event){.type = EVENT_TASK_ENDED, .agent_type = "coder", .subject = id, .text = "exited", .a = i},
            1700000000123);
    }
}

static void emit_scaled(int to)
{
    event_emit(service.events,
               &(struct event){.type = EVENT_POOL_SCALED, .agent_type = "tester", .text = "why", .a = 1, .b = to}, 0);
}

static void on_stop(uv_async_t *async)
{
    api_server_close(service.api, NULL, NULL);
    emit(1); /* nobody listens any more */
    fake_executor_stop(service.executor);
    uv_close((uv_handle_t *)&service.call, NULL);
    uv_close((uv_handle_t *)async, NULL);
}

static void *serve(void *user)
{
    (void)user;
    uv_run(&service.loop, UV_RUN_DEFAULT);
    return NULL;
}

static int set_up(void **state)
{
    struct error error = ERROR_INIT;
    (void)state;
    strcpy(service.directory, "/tmp/wp-unit-XXXXXX");
    assert_non_null(mkdtemp(service.directory));
    snprintf(service.socket, sizeof service.socket, "%s/api.sock", service.directory);
    service.config = config_parse("{}", 2, "test", false, NULL, 0, &error);
    assert_non_null(service.config);
    sem_init(&service.called, 0, 0);
    uv_loop_init(&service.loop);
    uv_async_init(&service.loop, &service.call, on_call);
    uv_async_init(&service.loop, &service.stop, on_stop);
    service.executor = fake_executor_new(&service.loop, &service.counters);
    service.events = executor_events(service.executor);
    event_log_init(service.events, ++service.runs);
    struct api_options options = {.loop = &service.loop,
                                  .executor = service.executor,
                                  .config = service.config,
                                  .log = &service.log,
                                  .socket = service.socket};
    service.api = api_server_open(&options, &error);
    assert_non_null(service.api);
    assert_int_equal(pthread_create(&service.thread, NULL, serve, NULL), 0);
    return 0;
}

static void end_server(void)
{
    uv_async_send(&service.stop);
    pthread_join(service.thread, NULL);
    assert_int_equal(uv_loop_close(&service.loop), 0); /* every handle was closed */
    fake_executor_free(service.executor);
    config_free(service.config);
    rmdir(service.directory);
}

static int tear_down(void **state)
{
    (void)state;
    end_server();
    return 0;
}

/* --- the client ------------------------------------------------------------------------------------------------- */

struct reader {
    FILE *stream;
    int status;
    char id[64], type[40]; /* of the last block; "": none */
    bool comment;
    json_t *data; /* of the last block; NULL: it had none */
};

static void reader_open(struct reader *reader, const char *query, const char *header)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = 10};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    char line[512];
    strcpy(address.sun_path, service.socket);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    int size = snprintf(line, sizeof line, "GET /v1/events%s HTTP/1.0\r\nHost: w\r\n%s\r\n", query, header);
    assert_int_equal(send(fd, line, (size_t)size, MSG_NOSIGNAL), size);
    *reader = (struct reader){.stream = fdopen(fd, "r")};
    assert_non_null(fgets(line, sizeof line, reader->stream));
    assert_int_equal(sscanf(line, "HTTP/1.%*d %d", &reader->status), 1);
    bool sse = false;
    while (fgets(line, sizeof line, reader->stream) != NULL && strcmp(line, "\r\n") != 0)
        sse |= strcmp(line, "Content-Type: text/event-stream\r\n") == 0;
    assert_true(sse == (reader->status == 200));
}

static void reader_close(struct reader *reader)
{
    json_decref(reader->data);
    fclose(reader->stream);
}

/* The next block; false at the end of the stream. */
static bool next_block(struct reader *reader)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    json_decref(reader->data);
    reader->data = NULL;
    reader->id[0] = reader->type[0] = '\0';
    reader->comment = false;
    while ((size = getline(&line, &room, reader->stream)) > 1) {
        line[size - 1] = '\0';
        if (strncmp(line, "id: ", 4) == 0)
            snprintf(reader->id, sizeof reader->id, "%s", line + 4);
        else if (strncmp(line, "event: ", 7) == 0)
            snprintf(reader->type, sizeof reader->type, "%s", line + 7);
        else if (strncmp(line, "data: ", 6) == 0)
            reader->data = json_loads(line + 6, 0, NULL);
        else if (line[0] == ':')
            reader->comment = true;
        else
            fail_msg("a line that is none of the format: %s", line);
    }
    free(line);
    return size == 1;
}

/* The next one with data. */
static bool next_event(struct reader *reader)
{
    while (next_block(reader))
        if (reader->data != NULL)
            return true;
    return false;
}

static const char *text_of(const struct reader *reader, const char *key)
{
    const char *text = json_string_value(json_object_get(reader->data, key));
    return text != NULL ? text : "";
}

static long long number_of(const struct reader *reader, const char *key)
{
    return json_integer_value(json_object_get(reader->data, key));
}

static unsigned long long id_number(const char *id)
{
    const char *dash = strchr(id, '-');
    return dash == NULL ? 0 : strtoull(dash + 1, NULL, 10);
}

static void make_id(char out[64], unsigned long long number)
{
    snprintf(out, 64, "%s-%llu", service.events->run, number);
}

static void last_seen(char out[128], unsigned long long number)
{
    snprintf(out, 128, "Last-Event-ID: %s-%llu\r\n", service.events->run, number);
}

/* --- tests ----------------------------------------------------------------------------------------------------------
 */

static void an_event_has_its_id_type_and_fields(void **state)
{
    struct reader reader;
    char id[64];
    (void)state;
    reader_open(&reader, "", "");
    assert_true(next_block(&reader)); /* where it begins is said before anything has happened */
    make_id(id, 0);
    assert_string_equal(reader.id, id);
    assert_true(reader.comment && reader.data == NULL);
    on_loop(emit, 1);
    assert_true(next_block(&reader));
    make_id(id, 1);
    assert_string_equal(reader.id, id);
    assert_string_equal(reader.type, "taskEnded");
    assert_string_equal(text_of(&reader, "id"), id);
    assert_string_equal(text_of(&reader, "type"), "taskEnded");
    assert_string_equal(text_of(&reader, "time"), "2023-11-14T22:13:20.123Z");
    assert_string_equal(text_of(&reader, "agentType"), "coder");
    assert_string_equal(text_of(&reader, "taskId"), "t0");
    assert_true(json_is_null(json_object_get(reader.data, "container")));
    assert_string_equal(text_of(&reader, "outcome"), "exited");
    assert_int_equal(number_of(&reader, "exitCode"), 0);
    reader_close(&reader);
}

static void emit_hostile(int number)
{
    static const char *const texts[] = {"\n\ndata: {\"type\":\"poolScaled\"}\n\n", "\"},{\"type\":\"x\"", "\xff\xfe",
                                        "\r\nid: 0-9\r\n", "\x1b]0;x\x07"};
    event_emit(service.events,
               &(struct event){.type = EVENT_CONTAINER_REMOVED,
                               .agent_type = "coder",
                               .subject = "c",
                               .text = texts[number],
                               .a = EVENT_UNKNOWN},
               0);
}

static void hostile_texts_stay_within_their_event(void **state)
{
    struct reader reader;
    (void)state;
    reader_open(&reader, "", "");
    assert_true(next_block(&reader));
    for (int i = 0; i < 5; i++) {
        on_loop(emit_hostile, i);
        assert_true(next_block(&reader)); /* which fails at any line that is none of the format */
        assert_string_equal(reader.type, "containerRemoved");
        assert_string_equal(text_of(&reader, "type"), "containerRemoved");
        assert_int_equal(id_number(reader.id), i + 1);
        assert_true(strlen(text_of(&reader, "reason")) > 3);
        assert_true(json_is_null(json_object_get(reader.data, "tasks")));
    }
    reader_close(&reader);
}

static void filters_choose(void **state)
{
    struct reader by_type, by_agent, both;
    (void)state;
    reader_open(&by_type, "?type=poolScaled,poolPaused", "");
    reader_open(&by_agent, "?agentType=coder", "");
    reader_open(&both, "?type=taskEnded&agentType=tester", "");
    on_loop(emit, 3);
    on_loop(emit_scaled, 7);
    on_loop(emit, 1);
    assert_true(next_event(&by_type));
    assert_int_equal(number_of(&by_type, "to"), 7);
    assert_int_equal(id_number(by_type.id), 4);
    for (int i = 0; i < 4; i++) {
        assert_true(next_event(&by_agent));
        assert_string_equal(by_agent.type, "taskEnded");
    }
    assert_int_equal(id_number(by_agent.id), 5);
    end_server();
    assert_true(next_event(&both)); /* nothing of these, and so this one is the next */
    assert_string_equal(both.type, "stopping");
    reader_close(&by_type);
    reader_close(&by_agent);
    reader_close(&both);
}

static void wrong_requests_are_refused(void **state)
{
    static const char *const queries[] = {
        "?type=x", "?type=taskEnded,", "?type=taskEnded,,poolScaled", "?follow=maybe",
        "?agentType=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    (void)state;
    for (size_t i = 0; i < sizeof queries / sizeof queries[0]; i++) {
        struct reader reader;
        reader_open(&reader, queries[i], "");
        if (reader.status != (i == 1 ? 200 : 400)) /* a comma at the end names nothing */
            fail_msg("%s gave %d", queries[i], reader.status);
        reader_close(&reader);
    }
}

static void a_reader_goes_on_where_it_was(void **state)
{
    struct reader reader;
    char header[128], query[128];
    (void)state;
    on_loop(emit, 10);
    last_seen(header, 4);
    reader_open(&reader, "", header);
    for (unsigned i = 5; i <= 10; i++) {
        assert_true(next_event(&reader));
        assert_int_equal(id_number(reader.id), i);
    }
    on_loop(emit, 1);
    assert_true(next_event(&reader));
    assert_int_equal(id_number(reader.id), 11);
    reader_close(&reader);
    snprintf(query, sizeof query, "?since=%s-9", service.events->run);
    reader_open(&reader, query, "");
    assert_true(next_event(&reader));
    assert_int_equal(id_number(reader.id), 10);
    reader_close(&reader);
    reader_open(&reader, query, header); /* the header is the newer one of a browser that reconnects */
    assert_true(next_event(&reader));
    assert_int_equal(id_number(reader.id), 5);
    reader_close(&reader);
    last_seen(header, 11); /* the newest */
    reader_open(&reader, "", header);
    on_loop(emit_scaled, 3);
    assert_true(next_event(&reader));
    assert_int_equal(id_number(reader.id), 12);
    reader_close(&reader);
}

static void what_is_no_longer_there_is_a_gap(void **state)
{
    struct reader reader;
    char header[128];
    (void)state;
    for (int i = 0; i < 100; i++)
        on_loop(emit, 100);
    last_seen(header, 10);
    reader_open(&reader, "", header);
    assert_true(next_event(&reader));
    assert_string_equal(reader.type, "gap");
    unsigned long long missed = (unsigned long long)number_of(&reader, "missed");
    assert_true(missed > 1000 && missed < 9990);
    assert_int_equal(id_number(reader.id), 10 + missed); /* who comes back with that is not told again */
    unsigned long long next = 10 + missed;
    while (next < 10000) {
        assert_true(next_event(&reader));
        assert_int_equal(id_number(reader.id), ++next);
    }
    reader_close(&reader);
    static const char *const foreign[] = {"deadbeef-3", "3", "x", "00000001-", "00000001-1x", NULL};
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        if (foreign[i] != NULL)
            snprintf(header, sizeof header, "Last-Event-ID: %s\r\n", foreign[i]);
        else
            last_seen(header, 99999999);
        reader_open(&reader, "", header);
        assert_true(next_event(&reader));
        assert_string_equal(reader.type, "gap");
        assert_true(json_is_null(json_object_get(reader.data, "missed")));
        unsigned long long oldest = id_number(reader.id) + 1;
        assert_true(next_event(&reader));
        assert_int_equal(id_number(reader.id), oldest);
        reader_close(&reader);
    }
}

static void who_does_not_follow_gets_what_there_is(void **state)
{
    struct reader reader;
    char header[128];
    (void)state;
    reader_open(&reader, "?follow=false", "");
    assert_false(next_event(&reader));
    reader_close(&reader);
    on_loop(emit, 500);
    reader_open(&reader, "?follow=false", "");
    for (unsigned i = 1; i <= 500; i++) {
        assert_true(next_event(&reader));
        assert_int_equal(id_number(reader.id), i);
    }
    assert_true(next_block(&reader) && reader.comment); /* so that it is known from a broken connection */
    assert_false(next_block(&reader));
    reader_close(&reader);
    last_seen(header, 498);
    reader_open(&reader, "?follow=false&type=taskEnded", header);
    assert_true(next_event(&reader) && next_event(&reader));
    assert_false(next_event(&reader));
    reader_close(&reader);
}

/* More than the ring holds, in one turn of the loop: nobody could have read it. */
static void a_burst_is_told_as_a_gap(void **state)
{
    struct reader reader;
    char header[128];
    (void)state;
    reader_open(&reader, "", "");
    on_loop(emit, 20000);
    assert_true(next_event(&reader));
    assert_string_equal(reader.type, "gap");
    unsigned long long missed = (unsigned long long)number_of(&reader, "missed");
    assert_true(missed > 10000 && missed < 20000);
    assert_false(next_event(&reader));
    unsigned long long place = missed;
    reader_close(&reader);
    last_seen(header, place);
    reader_open(&reader, "", header);
    assert_true(next_event(&reader));
    assert_int_equal(id_number(reader.id), place + 1);
    reader_close(&reader);
}

struct quick { /* reads all, on a thread of its own */
    struct reader reader;
    pthread_t thread;
    atomic_ullong last;
};

static void *read_all(void *user)
{
    struct quick *quick = user;
    struct reader *reader = &quick->reader;
    while (next_event(reader) && strcmp(reader->type, "taskEnded") == 0 &&
           id_number(reader->id) == atomic_load(&quick->last) + 1)
        atomic_fetch_add(&quick->last, 1);
    return NULL;
}

/* Until it has read all but the last few: how quick this machine is today is not what is tested. */
static void keep_up(struct quick *quick, unsigned long long emitted)
{
    for (int i = 0; i < 100000 && atomic_load(&quick->last) + 500 < emitted; i++)
        usleep(50);
}

static void one_that_does_not_read_is_cut_off(void **state)
{
    enum { ROUNDS = 1000, EACH = 40 };
    struct reader slow;
    struct quick quick[2];
    char header[128];
    (void)state;
    reader_open(&slow, "", "");
    for (int i = 0; i < 2; i++) {
        reader_open(&quick[i].reader, "", "");
        atomic_init(&quick[i].last, 0);
        pthread_create(&quick[i].thread, NULL, read_all, &quick[i]);
    }
    for (int i = 0; i < ROUNDS; i++) {
        on_loop(emit, EACH);
        keep_up(&quick[0], (unsigned long long)(i + 1) * EACH);
        keep_up(&quick[1], (unsigned long long)(i + 1) * EACH);
    }
    unsigned long long seen = 0;
    while (next_event(&slow)) /* what its socket holds, and then the end */
        seen = id_number(slow.id);
    assert_true(seen > 0 && seen < ROUNDS * EACH / 2);
    reader_close(&slow);
    last_seen(header, seen);
    reader_open(&slow, "?follow=false", header);
    assert_true(next_event(&slow));
    assert_string_equal(slow.type, "gap");
    unsigned long long next = seen + (unsigned long long)number_of(&slow, "missed");
    while (next_event(&slow))
        assert_int_equal(id_number(slow.id), ++next);
    assert_int_equal(next, ROUNDS * EACH);
    reader_close(&slow);
    end_server();
    for (int i = 0; i < 2; i++) {
        pthread_join(quick[i].thread, NULL);
        assert_int_equal(atomic_load(&quick[i].last), ROUNDS * EACH);
        reader_close(&quick[i].reader);
    }
}

static void readers_are_so_many_at_most(void **state)
{
    struct reader readers[READERS_MAX], more;
    (void)state;
    for (int i = 0; i < READERS_MAX; i++) {
        reader_open(&readers[i], "", "");
        assert_int_equal(readers[i].status, 200);
    }
    reader_open(&more, "", "");
    assert_int_equal(more.status, 429);
    reader_close(&more);
    on_loop(emit, 5);
    for (int i = 0; i < READERS_MAX; i++) {
        for (int j = 1; j <= 5; j++) {
            assert_true(next_event(&readers[i]));
            assert_int_equal(id_number(readers[i].id), j);
        }
        reader_close(&readers[i]);
    }
    more.status = 429;
    for (int tries = 0; tries < 1000 && more.status == 429; tries++) { /* until they are seen to be gone */
        usleep(2000);
        reader_open(&more, "", "");
        reader_close(&more);
    }
    assert_int_equal(more.status, 200);
    on_loop(emit, 5);
}

static void a_server_that_ends_says_so(void **state)
{
    struct reader readers[3];
    (void)state;
    for (int i = 0; i < 3; i++)
        reader_open(&readers[i], "", "");
    on_loop(emit, 1);
    assert_true(next_event(&readers[0]));
    end_server();
    for (int i = 0; i < 3; i++) {
        if (i > 0)
            assert_true(next_event(&readers[i]));
        assert_true(next_event(&readers[i]));
        assert_string_equal(readers[i].type, "stopping");
        assert_string_equal(text_of(&readers[i], "type"), "stopping");
        assert_false(next_block(&readers[i]));
        assert_true(feof(readers[i].stream) && !ferror(readers[i].stream));
        reader_close(&readers[i]);
    }
}

int main(void)
{
#define SERVED(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define ENDING(name) cmocka_unit_test_setup(name, set_up)
    const struct CMUnitTest tests[] = {
        SERVED(an_event_has_its_id_type_and_fields),
        SERVED(hostile_texts_stay_within_their_event),
        ENDING(filters_choose),
        SERVED(wrong_requests_are_refused),
        SERVED(a_reader_goes_on_where_it_was),
        SERVED(what_is_no_longer_there_is_a_gap),
        SERVED(who_does_not_follow_gets_what_there_is),
        SERVED(a_burst_is_told_as_a_gap),
        ENDING(one_that_does_not_read_is_cut_off),
        SERVED(readers_are_so_many_at_most),
        ENDING(a_server_that_ends_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
