/* Pulls from engines and registries that break, lie or talk too much. */
#include "trouble.h"

#define IMAGE  "registry.example:5000/team/agent:1"
#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEAD   "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
#define DONE   "{\"status\":\"Status: Downloaded newer image for " IMAGE "\"}\r\n"

#define LAYER(id, status) "{\"status\":\"" status "\",\"progressDetail\":{},\"id\":\"" id "\"}\r\n"
#define LOADING(id, current, total)                                                                                    \
    "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":" #current ",\"total\":" #total                       \
    "},\"progress\":\"[=>  ]\",\"id\":\"" id "\"}\r\n"

#define STREAM                                                                                                         \
    "{\"status\":\"Pulling from team/agent\",\"id\":\"1\"}\r\n" LAYER("aaaaaaaaaaaa", "Pulling fs layer")              \
        LAYER("bbbbbbbbbbbb", "Pulling fs layer") LAYER("cccccccccccc", "Already exists")                              \
            LOADING("aaaaaaaaaaaa", 100, 1000) LAYER("bbbbbbbbbbbb", "Waiting") LOADING("aaaaaaaaaaaa", 1000, 1000)    \
                LAYER("aaaaaaaaaaaa", "Verifying Checksum") LAYER("aaaaaaaaaaaa", "Download complete")                 \
                    LOADING("bbbbbbbbbbbb", 30, 50) LAYER("aaaaaaaaaaaa", "Pull complete")                             \
                        LAYER("bbbbbbbbbbbb", "Download complete")                                                     \
                            LAYER("bbbbbbbbbbbb", "Pull complete") "{\"status\":\"Digest: " DIGEST "\"}\r\n"

struct heard {
    unsigned times;
    struct pull_progress last;
    char words[64];
};

static void on_progress(void *user, const struct pull_progress *progress)
{
    struct heard *heard = user;
    heard->times++;
    heard->last = *progress;
    snprintf(heard->words, sizeof(heard->words), "%s", progress->words);
    assert_true(progress->layers_done <= progress->layers);
}

struct pulling {
    struct result result; /* first: it is what on_done() gets */
    struct heard heard;
};

static void on_pull_progress(void *user, const struct pull_progress *progress)
{
    on_progress(&((struct pulling *)user)->heard, progress);
}

static struct pulling pull_begin(struct world *w)
{
    return (struct pulling){.result = result_of(w->f)};
}

/* One pull, answered `reply`, after which the engine hangs up. */
static void pull(struct world *w, struct pulling *pulling, const char *reply, size_t size)
{
    *pulling = pull_begin(w);
    w->fake.reply = reply;
    w->fake.reply_size = size;
    w->fake.hang_up = true;
    CALL(w->f, engine_image_pull(w->f->engine, IMAGE, NULL, on_pull_progress, on_done, pulling));
    wait_answer(&pulling->result);
}

void test_pull_progress(void **state)
{
    struct world *w = *state;
    struct pulling pulling;
    world_open(w, NULL, 5000, 0);
    pull(w, &pulling, HEAD STREAM DONE, 0);
    expect_ok(&pulling.result);
    assert_int_equal(pulling.heard.last.bytes, 1050);
    assert_int_equal(pulling.heard.last.total_bytes, 1050);
    assert_int_equal(pulling.heard.last.layers, 3);
    assert_int_equal(pulling.heard.last.layers_done, 3);
    assert_string_equal(pulling.heard.words, "Pull complete");
    /* Up to here: half of it. What the engine calls the image is no layer. */
    pull(w, &pulling, HEAD LAYER("aaaaaaaaaaaa", "Already exists") LOADING("bbbbbbbbbbbb", 30, 50), 0);
    expect_error(&pulling.result, ERROR_UNAVAILABLE, "in the middle of the pull");
    assert_int_equal(pulling.heard.last.layers,
                     1); /* the first word at once, the next not before a tenth of a second */
    assert_int_equal(pulling.heard.times, 1);
}

