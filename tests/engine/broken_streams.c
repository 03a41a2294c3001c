/* Attach streams of engines that break them, lie in them, or do not open them. */
#include "attached.h"
#include "trouble.h"

#define HEAD "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\n\r\n"

/* A literal that may hold zeros. */
#define REPLY(text) text, sizeof(text) - 1

/* Cut anywhere, an answer means the same. */
void test_stream_pieces(void **state)
{
    struct world *w = *state;
    static const char answer[] =
        "HTTP/1.1 100 Continue\r\n\r\n" HEAD "\1\0\0\0\0\0\0\5hello\2\0\0\0\0\0\0\4oops\1\0\0\0\0\0\0\0\1\0\0\0\0\0"
        "\0\6 world\2\0\0\0\0\0\0\1\n";
    struct fixture *f = world_open(w, NULL, 5000, 0);
    for (size_t piece = 1; piece < sizeof(answer) * 2; piece = piece * 2 + 1) {
        struct attached a;
        attach(f, &a, ID);
        while (w->fake.open == 0)
            uv_run(&f->loop, UV_RUN_ONCE);
        for (size_t at = 0; at < sizeof(answer) - 1; at += piece) {
            size_t left = sizeof(answer) - 1 - at;
            fake_send_stalled(&w->fake, answer + at, piece < left ? piece : left);
            uv_run(&f->loop, UV_RUN_NOWAIT);
        }
        hear(&a, "hello world");
        while (strstr(f->logged, "stderr: oops") == NULL)
            uv_run(&f->loop, UV_RUN_ONCE);
        f->logged[0] = '\0';
        assert_int_equal(a.opened, 1);
        detach(&a);
        fake_drop_connections(&w->fake);
        wait_ms(f, 0);
    }
    assert_non_null(
        strstr(w->fake.paths, "/v1.41/containers/" ID "/attach?stream=1&stdin=1&stdout=1&stderr=1&detachKeys=\n"));
}

void test_stream_lies(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *reply;
        size_t size;
        const char *words;
        enum error_code code;
        unsigned opened;
        size_t received;
    } rows[] = {
        {REPLY(HEAD "\1\0\0\0"), "ended the stream", ERROR_UNAVAILABLE, 1, 0},
        {REPLY(HEAD "\1\0\0\0\0\0\0\5hel"), "ended the stream", ERROR_UNAVAILABLE, 1, 3},
        {REPLY(HEAD), "ended the stream", ERROR_UNAVAILABLE, 1, 0},
        {REPLY(HEAD "\1\0\0\0\0\0\0\3abc\0\0\0\0\0\0\0\1x"), "unknown type 0", ERROR_PROTOCOL, 1, 3},
        {REPLY(HEAD "\3\0\0\0\0\0\0\1x"), "unknown type 3", ERROR_PROTOCOL, 1, 0},
        {REPLY(HEAD "\1\0\1\0\0\0\0\1x"), "unknown type 1", ERROR_PROTOCOL, 1, 0},
        {REPLY(HEAD "{\"message\": \"no\"}"), "unknown type 123", ERROR_PROTOCOL, 1, 0},
        {REPLY(HEAD "\1\0\0\0\xff\xff\xff\xffhello"), "record of 4294967295 bytes", ERROR_PROTOCOL, 1, 0},
        {REPLY("HTTP/1.1 200 OK\r\n\r\n\1\0\0\0\0\0\0\3abc"), "ended the stream", ERROR_UNAVAILABLE, 1, 3},
        {REPLY("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), "a document", ERROR_PROTOCOL, 0, 0},
        {REPLY("HTTP/1.1 200 OK\r\ntransfer-encoding:chunked\r\n\r\n0\r\n\r\n"), "a document", ERROR_PROTOCOL, 0, 0},
        {REPLY("HTTP/1.1 101 UPGR"), "before an answer was complete", ERROR_UNAVAILABLE, 0, 0},
        {REPLY(""), "before an answer was complete", ERROR_UNAVAILABLE, 0, 0},
        {REPLY("SSH-2.0-OpenSSH_9.2\r\n\r\n"), "not an HTTP answer", ERROR_PROTOCOL, 0, 0},
        {REPLY("HTTP/1.1 9999\r\n\r\n"), "not an HTTP answer", ERROR_PROTOCOL, 0, 0},
        {REPLY("HTTP/1.1\r\n\r\n\0\0\0"), "not an HTTP answer", ERROR_PROTOCOL, 0, 0},
    };
    struct fixture *f = world_open(w, NULL, 5000, 0);
    w->fake.hang_up = true;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct attached a;
        w->fake.reply = rows[i].reply;
        w->fake.reply_size = rows[i].size;
        attach(f, &a, ID);
        expect_closed(&a, rows[i].code, rows[i].words);
        assert_int_equal(a.opened, rows[i].opened);
        assert_int_equal(a.received, rows[i].received);
    }
    char *endless = malloc(1 << 20);
    memset(endless, 'x', 1 << 20);
    memcpy(endless, "HTTP/1.1 101 ", 13);
    w->fake.reply = endless;
    w->fake.reply_size = 1 << 20;
    struct attached a;
    attach(f, &a, ID);
    expect_closed(&a, ERROR_PROTOCOL, "not an HTTP answer");
    fixture_close(f);
    fake_stop(&w->fake);
    free(endless);
}

