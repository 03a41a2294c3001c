/* A stand-in for engines that are not here: a proxy at a unix socket in front of the real one.
 *
 *     engine-double --listen PATH [--engine PATH] [--speak 1.44-1.51] [--match "POST /containers/create"]
 *                   [--slow MS] [--garbage N] [--half N] [--hang N]
 *
 * --speak: only these versions of the API are there; others are refused in Docker's words. What is asked for in one of
 * them goes to the real engine without a version. The faults are counted among the requests that --match names ("METHOD
 * /path" without version, from the beginning; without it, all but /version): the Nth answer, from 1, is
 * garbage, ends in its middle, or never comes; --slow is for each of them.
 *
 * Each request has a connection of its own to the engine, and the client's is closed after it: so nothing has to be
 * known of lengths, and endless and hijacked answers just flow. Says a line for every request: METHOD PATH STATUS. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/buffer.h"
#include "rules.h"

#define HEAD_MAX  65536U
#define QUEUE_MAX (1024U * 1024U) /* of bytes that one side has not taken */

struct settings {
    const char *listen, *engine, *match;
    struct speech speech;
    unsigned slow_ms, garbage, half, hang;
};

static struct settings settings = {.engine = "/var/run/docker.sock"};
static unsigned matched;

enum phase { PHASE_REQUEST, PHASE_BODY, PHASE_ANSWER, PHASE_SLOW, PHASE_FLOW, PHASE_DEAF };
enum fault { FAULT_NONE, FAULT_GARBAGE, FAULT_HALF, FAULT_HANG };

struct side {
    uv_pipe_t pipe; /* first */
    struct link *link;
    struct side *other;
    bool ended; /* wrote its last */
};

struct link {
    struct side client, engine;
    uv_connect_t connect;
    uv_timer_t timer;
    struct buffer in;  /* the request, until it has gone on */
    struct buffer out; /* the answer, until it may */
    char method[16], path[2048];
    enum phase phase;
    enum fault fault;
    enum rule rule;
    size_t body_size; /* of a request that has to be seen whole */
    bool whole;       /* so has the answer */
    bool hijack, slow, closing;
    unsigned handles;
};

struct write {
    uv_write_t request; /* first */
    struct side *to;
    uint8_t *data;
    bool last;
};

/* --- the two pipes -------------------------------------------------------------------------------- */

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *piece);

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    static char memory[65536];
    (void)handle, (void)suggested;
    *out = uv_buf_init(memory, sizeof(memory));
}

static void side_read(struct side *side)
{
    if (!side->link->closing)
        uv_read_start((uv_stream_t *)&side->pipe, on_allocate, on_read);
}

static void on_closed(uv_handle_t *handle)
{
    struct link *link = handle->data;
    if (--link->handles > 0)
        return;
    buffer_free(&link->in);
    buffer_free(&link->out);
    free(link);
}

static void link_close(struct link *link)
{
    if (link->closing)
        return;
    link->closing = true;
    link->client.pipe.data = link->engine.pipe.data = link->timer.data = link;
    uv_close((uv_handle_t *)&link->client.pipe, on_closed);
    uv_close((uv_handle_t *)&link->engine.pipe, on_closed);
    uv_close((uv_handle_t *)&link->timer, on_closed);
}

/* The client may send while the answer is waited for, the engine only when that flows. */
static bool may_read(const struct side *side)
{
    const struct link *link = side->link;
    return !side->ended && (link->phase == PHASE_FLOW || (link->phase == PHASE_ANSWER && side == &link->client));
}

static void on_written(uv_write_t *request, int status)
{
    struct write *write = (struct write *)(void *)request;
    struct side *to = write->to;
    bool last = write->last;
    free(write->data);
    free(write);
    if (to->link->closing)
        return;
    if (status < 0 || last)
        link_close(to->link);
    else if (uv_stream_get_write_queue_size((uv_stream_t *)&to->pipe) < QUEUE_MAX && may_read(to->other))
        side_read(to->other);
}

/* `last`: all is closed once this is written. */
static void side_write(struct side *to, const void *data, size_t size, bool last)
{
    struct write *write = calloc(1, sizeof(*write));
    if (write == NULL || (write->data = malloc(size + 1)) == NULL)
        abort();
    memcpy(write->data, data, size);
    write->to = to;
    write->last = last;
    uv_buf_t piece = uv_buf_init((char *)write->data, (unsigned)size);
    if (uv_write(&write->request, (uv_stream_t *)&to->pipe, &piece, 1, on_written) < 0) {
        free(write->data);
        free(write);
        link_close(to->link);
    } else if (uv_stream_get_write_queue_size((uv_stream_t *)&to->pipe) >= QUEUE_MAX) {
        uv_read_stop((uv_stream_t *)&to->other->pipe);
    }
}

