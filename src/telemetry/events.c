#include "telemetry/events.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json_write.h"

#define TEXTS 4

struct record {    /* at a place of the ring that is a multiple of 8; its texts follow, each with its NUL */
    uint32_t size; /* of all, rounded up; 0: nothing more before the ring's end */
    uint16_t type;
    uint16_t length[TEXTS]; /* of the texts, 0: none, else with NUL */
    uint64_t id, wall_ms;
    int64_t a, b;
};

/* Which member of the JSON each field becomes; NULL: none. */
static const struct {
    const char *name, *subject, *other, *text, *a, *b;
} kinds[] = {
    [EVENT_CONTAINER_CREATED] = {"containerCreated", "container", NULL, NULL, "createMs", NULL},
    [EVENT_CONTAINER_REMOVED] = {"containerRemoved", "container", NULL, "reason", "tasks", NULL},
    [EVENT_CONTAINER_REFRESHED] = {"containerRefreshed", "container", NULL, "reason", NULL, NULL},
    [EVENT_CONTAINER_UNHEALTHY] = {"containerUnhealthy", "container", NULL, "reason", NULL, NULL},
    [EVENT_CONTAMINATION] = {"contamination", "container", NULL, "reason", NULL, NULL},
    [EVENT_POOL_SCALED] = {"poolScaled", NULL, NULL, "why", "from", "to"},
    [EVENT_POOL_PAUSED] = {"poolPaused", NULL, NULL, NULL, NULL, NULL},
    [EVENT_POOL_RESUMED] = {"poolResumed", NULL, NULL, NULL, NULL, NULL},
    [EVENT_POOL_DRAINING] = {"poolDraining", NULL, NULL, NULL, NULL, NULL},
    [EVENT_POOL_DRAINED] = {"poolDrained", NULL, NULL, NULL, NULL, NULL},
    [EVENT_CIRCUIT_OPENED] = {"circuitOpened", NULL, NULL, "reason", "failures", NULL},
    [EVENT_CIRCUIT_CLOSED] = {"circuitClosed", NULL, NULL, NULL, NULL, NULL},
    [EVENT_TASK_QUEUED] = {"taskQueued", "taskId", NULL, NULL, "waiting", NULL},
    [EVENT_TASK_STARTED] = {"taskStarted", "taskId", "container", NULL, NULL, NULL},
    [EVENT_TASK_RETRIED] = {"taskRetried", "taskId", NULL, "reason", NULL, NULL},
    [EVENT_TASK_ENDED] = {"taskEnded", "taskId", "container", "outcome", "exitCode", "totalUs"},
    [EVENT_LEASE_TAKEN] = {"leaseTaken", "leaseId", "container", NULL, NULL, NULL},
    [EVENT_LEASE_ENDED] = {"leaseEnded", "leaseId", NULL, "reason", "tasks", NULL},
    [EVENT_LEASE_OVERDUE] = {"leaseOverdue", "leaseId", "container", NULL, "heldMs", NULL},
    [EVENT_CONFIG_REJECTED] = {"configRejected", NULL, NULL, "reason", NULL, NULL},
    [EVENT_CONFIG_RELOADED] = {"configReloaded", NULL, NULL, NULL, "changed", "rolled"},
    [EVENT_ENGINE_UP] = {"engineUp", NULL, NULL, NULL, NULL, NULL},
    [EVENT_ENGINE_DOWN] = {"engineDown", NULL, NULL, "reason", NULL, NULL},
};

void event_log_init(struct event_log *log, uint32_t random)
{
    log->next_id = log->tail_id = 1;
    log->head = log->tail = 0;
    log->listener = NULL;
    snprintf(log->run, sizeof log->run, "%08x", random);
}

static struct record *record_at(const struct event_log *log, uint64_t offset)
{
    return (struct record *)(uintptr_t)(log->ring + offset % EVENT_RING_BYTES);
}

/* What is left of the ring behind `offset`, where no record fits any more, is passed over. */
static uint64_t skip_end(const struct event_log *log, uint64_t offset)
{
    uint64_t left = EVENT_RING_BYTES - offset % EVENT_RING_BYTES;
    return left < sizeof(struct record) || record_at(log, offset)->size == 0 ? offset + left : offset;
}

static void drop_oldest(struct event_log *log)
{
    log->tail = skip_end(log, log->tail);
    log->tail += record_at(log, log->tail)->size;
    log->tail_id++;
}

/* Makes room for `size` bytes in one piece and returns their offset. */
static uint64_t make_room(struct event_log *log, uint32_t size)
{
    uint64_t left = EVENT_RING_BYTES - log->head % EVENT_RING_BYTES,
             begin = size <= left ? log->head : log->head + left;
    while (log->tail_id < log->next_id && begin + size - log->tail > EVENT_RING_BYTES)
        drop_oldest(log);
    if (log->tail_id == log->next_id)
        log->tail = begin;
    if (begin != log->head && left >= sizeof(struct record))
        record_at(log, log->head)->size = 0;
    return begin;
}

static size_t text_size(const char *text)
{
    return text == NULL ? 0 : strnlen(text, EVENT_TEXT_MAX) + 1;
}

