/* GET /v1/events: server-sent events. Each subscriber has a cursor into the executor's ring and takes from it what its
 * connection can carry; who is too slow is told how much was lost and cut off. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "api/internal.h"
#include "base/clock.h"
#include "telemetry/events.h"

#define STREAM_BLOCK    16384U
#define PIECE_BYTES     32768U /* of events, made at once */
#define KEEP_ALIVE_MS   15000U /* the longest silence */
#define LOOK_MS         5000U  /* so often silence is looked for */
#define SUBSCRIBERS_MAX 64U    /* the other connections are for tasks */

struct subscriber {
    struct list link; /* in server.subscribers */
    struct exchange *exchange;
    struct event_cursor cursor;
    uint32_t types;                      /* bits; of those it wants */
    char agent_type[AGENT_TYPE_MAX + 1]; /* ""; all */
    bool follow;                         /* else it ends with what has happened already */
    bool last;                           /* nothing more after what is in the answer */
    uint64_t spoken_ms;
};

_Static_assert(EVENT_TYPES <= 32, "types are bits of 32");

static void wake(struct subscriber *subscriber)
{
    exchange_resume(subscriber->exchange);
}

/* Its connection takes nothing any more, and what it has not read is overwritten already. */
static void cut_off(struct subscriber *subscriber)
{
    struct exchange *exchange = subscriber->exchange;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(exchange->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    log_info(exchange->server->log, "a reader of events was too slow and is cut off: %llu are overwritten already",
             (unsigned long long)(executor_events(exchange->server->executor)->tail_id - subscriber->cursor.id));
    exchange->ended = true;
    if (info != NULL)
        shutdown(info->connect_fd, SHUT_RDWR);
}

/* After each event; libmicrohttpd is run once for all that this turn of the loop brings. */
static void on_event(void *user)
{
    struct api_server *server = user;
    uv_timer_start(&server->events_timer, events_flush, 0, LOOK_MS);
}

void events_flush(uv_timer_t *timer)
{
    struct api_server *server = timer->data;
    const struct event_log *log = server->executor == NULL ? NULL : executor_events(server->executor);
    list_for_each (node, &server->subscribers) {
        struct subscriber *subscriber = list_entry(node, struct subscriber, link);
        bool stuck = log != NULL && subscriber->cursor.id < log->tail_id && !subscriber->exchange->suspended;
        if (stuck && !subscriber->exchange->ended)
            cut_off(subscriber);
        wake(subscriber);
    }
    if (!list_empty(&server->subscribers))
        server_run(server);
}

static void listen_to_events(struct api_server *server)
{
    if (server->executor == NULL)
        return;
    struct event_log *log = executor_events(server->executor);
    log->listener = list_empty(&server->subscribers) ? NULL : on_event;
    log->listener_user = server;
    if (list_empty(&server->subscribers))
        uv_timer_stop(&server->events_timer);
    else if (!uv_is_active((uv_handle_t *)&server->events_timer))
        uv_timer_start(&server->events_timer, events_flush, LOOK_MS, LOOK_MS);
}

/* --- one subscriber ------------------------------------------------------------------------------------------ */

/* A comment, and the id of what it has got or did not want: a client that comes back with it misses nothing and is told
 * nothing twice, even if it has not seen an event yet. */
static void say_place(struct subscriber *subscriber)
{
    const struct event_log *log = executor_events(subscriber->exchange->server->executor);
    buffer_printf(&subscriber->exchange->answer, ":\nid: %s-%llu\n\n", log->run,
                  (unsigned long long)subscriber->cursor.id - 1);
}

/* `missed` is JSON. */
static void say_gap(struct subscriber *subscriber, const char *missed, const char *text)
{
    const struct event_log *log = executor_events(subscriber->exchange->server->executor);
    buffer_printf(&subscriber->exchange->answer,
                  "id: %s-%llu\nevent: gap\ndata: {\"type\":\"gap\",\"missed\":%s,\"text\":\"%s\"}\n\n", log->run,
                  (unsigned long long)subscriber->cursor.id - 1, missed, text);
}

static void say_missed(struct subscriber *subscriber, uint64_t missed, const char *text)
{
    char number[24];
    snprintf(number, sizeof number, "%llu", (unsigned long long)missed);
    say_gap(subscriber, number, text);
}

static bool wants(const struct subscriber *subscriber, const struct event *event)
{
    if ((subscriber->types & (1U << event->type)) == 0)
        return false;
    return subscriber->agent_type[0] == '\0' ||
           (event->agent_type != NULL && strcmp(event->agent_type, subscriber->agent_type) == 0);
}

/* Puts what has happened into the answer, a piece at a time. */
static void take_events(struct subscriber *subscriber)
{
    struct exchange *exchange = subscriber->exchange;
    struct event_log *log = executor_events(exchange->server->executor);
    struct event event;
    uint64_t missed = event_cursor_missed(log, &subscriber->cursor);
    if (missed > 0) {
        say_missed(subscriber, missed, "events come faster than they are read");
        subscriber->last = true;
        return;
    }
    while (buffer_length(&exchange->answer) < PIECE_BYTES && event_next(log, &subscriber->cursor, &event)) {
        if (!wants(subscriber, &event))
            continue;
        buffer_printf(&exchange->answer, "id: %s-%llu\nevent: %s\ndata: ", log->run, (unsigned long long)event.id,
                      event_type_name(event.type));
        event_write(&exchange->answer, log, &event);
        buffer_append_string(&exchange->answer, "\n\n");
    }
    if (!subscriber->follow && subscriber->cursor.id == log->next_id) {
        buffer_append_string(&exchange->answer, ": end\n\n");
        subscriber->last = true;
    }
}

static ssize_t read_stream(void *user, uint64_t position, char *out, size_t most)
{
    struct subscriber *subscriber = user;
    struct exchange *exchange = subscriber->exchange;
    struct api_server *server = exchange->server;
    uint64_t now_ms = clock_us() / 1000;
    (void)position;
    if (exchange->ended)
        return MHD_CONTENT_READER_END_WITH_ERROR; /* the client is gone */
    if (buffer_length(&exchange->answer) == 0 && !subscriber->last) {
        if (server->executor == NULL || server->closing) {
            buffer_append_string(&exchange->answer, "event: stopping\ndata: {\"type\":\"stopping\"}\n\n");
            subscriber->last = true;
        } else {
            take_events(subscriber);
            if (buffer_length(&exchange->answer) == 0 && now_ms - subscriber->spoken_ms > KEEP_ALIVE_MS - LOOK_MS)
                say_place(subscriber);
        }
    }
    size_t size = buffer_length(&exchange->answer);
    if (exchange->answer.failed)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (size == 0 && subscriber->last)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (size == 0) {
        exchange_suspend(exchange);
        return 0;
    }
    subscriber->spoken_ms = now_ms;
    if (size > most)
        size = most;
    memcpy(out, buffer_data(&exchange->answer), size);
    buffer_consume(&exchange->answer, size);
    return (ssize_t)size;
}

void events_unsubscribe(struct exchange *exchange)
{
    struct subscriber *subscriber = exchange->subscriber;
    if (subscriber == NULL)
        return;
    exchange->subscriber = NULL;
    list_remove(&subscriber->link);
    exchange->server->subscriber_count--;
    listen_to_events(exchange->server);
    free(subscriber);
}

void events_stop(struct api_server *server)
{
    if (server->executor != NULL) /* it may outlive the server */
        executor_events(server->executor)->listener = NULL;
    list_for_each (node, &server->subscribers) {
        wake(list_entry(node, struct subscriber, link));
    }
}

/* --- the request -------------------------------------------------------------------------------------------------- */

/* "taskEnded,poolScaled" as bits; 0 when one is not known. */
static uint32_t read_types(const char *text)
{
    uint32_t types = 0;
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        enum event_type type = event_type_find(text, length);
        if (type == EVENT_TYPES)
            return 0;
        types |= 1U << type;
        text += length + (text[length] == ',');
    }
    return types;
}