static void on_shut(uv_shutdown_t *request, int status)
{
    (void)status;
    free(request);
}

static void side_end(struct side *to)
{
    uv_shutdown_t *request = calloc(1, sizeof(*request));
    if (request == NULL || uv_shutdown(request, (uv_stream_t *)&to->pipe, on_shut) < 0)
        free(request);
}

/* --- answers -------------------------------------------------------------------------------------- */

static void say(const struct link *link, int status)
{
    printf("%s %s %d\n", link->method, link->path, status);
    fflush(stdout);
}

static void answer_words(struct link *link, int status, const char *words)
{
    struct buffer text = {0};
    char body[512];
    bool ping = status == 200;
    snprintf(body, sizeof(body), ping ? "OK" : "{\"message\":\"%s\"}\n", words);
    buffer_printf(&text,
                  "HTTP/1.1 %d %s\r\nApi-Version: 1.%d\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                  "Connection: close\r\n\r\n%s",
                  status, ping ? "OK" : "Bad Request", settings.speech.most, ping ? "text/plain" : "application/json",
                  strlen(body), strcmp(link->method, "HEAD") == 0 ? "" : body);
    say(link, status);
    link->phase = PHASE_DEAF;
    side_write(&link->client, buffer_data(&text), buffer_length(&text), true);
    buffer_free(&text);
}

/* The end of the head at the beginning of `in`; 0: not there yet. */
static size_t head_length(const struct buffer *in)
{
    const uint8_t *end = memmem(buffer_data(in), buffer_length(in), "\r\n\r\n", 4);
    return end != NULL ? (size_t)(end - buffer_data(in)) + 4 : 0;
}

/* The head without the headers named, each "\r\nName:". */
static void head_copy(struct buffer *out, const char *head, size_t size, const char *const *without)
{
    while (size > 2) {
        const char *end = memmem(head, size, "\r\n", 2);
        size_t line = (size_t)(end - head) + 2;
        bool drop = false;
        for (const char *const *name = without; *name != NULL; name++)
            drop |= strncasecmp(head, *name, strlen(*name)) == 0;
        if (!drop)
            buffer_append(out, head, line);
        head += line;
        size -= line;
    }
}

/* One that was waited for to its end. */
static void answer_whole(struct link *link)
{
    static const char *const without[] = {"Content-Length:", "Transfer-Encoding:", "Connection:", "Api-Version:", NULL};
    struct buffer body = {0}, text = {0};
    size_t head = head_length(&link->out);
    buffer_append(&body, buffer_data(&link->out) + head, buffer_length(&link->out) - head);
    speech_body(&settings.speech, link->rule, &body);
    head_copy(&text, (const char *)buffer_data(&link->out), head, without);
    buffer_printf(&text, "Api-Version: 1.%d\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", settings.speech.most,
                  buffer_length(&body));
    buffer_append(&text, buffer_data(&body), buffer_length(&body));
    side_write(&link->client, buffer_data(&text), buffer_length(&text), true);
    buffer_free(&body);
    buffer_free(&text);
}

static void answer_go_on(struct link *link)
{
    static const char garbage[] = "\x16\x03\x01\xff\xfe{]}HTTP/9.9 garbage\r\n\r\n\x00{\"message\":";
    size_t size = buffer_length(&link->out), head = head_length(&link->out);
    if (link->fault == FAULT_GARBAGE) {
        side_write(&link->client, garbage, sizeof(garbage), true);
    } else if (link->fault == FAULT_HALF) {
        side_write(&link->client, buffer_data(&link->out), size > head ? head + (size - head) / 2 : size / 2, true);
    } else if (link->fault == FAULT_NONE && link->whole) {
        answer_whole(link);
    } else if (link->fault == FAULT_NONE) {
        link->phase = PHASE_FLOW;
        side_write(&link->client, buffer_data(&link->out), size, link->engine.ended);
        side_read(&link->engine);
        return;
    }
    link->phase = PHASE_DEAF;
}

static void on_slow(uv_timer_t *timer)
{
    answer_go_on(((struct side *)timer->data)->link);
}

static void answer_begin(struct link *link)
{
    int status = 0;
    sscanf((const char *)buffer_data(&link->out), "HTTP/1.%*d %d", &status);
    say(link, status);
    uv_read_stop((uv_stream_t *)&link->engine.pipe);
    if (!link->slow) {
        answer_go_on(link);
        return;
    }
    link->phase = PHASE_SLOW;
    uv_timer_start(&link->timer, on_slow, settings.slow_ms, 0);
}

