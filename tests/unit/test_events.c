/* The ring of events: order, cursors, what happens when a reader is too slow, and that no text can break the JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/clock.h"
#include "telemetry/events.h"

static struct event_log *make(void)
{
    struct event_log *log = calloc(1, sizeof *log);
    event_log_init(log, 0x12ab);
    return log;
}

static void emit_number(struct event_log *log, int number)
{
    char text[40];
    snprintf(text, sizeof text, "t%d", number);
    event_emit(log, &(struct event){.type = EVENT_TASK_ENDED, .agent_type = "coder", .subject = text, .a = number},
               1000);
}

static void test_events_come_in_order_with_all_they_carry(void **state)
{
    (void)state;
    struct event_log *log = make();
    struct event_cursor cursor;
    struct event event;
    event_cursor_end(log, &cursor);
    assert_false(event_next(log, &cursor, &event));
    event_emit(log,
               &(struct event){.type = EVENT_POOL_SCALED, .agent_type = "coder", .text = "why", .a = 1, .b = INT64_MIN},
               77);
    emit_number(log, 5);
    assert_true(event_next(log, &cursor, &event));
    assert_int_equal(event.type, EVENT_POOL_SCALED);
    assert_int_equal(event.id, 1);
    assert_int_equal(event.wall_ms, 77);
    assert_string_equal(event.text, "why");
    assert_null(event.subject);
    assert_true(event.b == INT64_MIN);
    assert_true(event_next(log, &cursor, &event));
    assert_string_equal(event.subject, "t5");
    assert_false(event_next(log, &cursor, &event));
    free(log);
}

/* Every size of record meets the ring's end at every place. */
static void test_the_ring_goes_round_without_losing_or_mixing(void **state)
{
    (void)state;
    struct event_log *log = make();
    struct event_cursor cursor;
    struct event event;
    char text[EVENT_TEXT_MAX + 50];
    event_cursor_end(log, &cursor);
    for (uint64_t i = 1; i <= 50000; i++) {
        size_t length = (size_t)(i * 7919 % (EVENT_TEXT_MAX + 40));
        memset(text, 'a' + (int)(i % 26), length);
        text[length] = '\0';
        event_emit(log,
                   &(struct event){
                       .type = EVENT_TASK_QUEUED, .subject = text, .text = i % 3 == 0 ? text : NULL, .a = (int64_t)i},
                   i);
        assert_int_equal(event_cursor_missed(log, &cursor), 0);
        assert_true(event_next(log, &cursor, &event));
        assert_int_equal(event.id, i);
        assert_int_equal(event.a, i);
        assert_int_equal(strlen(event.subject), length > EVENT_TEXT_MAX ? EVENT_TEXT_MAX : length);
        assert_true(length == 0 || event.subject[0] == 'a' + (int)(i % 26));
        assert_true((event.text != NULL) == (i % 3 == 0));
    }
    free(log);
}

static void test_a_slow_reader_learns_how_much_it_missed(void **state)
{
    (void)state;
    struct event_log *log = make();
    struct event_cursor cursor;
    struct event event;
    event_cursor_end(log, &cursor);
    for (int i = 1; i <= 20000; i++)
        emit_number(log, i);
    uint64_t missed = event_cursor_missed(log, &cursor);
    assert_true(missed > 10000 && missed < 20000);
    uint64_t seen = 0;
    while (event_next(log, &cursor, &event)) {
        seen++;
        assert_int_equal(event.id, missed + seen);
    }
    assert_int_equal(missed + seen, 20000);
    free(log);
}

static void test_a_reader_goes_on_after_the_last_it_saw(void **state)
{
    (void)state;
    struct event_log *log = make();
    struct event_cursor cursor;
    struct event event;
    for (int i = 1; i <= 5000; i++)
        emit_number(log, i);
    event_cursor_after(log, &cursor, 4990);
    assert_int_equal(event_cursor_missed(log, &cursor), 0);
    for (int i = 4991; i <= 5000; i++) {
        assert_true(event_next(log, &cursor, &event));
        assert_int_equal(event.a, i);
    }
    assert_false(event_next(log, &cursor, &event));
    event_cursor_after(log, &cursor, 5000); /* the newest: nothing yet */
    assert_false(event_next(log, &cursor, &event));
    event_cursor_after(log, &cursor, 3); /* long gone */
    uint64_t missed = event_cursor_missed(log, &cursor);
    assert_true(missed > 0);
    assert_true(event_next(log, &cursor, &event));
    assert_int_equal(event.id, 4 + missed);
    event_cursor_after(log, &cursor, 99999); /* never was */
    assert_true(event_next(log, &cursor, &event));
    free(log);
}