/* Ten times a second at most, however much the engine tells. */
void test_pull_told_seldom(void **state)
{
    struct world *w = *state;
    struct buffer reply = {0};
    struct pulling pulling;
    world_open(w, NULL, 5000, 0);
    buffer_append_string(&reply, HEAD);
    for (unsigned i = 0; i < 20000; i++)
        buffer_printf(&reply,
                      "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":%u,\"total\":20000},\"id\":\"a\"}\n",
                      i);
    buffer_append_string(&reply, DONE);
    uint64_t begun = uv_hrtime();
    pull(w, &pulling, (const char *)buffer_data(&reply), buffer_length(&reply));
    uint64_t tenths = (uv_hrtime() - begun) / 100000000;
    expect_ok(&pulling.result);
    assert_in_range(pulling.heard.times, 2, tenths + 3);
    assert_int_equal(pulling.heard.last.bytes, 19999);
    buffer_free(&reply);
}

/* An engine that dies ends the stream anywhere; only its last word makes a success. */
static void cut_everywhere(struct world *w, const char *reply, size_t done_at)
{
    struct pulling pulling;
    for (size_t size = 1; size <= strlen(reply); size++) {
        pull(w, &pulling, reply, size);
        assert_int_equal(pulling.result.answers, 1);
        if (size >= done_at)
            assert_int_equal(pulling.result.error.code, ERROR_NONE);
        else if (pulling.result.error.code != ERROR_UNAVAILABLE && pulling.result.error.code != ERROR_PROTOCOL)
            fail_msg("after %zu bytes: %s: %s", size, error_code_name(pulling.result.error.code),
                     pulling.result.error.message);
    }
}

void test_pull_cut(void **state)
{
    struct world *w = *state;
    world_open(w, NULL, 5000, 0);
    static const char reply[] = HEAD STREAM DONE;
    cut_everywhere(w, reply, sizeof(reply) - 1 - strlen("\r\n"));
    static const char longer[] = "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" STREAM DONE;
    cut_everywhere(w, longer, sizeof(longer));
    static const char chunked[] =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "47\r\n" LAYER("aaaaaaaaaaaa", "Pulling fs layer") "\r\n"
                                                           "5\r\n{\"sta\r\n"
                                                           "22\r\ntus\":\"Status: Downloaded image\"}\r\n\r\n0\r\n\r\n";
    cut_everywhere(w, chunked, sizeof(chunked) - 1 - strlen("\n"));
}

void test_pull_garbage(void **state)
{
    static const struct {
        const char *reply;
        enum error_code code;
        const char *words;
    } rows[] = {
        {HEAD "<html>\n" DONE, ERROR_PROTOCOL, "not JSON"},
        {HEAD "[]\n" DONE, ERROR_PROTOCOL, "not the progress of a pull"},
        {HEAD "7\n" DONE, ERROR_PROTOCOL, "not JSON"},
        {HEAD "{\"status\":7}\n" DONE, ERROR_PROTOCOL, "not the progress of a pull"},
        {HEAD "{\"status\":\"Downloading\",\"id\":[]}\n" DONE, ERROR_PROTOCOL, "not the progress of a pull"},
        {HEAD "{\"errorDetail\":7}\n" DONE, ERROR_PROTOCOL, "not the progress of a pull"},
        {HEAD "{\"error\":{}}\n" DONE, ERROR_PROTOCOL, "not the progress of a pull"},
        {HEAD "{\"errorDetail\":{}}\n" DONE, ERROR_ENGINE, "no reason"},
        {HEAD "{\"error\":\"\\u0000\"}\n" DONE, ERROR_PROTOCOL, ""},
        {HEAD "{\"error\":\"a\\u001b[31m\\nb\"}\n" DONE, ERROR_ENGINE, "a [31m b"},
        {HEAD "\xff\xfe\n" DONE, ERROR_PROTOCOL, "not JSON"},
        {HEAD, ERROR_UNAVAILABLE, "in the middle"},
        {HEAD "\n\n\r\n", ERROR_UNAVAILABLE, "in the middle"},
        {HEAD LAYER("Status: x", "Status: done"), ERROR_UNAVAILABLE, "in the middle"},
        {"HTTP/1.1 204 No Content\r\n\r\n", ERROR_UNAVAILABLE, "in the middle"},
        {"HTTP/1.1 304 Not Modified\r\n\r\n", ERROR_UNAVAILABLE, "in the middle"},
        {"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", ERROR_ENGINE, "status 500"},
    };
    struct world *w = *state;
    struct pulling pulling;
    world_open(w, NULL, 5000, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        pull(w, &pulling, rows[i].reply, 0);
        if (pulling.result.error.code == ERROR_NONE)
            fail_msg("a success: %s", rows[i].reply);
        expect_error(&pulling.result, rows[i].code, rows[i].words);
    }
}