void event_emit(struct event_log *log, const struct event *event, uint64_t wall_ms)
{
    const char *const texts[TEXTS] = {event->agent_type, event->subject, event->other, event->text};
    size_t size = sizeof(struct record);
    for (int i = 0; i < TEXTS; i++)
        size += text_size(texts[i]);
    size = (size + 7) & ~(size_t)7;
    uint64_t at = make_room(log, (uint32_t)size);
    struct record *record = record_at(log, at);
    *record = (struct record){.size = (uint32_t)size,
                              .type = (uint16_t)event->type,
                              .id = log->next_id,
                              .wall_ms = wall_ms,
                              .a = event->a,
                              .b = event->b};
    char *out = (char *)(record + 1);
    for (int i = 0; i < TEXTS; i++) {
        record->length[i] = (uint16_t)text_size(texts[i]);
        if (record->length[i] == 0)
            continue;
        memcpy(out, texts[i], record->length[i] - 1U);
        out[record->length[i] - 1] = '\0';
        out += record->length[i];
    }
    log->head = at + size;
    log->next_id++;
    if (log->listener != NULL)
        log->listener(log->listener_user);
}

void event_cursor_end(const struct event_log *log, struct event_cursor *cursor)
{
    *cursor = (struct event_cursor){.offset = log->head, .id = log->next_id};
}

void event_cursor_after(const struct event_log *log, struct event_cursor *cursor, uint64_t id)
{
    struct event event;
    *cursor = (struct event_cursor){.offset = log->tail, .id = log->tail_id};
    if (id >= log->next_id) /* never was, in this run */
        return;
    if (id + 1 < log->tail_id) {
        cursor->id = id + 1; /* event_cursor_missed() tells of what is between */
        return;
    }
    while (cursor->id <= id && event_next(log, cursor, &event))
        ;
}

uint64_t event_cursor_missed(const struct event_log *log, struct event_cursor *cursor)
{
    if (cursor->id >= log->tail_id)
        return 0;
    uint64_t missed = log->tail_id - cursor->id;
    *cursor = (struct event_cursor){.offset = log->tail, .id = log->tail_id};
    return missed;
}

bool event_next(const struct event_log *log, struct event_cursor *cursor, struct event *event)
{
    if (cursor->id >= log->next_id)
        return false;
    uint64_t at = skip_end(log, cursor->offset);
    const struct record *record = record_at(log, at);
    const char *text = (const char *)(record + 1), *texts[TEXTS];
    for (int i = 0; i < TEXTS; i++) {
        texts[i] = record->length[i] == 0 ? NULL : text;
        text += record->length[i];
    }
    *event = (struct event){.type = (enum event_type)record->type,
                            .id = record->id,
                            .wall_ms = record->wall_ms,
                            .agent_type = texts[0],
                            .subject = texts[1],
                            .other = texts[2],
                            .text = texts[3],
                            .a = record->a,
                            .b = record->b};
    cursor->offset = at + record->size;
    cursor->id = record->id + 1;
    return true;
}

/* --- names and JSON -------------------------------------------------------------------------------------- */

const char *event_type_name(enum event_type type)
{
    return type < EVENT_TYPES ? kinds[type].name : "unknown";
}

enum event_type event_type_find(const char *name, size_t length)
{
    unsigned type = 0;
    while (type < EVENT_TYPES && (strlen(kinds[type].name) != length || strncmp(kinds[type].name, name, length) != 0))
        type++;
    return (enum event_type)type;
}

static void put_text(struct json_writer *json, const char *key, const char *text)
{
    if (key == NULL)
        return;
    jw_key(json, key);
    if (text == NULL)
        jw_null(json);
    else
        jw_bytes(json, (const uint8_t *)text, strlen(text));
}

static void put_int(struct json_writer *json, const char *key, int64_t value)
{
    if (key == NULL)
        return;
    jw_key(json, key);
    if (value == EVENT_UNKNOWN)
        jw_null(json);
    else
        jw_int(json, value);
}

void event_write(struct buffer *out, const struct event_log *log, const struct event *event)
{
    struct json_writer json = {.out = out};
    time_t seconds = (time_t)(event->wall_ms / 1000);
    struct tm parts;
    char date[40], whole[64];
    gmtime_r(&seconds, &parts);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(whole, sizeof whole, "%s.%03uZ", date, (unsigned)(event->wall_ms % 1000));
    jw_open(&json, '{');
    put_text(&json, "type", event_type_name(event->type));
    put_text(&json, "time", whole);
    snprintf(whole, sizeof whole, "%s-%llu", log->run, (unsigned long long)event->id);
    put_text(&json, "id", whole);
    if (event->agent_type != NULL)
        put_text(&json, "agentType", event->agent_type);
    put_text(&json, kinds[event->type].subject, event->subject);
    put_text(&json, kinds[event->type].other, event->other);
    put_text(&json, kinds[event->type].text, event->text);
    put_int(&json, kinds[event->type].a, event->a);
    put_int(&json, kinds[event->type].b, event->b);
    jw_close(&json, '}');
}