/* "RUN-ID" of an event of this run gives its id; false for anything else. */
static bool read_id(const struct event_log *log, const char *text, uint64_t *id)
{
    size_t length = strlen(log->run);
    char *end;
    if (strncmp(text, log->run, length) != 0 || text[length] != '-' || text[length + 1] < '0' || text[length + 1] > '9')
        return false;
    *id = strtoull(text + length + 1, &end, 10);
    return *end == '\0' && *id < log->next_id;
}

static void begin_at(struct subscriber *subscriber, const struct event_log *log, const char *since)
{
    uint64_t id = 0;
    if (since == NULL && subscriber->follow) {
        event_cursor_end(log, &subscriber->cursor);
        return;
    }
    bool known = since != NULL && read_id(log, since, &id);
    event_cursor_after(log, &subscriber->cursor, known ? id : 0);
    uint64_t missed = event_cursor_missed(log, &subscriber->cursor);
    if (known && missed > 0)
        say_missed(subscriber, missed, "those are no longer kept");
    else if (since != NULL && !known)
        say_gap(subscriber, "null", "that event is of another run of the daemon");
}

/* NULL: not given, or empty. */
static const char *argument(struct exchange *exchange, enum MHD_ValueKind kind, const char *name)
{
    const char *text = MHD_lookup_connection_value(exchange->connection, kind, name);
    return text == NULL || text[0] == '\0' ? NULL : text;
}