void test_pull_errors(void **state)
{
    static const struct {
        const char *words;
        enum error_code code;
        const char *hint;
    } rows[] = {
        {"manifest for " IMAGE " not found: manifest unknown: manifest unknown", ERROR_NOT_FOUND, "manifest unknown"},
        {"pull access denied for team/agent, repository does not exist or may require 'docker login': denied: "
         "requested access to the resource is denied",
         ERROR_NOT_FOUND, "registryAuth"},
        {"Head \\\"http://r/v2/team/agent/manifests/1\\\": no basic auth credentials", ERROR_DENIED, "registryAuth"},
        {"unauthorized: authentication required", ERROR_DENIED, "registryAuth"},
        {"Get http://r/v2/: unauthorized: incorrect username or password", ERROR_DENIED, "registryAuth"},
        {"denied: requested access to the resource is denied", ERROR_DENIED, "registryAuth"},
        {"Get http://r/v2/: dial tcp 127.0.0.1:5000: connect: connection refused", ERROR_UNAVAILABLE, "is it running"},
        {"Get https://r/v2/: dial tcp: lookup r: no such host", ERROR_UNAVAILABLE, "does not know its name"},
        {"Get https://r/v2/: dial tcp 10.0.0.1:443: i/o timeout", ERROR_UNAVAILABLE, "cannot be reached"},
        {"http: server gave HTTP response to HTTPS client", ERROR_UNAVAILABLE, "insecure-registries"},
        {"x509: certificate signed by unknown authority", ERROR_UNAVAILABLE, "/etc/docker/certs.d"},
        {"unexpected EOF", ERROR_UNAVAILABLE, "went away"},
        {"no matching manifest for linux/amd64 in the manifest list entries", ERROR_ENGINE, "other architectures"},
        {"toomanyrequests: You have reached your pull rate limit", ERROR_UNAVAILABLE, "pause"},
        {"write /var/lib/docker/tmp/x: no space left on device", ERROR_ENGINE, "no space left"},
    };
    struct world *w = *state;
    struct pulling pulling;
    world_open(w, NULL, 5000, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char reply[1024];
        snprintf(reply, sizeof(reply), HEAD "%s{\"errorDetail\":{\"message\":\"%s\"},\"error\":\"%s\"}\r\n",
                 LAYER("aaaaaaaaaaaa", "Waiting"), rows[i].words, rows[i].words);
        pull(w, &pulling, reply, 0);
        expect_error(&pulling.result, rows[i].code, rows[i].hint);
        expect_error(&pulling.result, rows[i].code, "pull image " IMAGE ": ");
        snprintf(reply, sizeof(reply), "HTTP/1.1 500 Oh\r\nContent-Length: %zu\r\n\r\n{\"message\":\"%s\"}",
                 strlen(rows[i].words) + strlen("{\"message\":\"\"}"), rows[i].words);
        pull(w, &pulling, reply, 0);
        expect_error(&pulling.result, rows[i].code, rows[i].hint);
        expect_error(&pulling.result, rows[i].code, "pull image " IMAGE ": ");
    }
}