static void test_names_lead_there_and_back(void **state)
{
    (void)state;
    for (unsigned type = 0; type < EVENT_TYPES; type++) {
        const char *name = event_type_name((enum event_type)type);
        assert_non_null(name);
        assert_int_equal(event_type_find(name, strlen(name)), type);
    }
    assert_int_equal(event_type_find("taskEndedX", 10), EVENT_TYPES);
    assert_int_equal(event_type_find("", 0), EVENT_TYPES);
}

static void test_hostile_texts_stay_texts(void **state)
{
    (void)state;
    struct event_log *log = make();
    struct event_cursor cursor;
    struct event event;
    struct buffer out = {0};
    static const char *const texts[] = {"\"},{\"type\":\"x\"", "\n\ndata: {}", "\xff\xfe\x80", "\x1b[2J", "\\", "a\rb"};
    event_cursor_end(log, &cursor);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        event_emit(log,
                   &(struct event){
                       .type = EVENT_CONTAINER_REMOVED, .agent_type = texts[i], .subject = texts[i], .text = texts[i]},
                   1);
        assert_true(event_next(log, &cursor, &event));
        event_write(&out, log, &event);
        const char *text = buffer_text(&out);
        assert_null(strpbrk(text, "\n\r\x1b"));
        json_t *json = json_loads(text, 0, NULL);
        assert_non_null(json);
        assert_string_equal(json_string_value(json_object_get(json, "type")), "containerRemoved");
        assert_int_equal(json_object_size(json), 7);
        json_decref(json);
        buffer_consume(&out, buffer_length(&out));
    }
    buffer_free(&out);
    free(log);
}

static void test_what_is_not_known_is_null(void **state)
{
    (void)state;
    struct event_log *log = make();
    struct event_cursor cursor;
    struct event event;
    struct buffer out = {0};
    event_cursor_end(log, &cursor);
    event_emit(log, &(struct event){.type = EVENT_TASK_ENDED, .subject = "t", .text = "rejected", .a = EVENT_UNKNOWN},
               1);
    assert_true(event_next(log, &cursor, &event));
    event_write(&out, log, &event);
    assert_non_null(strstr(buffer_text(&out), "\"container\":null"));
    assert_non_null(strstr(buffer_text(&out), "\"exitCode\":null"));
    assert_null(strstr(buffer_text(&out), "agentType"));
    buffer_free(&out);
    free(log);
}

/* The shortest of some rounds: others use this machine too. */
static void test_emitting_costs_little(void **state)
{
    (void)state;
    enum { ROUNDS = 20, EACH = 5000 };
    struct event_log *log = make();
    uint64_t shortest_us = UINT64_MAX;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t begun_us = clock_us();
        for (int i = 0; i < EACH; i++)
            event_emit(log,
                       &(struct event){.type = EVENT_TASK_ENDED,
                                       .agent_type = "coder",
                                       .subject = "t0123456789abcdef",
                                       .other = "wp-012345-coder-012345",
                                       .text = "exited"},
                       clock_wall_ms());
        uint64_t took_us = clock_us() - begun_us;
        shortest_us = took_us < shortest_us ? took_us : shortest_us;
    }
    print_message("%.0f ns an event\n", (double)shortest_us * 1000 / EACH);
    assert_true(shortest_us < EACH); /* a microsecond each */
    free(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_come_in_order_with_all_they_carry),
        cmocka_unit_test(test_the_ring_goes_round_without_losing_or_mixing),
        cmocka_unit_test(test_a_slow_reader_learns_how_much_it_missed),
        cmocka_unit_test(test_a_reader_goes_on_after_the_last_it_saw),
        cmocka_unit_test(test_names_lead_there_and_back),
        cmocka_unit_test(test_hostile_texts_stay_texts),
        cmocka_unit_test(test_what_is_not_known_is_null),
        cmocka_unit_test(test_emitting_costs_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