static void answer_more(struct link *link, const uint8_t *data, size_t size, bool end)
{
    buffer_append(&link->out, data, size);
    size_t head = head_length(&link->out);
    if (head == 0 && end) {
        link_close(link);
        return;
    }
    bool wants_body = link->whole || (link->fault == FAULT_HALF && buffer_length(&link->out) == head);
    if (head > 0 && (end || !wants_body))
        answer_begin(link);
}

/* --- requests ------------------------------------------------------------------------------------- */

static enum fault fault_next(struct link *link)
{
    char line[sizeof(link->method) + sizeof(link->path)];
    int version = 0;
    if (sscanf(link->path, "/v1.%*d%n", &version) == EOF)
        version = 0;
    snprintf(line, sizeof(line), "%s %s", link->method, link->path + version);
    if (settings.match != NULL ? strncmp(line, settings.match, strlen(settings.match)) != 0
                               : strcmp(link->path, "/version") == 0)
        return FAULT_NONE;
    link->slow = settings.slow_ms > 0;
    matched++;
    return matched == settings.garbage ? FAULT_GARBAGE
           : matched == settings.half  ? FAULT_HALF
           : matched == settings.hang  ? FAULT_HANG
                                       : FAULT_NONE;
}

static void on_connected(uv_connect_t *request, int status)
{
    struct link *link = request->data;
    if (link->closing)
        return;
    if (status < 0) {
        link_close(link);
        return;
    }
    side_write(&link->engine, buffer_data(&link->in), buffer_length(&link->in), false);
    buffer_free(&link->in);
    link->phase = PHASE_ANSWER;
    side_read(&link->engine);
    side_read(&link->client);
}

/* Complete, as far as it has to be. */
static void request_send(struct link *link)
{
    static const char *const without[] = {"Connection:", "Content-Length:", NULL};
    static const char *const without_connection[] = {"Connection:", NULL};
    static const char *const nothing[] = {NULL};
    struct buffer text = {0}, body = {0};
    size_t head = head_length(&link->in);
    const char *lines = (const char *)buffer_data(&link->in);
    const char *first_end = memmem(lines, head, "\r\n", 2);
    bool seen = link->body_size > 0;
    buffer_append(&body, lines + head, buffer_length(&link->in) - head);
    if (seen)
        speech_body(&settings.speech, link->rule, &body);
    buffer_printf(&text, "%s %s HTTP/1.%d\r\n", link->method, link->path, link->whole ? 0 : 1);
    head_copy(&text, first_end + 2, head - (size_t)(first_end + 2 - lines),
              link->hijack ? nothing
              : seen       ? without
                           : without_connection);
    if (!link->hijack)
        buffer_append_string(&text, "Connection: close\r\n");
    if (seen)
        buffer_printf(&text, "Content-Length: %zu\r\n", buffer_length(&body));
    buffer_append_string(&text, "\r\n");
    buffer_append(&text, buffer_data(&body), buffer_length(&body));
    buffer_free(&body);
    buffer_free(&link->in);
    link->in = text;
    uv_read_stop((uv_stream_t *)&link->client.pipe);
    link->connect.data = link;
    uv_pipe_connect(&link->connect, &link->engine.pipe, settings.engine, on_connected);
}

static bool header_has(const char *head, const char *name)
{
    return strcasestr(head, name) != NULL;
}

static void request_begin(struct link *link, size_t head)
{
    char words[256], path[sizeof(link->path)];
    char *text = strndup((const char *)buffer_data(&link->in), head);
    if (text == NULL || sscanf(text, "%15s %2047s", link->method, path) != 2) {
        free(text);
        link_close(link);
        return;
    }
    snprintf(link->path, sizeof(link->path), "%s", path);
    const char *plain = speech_path(&settings.speech, path, words, sizeof(words));
    const char *length = strcasestr(text, "\r\nContent-Length:");
    size_t body = length != NULL ? strtoul(strchr(length + 2, ':') + 1, NULL, 10) : 0;
    link->hijack = header_has(text, "\r\nUpgrade:");
    free(text);
    if (plain == NULL) {
        answer_words(link, 400, words);
        return;
    }
    if (settings.speech.most > 0 && strcmp(plain, "/_ping") == 0) {
        answer_words(link, 200, "");
        return;
    }
    memmove(link->path, link->path + (plain - path), strlen(plain) + 1);
    link->fault = fault_next(link);
    link->rule = speech_rule(&settings.speech, link->method, link->path);
    link->whole = link->rule == RULE_VERSION || link->rule == RULE_INSPECT_IMAGE;
    if (link->rule == RULE_CREATE_CONTAINER || link->rule == RULE_CREATE_NETWORK)
        link->body_size = body;
    link->phase = PHASE_BODY;
}