/* An image's name is no diagnosis. */
void test_pull_misleading_name(void **state)
{
    struct world *w = *state;
    struct pulling pulling = pull_begin(w);
    world_open(w, HEAD "{\"error\":\"Get http://r/v2/team/denied/manifests/1: connection refused\"}\n", 5000, 0);
    CALL(w->f, engine_image_pull(w->f->engine, "r.example/team/denied:1", NULL, NULL, on_done, &pulling));
    expect_error(&pulling.result, ERROR_UNAVAILABLE, "is it running");
}

void test_pull_too_much(void **state)
{
    struct world *w = *state;
    struct buffer reply = {0};
    struct pulling pulling;
    world_open(w, NULL, 5000, 0);
    buffer_append_string(&reply, HEAD "{\"status\":\"");
    memset(buffer_reserve(&reply, 3U << 20), 'x', 3U << 20);
    buffer_commit(&reply, 3U << 20);
    buffer_append_string(&reply, "\"}\n" DONE);
    pull(w, &pulling, (const char *)buffer_data(&reply), buffer_length(&reply));
    expect_error(&pulling.result, ERROR_PROTOCOL, "more than 1 MiB");
    buffer_consume(&reply, buffer_length(&reply));
    buffer_append_string(&reply, HEAD);
    for (unsigned i = 0; i < 5000; i++)
        buffer_printf(&reply, "{\"status\":\"Already exists\",\"id\":\"%u\"}\n", i);
    buffer_append_string(&reply, DONE);
    pull(w, &pulling, (const char *)buffer_data(&reply), buffer_length(&reply));
    expect_ok(&pulling.result);
    assert_int_equal(pulling.heard.last.layers, 1000);
    buffer_free(&reply);
    /* Numbers that are none of bytes. */
    pull(w, &pulling,
         HEAD LOADING("a", 9223372036854775807, 9223372036854775807) LOADING("b", 9223372036854775807, 5)
             LOADING("c", 9223372036854775807, 9223372036854775807) LOADING("d", -5, -7) LOADING("e", "x", {})
                 LOADING("f", 1.5, null) LOADING("g", 7, 0) DONE,
         0);
    expect_ok(&pulling.result);
    assert_true(pulling.heard.last.bytes == UINT64_MAX && pulling.heard.last.total_bytes == UINT64_MAX);
}

static void secret_nowhere(struct world *w, struct pulling *pulling, const char *secret)
{
    wait_answer(&pulling->result);
    assert_int_equal(pulling->result.answers, 1);
    assert_int_not_equal(pulling->result.error.code, ERROR_NONE);
    if (strstr(pulling->result.error.message, secret) != NULL || strstr(w->f->logged, secret) != NULL)
        fail_msg("%s", pulling->result.error.message);
}

#define BASE64                                                                                                         \
    "eyJ1c2VybmFtZSI6ImFnZW50IiwicGFzc3dvcmQiOiJzM2NyZXQ-d29yZD8iLCJzZXJ2ZXJhZGRyZXNzIjoicmVnaXN0cnkuZXhhbXBsZTo1MDAw" \
    "In0="