void test_stream_refused(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *reply, *words;
        enum error_code code;
        bool hang_up;
    } rows[] = {
        {"HTTP/1.1 500 Oh\r\nContent-Length: 22\r\n\r\n{\"message\":\"on fire\"} ", "on fire", ERROR_ENGINE, false},
        {"HTTP/1.1 404 No\r\ncontent-length:  21\r\n\r\n{\"message\":\"no such\"}", "no such", ERROR_NOT_FOUND, false},
        {"HTTP/1.1 409 No\r\nTransfer-Encoding: "
         "chunked\r\n\r\n9\r\n{\"message\r\nc;x=y\r\n\":\"stopped\"}\r\n0\r\n\r\n",
         "stopped", ERROR_CONFLICT, false},
        {"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"message\r\nzz\r\n", "{\"message", ERROR_ENGINE,
         false},
        {"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx", "status 500", ERROR_ENGINE,
         false},
        {"HTTP/1.1 400 Oh\r\n\r\n{\"message\":\"to the end\"}", "to the end", ERROR_ENGINE, true},
        {"HTTP/1.1 400 Oh\r\nContent-Length: 1000\r\n\r\nhalf of it", "half of it", ERROR_ENGINE, true},
        {"HTTP/1.1 400 Oh\r\nContent-Length: 99999999999999999999\r\n\r\nall of it", "all of it", ERROR_ENGINE, true},
        {"HTTP/1.1 302 Oh\r\nLocation: x\r\nContent-Length: 0\r\n\r\n", "status 302", ERROR_ENGINE, false},
    };
    struct fixture *f = world_open(w, NULL, 5000, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct attached a;
        w->fake.reply = rows[i].reply;
        w->fake.hang_up = rows[i].hang_up;
        attach(f, &a, ID);
        expect_closed(&a, rows[i].code, rows[i].words);
        assert_int_equal(a.opened, 0);
    }
}

/* No answer, and half of one; open, a stream may be silent for as long as it likes. */
void test_stream_stall(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, NULL, 300, 0);
    struct attached silent, half, open;
    attach(f, &silent, ID);
    expect_closed(&silent, ERROR_TIMEOUT, "no answer within 300 ms");
    w->fake.reply = "HTTP/1.1 101 UPGRADED\r\nConnec";
    attach(f, &half, ID);
    expect_closed(&half, ERROR_TIMEOUT, "no answer within 300 ms");
    assert_int_equal(half.opened, 0);
    w->fake.reply = HEAD;
    attach_ok(f, &open, ID);
    wait_ms(f, 500);
    assert_false(open.ended);
    fake_stop(&w->fake);
    expect_closed(&open, ERROR_UNAVAILABLE, "ended the stream");
    /* Nobody is there any more, or yet. */
    attach(f, &open, ID);
    expect_closed(&open, ERROR_UNAVAILABLE, "is the engine running?");
    w->fake.reply = HEAD;
    fake_start(&w->fake, f);
    attach_ok(f, &open, ID);
    detach(&open);
}

/* An engine that does not read takes no more than buffers hold; one that reads again gets the rest. */
void test_stream_without_reader(void **state)
{
    struct world *w = *state;
    struct fixture *f = world_open(w, HEAD, 5000, 0);
    struct attached a;
    attach_ok(f, &a, ID);
    fake_read_stop(&w->fake);
    a.pattern = true;
    a.total = 8 << 20;
    pattern_send(&a);
    wait_ms(f, 100);
    assert_true(a.sent > 0 && a.sent < a.total);
    size_t before = a.sent;
    wait_ms(f, 100);
    assert_int_equal(a.sent, before);
    assert_false(a.is_writable);
    fake_read_start(&w->fake);
    while (a.sent < a.total)
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_true(a.is_writable);
    detach(&a);
}