static void request_more(struct link *link, const uint8_t *data, size_t size)
{
    buffer_append(&link->in, data, size);
    size_t head = head_length(&link->in);
    if (head == 0) {
        if (buffer_length(&link->in) > HEAD_MAX)
            link_close(link);
        return;
    }
    if (link->phase == PHASE_REQUEST)
        request_begin(link, head);
    if (link->phase == PHASE_BODY && !link->closing && buffer_length(&link->in) - head >= link->body_size)
        request_send(link);
}

/* --- both ways ------------------------------------------------------------------------------------ */

static void on_end(struct side *side)
{
    struct link *link = side->link;
    side->ended = true;
    uv_read_stop((uv_stream_t *)&side->pipe);
    if (side == &link->client && link->phase != PHASE_ANSWER && link->phase != PHASE_FLOW && link->phase != PHASE_SLOW)
        link_close(link);
    else if (side == &link->client)
        side_end(&link->engine);
    else if (link->phase == PHASE_ANSWER)
        answer_more(link, NULL, 0, true);
    else
        side_write(&link->client, "", 0, true);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *piece)
{
    struct side *side = stream->data;
    struct link *link = side->link;
    const uint8_t *data = (const uint8_t *)piece->base;
    if (size == UV_EOF)
        on_end(side);
    else if (size < 0)
        link_close(link);
    else if (side == &link->client && (link->phase == PHASE_REQUEST || link->phase == PHASE_BODY))
        request_more(link, data, (size_t)size);
    else if (side == &link->client)
        side_write(&link->engine, data, (size_t)size, false);
    else if (link->phase == PHASE_ANSWER)
        answer_more(link, data, (size_t)size, false);
    else
        side_write(&link->client, data, (size_t)size, false);
}

static void on_client(uv_stream_t *listener, int status)
{
    struct link *link = calloc(1, sizeof(*link));
    if (link == NULL || status < 0)
        abort();
    link->client.link = link->engine.link = link;
    link->client.other = &link->engine;
    link->engine.other = &link->client;
    uv_pipe_init(listener->loop, &link->client.pipe, 0);
    uv_pipe_init(listener->loop, &link->engine.pipe, 0);
    uv_timer_init(listener->loop, &link->timer);
    link->client.pipe.data = link->timer.data = &link->client;
    link->engine.pipe.data = &link->engine;
    link->handles = 3;
    if (uv_accept(listener, (uv_stream_t *)&link->client.pipe) < 0)
        link_close(link);
    else
        side_read(&link->client);
}

static void on_signal(uv_signal_t *handle, int number)
{
    (void)number;
    uv_stop(handle->loop);
}

/* --- the program ---------------------------------------------------------------------------------- */

static int settings_read(int argc, char *argv[])
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp(name, "--listen") == 0)
            settings.listen = value;
        else if (strcmp(name, "--engine") == 0)
            settings.engine = value;
        else if (strcmp(name, "--match") == 0)
            settings.match = value;
        else if (strcmp(name, "--speak") == 0 && speech_parse(&settings.speech, value) == 0)
            ;
        else if (strcmp(name, "--slow") == 0)
            settings.slow_ms = (unsigned)atoi(value);
        else if (strcmp(name, "--garbage") == 0)
            settings.garbage = (unsigned)atoi(value);
        else if (strcmp(name, "--half") == 0)
            settings.half = (unsigned)atoi(value);
        else if (strcmp(name, "--hang") == 0)
            settings.hang = (unsigned)atoi(value);
        else
            return -1;
    }
    return argc % 2 == 1 && settings.listen != NULL ? 0 : -1;
}

int main(int argc, char *argv[])
{
    uv_loop_t *loop = uv_default_loop();
    uv_pipe_t listener;
    uv_signal_t term;
    if (settings_read(argc, argv) < 0) {
        fprintf(stderr, "usage: engine-double --listen PATH [--engine PATH] [--speak 1.44-1.51] [--match WORDS]\n"
                        "           [--slow MS] [--garbage N] [--half N] [--hang N]\n");
        return 2;
    }
    uv_pipe_init(loop, &listener, 0);
    uv_signal_init(loop, &term);
    uv_signal_start(&term, on_signal, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    unlink(settings.listen);
    int r = uv_pipe_bind(&listener, settings.listen);
    if (r == 0)
        r = uv_listen((uv_stream_t *)&listener, 128, on_client);
    if (r < 0) {
        fprintf(stderr, "engine-double: %s: %s\n", settings.listen, uv_strerror(r));
        return 1;
    }
    uv_run(loop, UV_RUN_DEFAULT);
    unlink(settings.listen);
    return 0;
}