/* Whoever echoes what it was sent tells it to nobody. */
void test_pull_keeps_secrets(void **state)
{
    struct world *w = *state;
    static const struct registry_auth login = {
        .username = "agent", .password = "s3cret>word?", .server = "registry.example:5000"};
    static const struct registry_auth token = {.identity_token = "t0ken-of-mine"};
    static const char *const replies[] = {
        HEAD "{\"error\":\"no user agent with s3cret>word? or t0ken-of-mine or " BASE64 "\"}\n",
        "HTTP/1.1 401 No\r\n\r\n{\"message\":\"no user agent with s3cret>word? or t0ken-of-mine or " BASE64 "\"}",
        "HTTP/1.1 500 No\r\n\r\ns3cret>word? or t0ken-of-mine or " BASE64,
        HEAD "{\"s3cret>word?t0ken-of-mine" BASE64 "\n",
    };
    world_open(w, NULL, 5000, 0);
    w->fake.hang_up = true;
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        struct pulling pulling = pull_begin(w), with_token = pull_begin(w);
        w->fake.reply = replies[i];
        CALL(w->f, engine_image_pull(w->f->engine, IMAGE, &login, NULL, on_done, &pulling));
        secret_nowhere(w, &pulling, "s3cret");
        secret_nowhere(w, &pulling, "eyJ1c2Vy");
        assert_non_null(strstr(w->fake.head, "\r\nX-Registry-Auth: "));
        assert_non_null(strstr(w->fake.head, BASE64));
        CALL(w->f, engine_image_pull(w->f->engine, IMAGE, &token, NULL, on_done, &with_token));
        secret_nowhere(w, &with_token, "t0ken");
        assert_non_null(strstr(w->fake.head, "X-Registry-Auth: eyJpZGVudGl0eXRva2VuIjoidDBrZW4tb2YtbWluZSJ9\r\n"));
    }
    /* A text that is cut in the middle of it. */
    for (size_t length = 200; length < 420; length++) {
        char reply[1024], filler[512];
        struct pulling pulling = pull_begin(w);
        memset(filler, 'x', length);
        filler[length] = '\0';
        snprintf(reply, sizeof(reply), "HTTP/1.1 500 No\r\n\r\n{\"message\":\"%s%s\"}", filler, login.password);
        w->fake.reply = reply;
        CALL(w->f, engine_image_pull(w->f->engine, IMAGE, &login, NULL, on_done, &pulling));
        secret_nowhere(w, &pulling, "s3c");
    }
}

void test_pull_references(void **state)
{
    static const char *const rows[][2] = {
        {"busybox", "/v1.41/images/create?fromImage=busybox&tag=latest\n"},
        {"busybox:1.36", "/v1.41/images/create?fromImage=busybox&tag=1.36\n"},
        {"r.example:5000/a/b", "/v1.41/images/create?fromImage=r.example:5000/a/b&tag=latest\n"},
        {"r.example:5000/a/b:c", "/v1.41/images/create?fromImage=r.example:5000/a/b&tag=c\n"},
        {"r.example:5000/a@" DIGEST, "/v1.41/images/create?fromImage=r.example:5000/a&tag=" DIGEST "\n"},
        {"a:1@" DIGEST, "/v1.41/images/create?fromImage=a&tag=" DIGEST "\n"},
    };
    static const char *const wrong[] = {"", "a b", "a&tag=b", "a\r\nX: y", "a?b", "../a", "a:", "a@", "-a", NULL};
    static const struct registry_auth latin = {.username = "agent", .password = "\xe9\xe8"};
    struct world *w = *state;
    world_open(w, HEAD DONE, 5000, 0);
    w->fake.hang_up = true;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pulling pulling = pull_begin(w);
        w->fake.paths[0] = '\0';
        CALL(w->f, engine_image_pull(w->f->engine, rows[i][0], NULL, NULL, on_done, &pulling));
        expect_ok(&pulling.result);
        assert_string_equal(w->fake.paths, rows[i][1]);
        assert_non_null(strstr(w->fake.head, "\r\nX-Registry-Auth: e30=\r\n"));
    }
    unsigned asked = w->fake.requests;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct pulling pulling = pull_begin(w);
        CALL(w->f, engine_image_pull(w->f->engine, wrong[i], NULL, NULL, on_done, &pulling));
        expect_error(&pulling.result, ERROR_INVALID, "not an image reference");
    }
    struct pulling pulling = pull_begin(w);
    CALL(w->f, engine_image_pull(w->f->engine, IMAGE, &latin, NULL, on_done, &pulling));
    expect_error(&pulling.result, ERROR_INVALID, "UTF-8");
    assert_int_equal(w->fake.requests, asked);
}

