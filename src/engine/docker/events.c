/* The event stream: one JSON object a line, for as long as the engine lives.
 *
 *     VERSION --agreed--> OPENING --head arrived--> OPEN
 *        ^  \                |                        |
 *        |   \--- failed ----+------- broke ----------+
 *        |                   v
 *        +---- timer ---- BACKOFF
 *
 * Its owner hears once of an outage, however many attempts that takes, and once of its end. The engine sends the head
 * before it begins to listen to itself, so the request asks for events since the moment it was made: none is lost
 * between "open" and the look at what happened meanwhile. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/docker/docker.h"

#define EVENT_LINE_MAX         (1024U * 1024U)
#define EVENTS_BACKOFF_MS      100U
#define EVENTS_BACKOFF_MOST_MS 10000U
#define EVENTS_STABLE_MS       10000U /* open for so long: the next outage is a new one */

enum events_state { EVENTS_VERSION, EVENTS_OPENING, EVENTS_OPEN, EVENTS_BACKOFF };

struct events {
    struct docker *docker;
    char *key, *value;
    engine_event_fn *event;
    void *user;
    enum events_state state;
    uv_timer_t timer;
    uint32_t backoff_ms;
    uint64_t opened_ms;
    bool told_broken;
    struct buffer line; /* one that has not ended yet */
};

static void events_try(struct events *events);

static uint64_t now_ms(void)
{
    return clock_us() / 1000U;
}

static void on_timer(uv_timer_t *timer)
{
    events_try(timer->data);
}

static void events_broken(struct events *events, const struct error *error)
{
    if (events->docker->closing)
        return;
    if (events->state == EVENTS_OPEN && now_ms() - events->opened_ms >= EVENTS_STABLE_MS)
        events->backoff_ms = EVENTS_BACKOFF_MS;
    events->state = EVENTS_BACKOFF;
    buffer_free(&events->line);
    uv_update_time(events->docker->loop);
    uv_timer_start(&events->timer, on_timer, events->backoff_ms, 0);
    events->backoff_ms *= 2;
    if (events->backoff_ms > EVENTS_BACKOFF_MOST_MS)
        events->backoff_ms = EVENTS_BACKOFF_MOST_MS;
    if (events->told_broken)
        return;
    events->told_broken = true;
    struct error full = *error;
    error_prefix(&full, "watch the engine's events");
    events->event(events->user, NULL, &full);
}

/* --- the stream ----------------------------------------------------------------------------------- */

static void on_opened(void *user)
{
    struct events *events = user;
    events->state = EVENTS_OPEN;
    events->opened_ms = now_ms();
    events->told_broken = false;
    if (!events->docker->closing)
        events->event(events->user, NULL, NULL);
}

static const char *event_label(const struct engine_event *event, const char *key)
{
    return json_string_value(json_object_get(event->opaque, key));
}

static int events_line(struct events *events, const char *line, size_t size, struct error *err)
{
    json_t *json;
    if (reply_json(&json, line, size, err) < 0)
        return -1;
    if (json == NULL)
        return 0;
    bool bad = !json_is_object(json);
    const json_t *actor = member_object(json, "Actor", &bad);
    struct engine_event event = {
        .type = member_string(json, "Type", &bad),
        .action = member_string(json, "Action", &bad),
        .id = member_string(actor, "ID", &bad),
        .label = event_label,
        .opaque = member_object(actor, "Attributes", &bad),
    };
    if (strcmp(event.action, "remove") == 0 && strcmp(event.type, "container") == 0)
        event.action = "destroy"; /* Podman's word for it */
    if (bad)
        reply_malformed(err, "not an event");
    else
        events->event(events->user, &event, NULL);
    json_decref(json);
    return bad ? -1 : 0;
}