static enum MHD_Result answer(struct exchange *exchange)
{
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, exchange->subscriber, NULL);
    if (response == NULL)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/event-stream");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    enum MHD_Result result = MHD_queue_response(exchange->connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    exchange->answered = true;
    exchange_watch(exchange);
    return result;
}

static struct subscriber *subscribe(struct exchange *exchange, uint32_t types, const char *agent_type, bool follow)
{
    struct api_server *server = exchange->server;
    struct subscriber *subscriber = calloc(1, sizeof *subscriber);
    if (subscriber == NULL)
        return NULL;
    subscriber->exchange = exchange;
    subscriber->types = types;
    subscriber->follow = follow;
    subscriber->spoken_ms = clock_us() / 1000;
    snprintf(subscriber->agent_type, sizeof subscriber->agent_type, "%s", agent_type != NULL ? agent_type : "");
    exchange->subscriber = subscriber;
    list_push_back(&server->subscribers, &subscriber->link);
    server->subscriber_count++;
    listen_to_events(server);
    return subscriber;
}

enum MHD_Result events_get(struct exchange *exchange)
{
    struct api_server *server = exchange->server;
    const char *types = argument(exchange, MHD_GET_ARGUMENT_KIND, "type"),
               *agent_type = argument(exchange, MHD_GET_ARGUMENT_KIND, "agentType"),
               *follow = argument(exchange, MHD_GET_ARGUMENT_KIND, "follow"),
               *since = argument(exchange, MHD_HEADER_KIND, "Last-Event-ID");
    uint32_t wanted = types == NULL ? UINT32_MAX : read_types(types);
    if (since == NULL)
        since = argument(exchange, MHD_GET_ARGUMENT_KIND, "since");
    if (wanted == 0)
        return exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid", "?type= names an event that there is not",
                              "docs/EVENTS.md lists them; several with commas between them");
    if (agent_type != NULL && strlen(agent_type) > AGENT_TYPE_MAX)
        return exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid", "?agentType= is no agent type", "");
    if (follow != NULL && strcmp(follow, "true") != 0 && strcmp(follow, "false") != 0)
        return exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid", "?follow= must be true or false", "");
    if (server->subscriber_count >= SUBSCRIBERS_MAX)
        return exchange_error(exchange, MHD_HTTP_TOO_MANY_REQUESTS, "limit", "64 clients read events already", "");
    struct subscriber *subscriber =
        subscribe(exchange, wanted, agent_type, follow == NULL || strcmp(follow, "true") == 0);
    if (subscriber == NULL)
        return exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "out_of_memory", "out of memory", "");
    begin_at(subscriber, executor_events(server->executor), since);
    say_place(subscriber); /* the head leaves at once */
    return answer(exchange);
}