/* It waits for twice the time of a request, counted from the last word, and takes nobody's place meanwhile. */
void test_pull_stall(void **state)
{
    struct world *w = *state;
    struct pulling silent = pull_begin(w), begun = pull_begin(w);
    struct result other = result_of(w->f);
    struct fixture *f = world_open(w, NULL, 300, 1);
    uint64_t from = uv_hrtime();
    CALL(f, engine_image_pull(f->engine, IMAGE, NULL, NULL, on_done, &silent));
    CALL(f, engine_image_pull(f->engine, IMAGE, NULL, on_pull_progress, on_done, &begun));
    CALL(f, engine_container_start(f->engine, ID, on_done, &other));
    wait_ms(f, 400);
    assert_int_equal(w->fake.requests, 3);
    static const char words[] = HEAD LAYER("aaaaaaaaaaaa", "Waiting");
    fake_send_stalled(&w->fake, words, sizeof(words) - 1); /* to those that are still there */
    expect_error(&other, ERROR_TIMEOUT, "within 300 ms");
    expect_error(&silent.result, ERROR_TIMEOUT, "no answer within 600 ms");
    expect_error(&begun.result, ERROR_TIMEOUT, "no answer within 600 ms");
    assert_in_range((uv_hrtime() - from) / 1000000, 990, 10000);
}

void test_pull_of_closed(void **state)
{
    struct world *w = *state;
    struct pulling asked = pull_begin(w), loading = pull_begin(w), late = pull_begin(w);
    struct fixture *f = world_open(w, NULL, 5000, 0);
    CALL(f, engine_image_pull(f->engine, IMAGE, NULL, NULL, on_done, &asked));
    CALL(f, engine_image_pull(f->engine, IMAGE, NULL, NULL, on_done, &loading));
    wait_ms(f, 50);
    static const char words[] = HEAD LOADING("aaaaaaaaaaaa", 1, 5);
    fake_send_stalled(&w->fake, words, sizeof(words) - 1);
    wait_ms(f, 50);
    CALL(f, engine_image_pull(f->engine, IMAGE, NULL, NULL, on_done, &late));
    fixture_close(f);
    expect_error(&asked.result, ERROR_CANCELLED, "closed");
    expect_error(&loading.result, ERROR_CANCELLED, "closed");
    expect_error(&late.result, ERROR_CANCELLED, "closed");
}

/* Podman says no last word: the image has to be there. */
void test_pull_by_podman(void **state)
{
    static const struct {
        const char *reply;
        enum error_code code;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"Id\":\"sha256:0123\"}", ERROR_NONE},
        {"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", ERROR_UNAVAILABLE},
        {"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", ERROR_ENGINE},
    };
    struct world *w = *state;
    w->fake.version = "{\"ApiVersion\":\"1.41\",\"Version\":\"4.3.1\",\"Components\":[{\"Name\":\"Podman Engine\"}]}";
    struct fixture *f = world_open(w, NULL, 5000, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pulling pulling = pull_begin(w);
        CALL(f, engine_image_pull(f->engine, IMAGE, NULL, NULL, on_done, &pulling));
        wait_ms(f, 50);
        fake_answer_stalled(&w->fake, "HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n{\"status\":\"Writing...\"}\n");
        wait_ms(f, 50);
        assert_int_equal(pulling.result.answers, 0);
        assert_non_null(strstr(w->fake.paths, "/images/" IMAGE "/json\n"));
        fake_answer_stalled(&w->fake, rows[i].reply);
        wait_answer(&pulling.result);
        assert_int_equal(pulling.result.error.code, rows[i].code);
    }
}