static int on_data(void *user, const char *data, size_t size, struct error *err)
{
    struct events *events = user;
    while (size > 0 && !events->docker->closing) {
        const char *newline = memchr(data, '\n', size);
        size_t piece = newline != NULL ? (size_t)(newline - data) : size;
        if (buffer_length(&events->line) + piece > EVENT_LINE_MAX) {
            reply_malformed(err, "an event of more than 1 MiB");
            return -1;
        }
        buffer_append(&events->line, data, piece);
        if (events->line.failed)
            return error_set(err, ERROR_NOMEM, "out of memory");
        if (newline == NULL)
            return 0;
        size_t length = buffer_length(&events->line);
        if (length > 0 && events_line(events, (const char *)buffer_data(&events->line), length, err) < 0)
            return -1;
        buffer_consume(&events->line, length);
        data += piece + 1;
        size -= piece + 1;
    }
    return 0;
}

static void on_done(void *user, int status, const char *body, size_t size, const struct error *error)
{
    struct events *events = user;
    struct error trouble = ERROR_INIT;
    if (error != NULL)
        trouble = *error;
    else if (status < 200 || status > 299)
        reply_error(&trouble, status, body, size);
    else
        error_set(&trouble, ERROR_UNAVAILABLE, "the engine ended the stream");
    if (trouble.code == ERROR_UNAVAILABLE)
        docker_doubt_version(events->docker);
    events_broken(events, &trouble);
}

static int events_send(struct events *events)
{
    struct buffer path = {0};
    uint64_t now = clock_wall_ms();
    buffer_printf(&path, "/v%s/events?since=%" PRIu64 ".%03u", events->docker->api_version, now / 1000,
                  (unsigned)(now % 1000));
    int r = path_append_filters(&path, '&', events->key, events->value, "container");
    const char *text = buffer_text(&path);
    struct http_call call = {
        .method = "GET",
        .path = text,
        .no_deadline = true,
        .urgent = true,
        .opened = on_opened,
        .data = on_data,
        .done = on_done,
        .user = events,
    };
    if (r == 0 && text != NULL)
        r = http_send(events->docker->http, &call);
    buffer_free(&path);
    return text != NULL ? r : -1;
}

/* --- opening it ----------------------------------------------------------------------------------- */

static void events_try(struct events *events)
{
    if (events->docker->closing)
        return;
    events->state = EVENTS_VERSION;
    if (events->docker->version_state == VERSION_AGREED)
        events_version_settled(events, NULL);
    else
        docker_want_version(events->docker);
}

void events_version_settled(struct events *events, const struct error *error)
{
    if (events->state != EVENTS_VERSION || events->docker->closing)
        return;
    if (error != NULL) {
        events_broken(events, error);
        return;
    }
    events->state = EVENTS_OPENING;
    if (events_send(events) < 0) {
        /* Told by the next attempt that fails from the loop; the timer makes that one. */
        events->state = EVENTS_BACKOFF;
        uv_timer_start(&events->timer, on_timer, events->backoff_ms, 0);
    }
}

void docker_events(struct engine *engine, const char *key, const char *value, engine_event_fn *event, void *user)
{
    struct docker *docker = docker_of(engine);
    if (docker->closing)
        return;
    if (docker->events != NULL) {
        log_warn(docker->log, "engine: events are watched already, a second watcher hears nothing");
        return;
    }
    struct events *events = calloc(1, sizeof(*events));
    if (events != NULL) {
        events->key = strdup(key);
        events->value = value != NULL ? strdup(value) : NULL;
    }
    if (events == NULL || events->key == NULL || (events->value == NULL) != (value == NULL)) {
        struct error error = ERROR_INIT;
        error_set(&error, ERROR_NOMEM, "out of memory");
        events_free(events);
        event(user, NULL, &error);
        return;
    }
    events->docker = docker;
    events->event = event;
    events->user = user;
    events->backoff_ms = EVENTS_BACKOFF_MS;
    uv_timer_init(docker->loop, &events->timer);
    events->timer.data = events;
    docker->events = events;
    docker->users++;
    events_try(events);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct events *events = handle->data;
    docker_release(events->docker);
}

void events_close(struct events *events)
{
    uv_close((uv_handle_t *)&events->timer, on_timer_closed);
}

void events_free(struct events *events)
{
    if (events == NULL)
        return;
    buffer_free(&events->line);
    free(events->key);
    free(events->value);
    free(events);
}
