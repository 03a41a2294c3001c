/* What happens, one event after another, in a ring of fixed size. Emitting copies a few texts and never allocates;
 * readers have a cursor each and read when they like, or find out how much they have missed. One thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

#define EVENT_RING_BYTES (256U * 1024U)
#define EVENT_TEXT_MAX   400U      /* bytes of one text; more is cut */
#define EVENT_UNKNOWN    INT64_MIN /* a number that there is not: null */

enum event_type {
    EVENT_CONTAINER_CREATED, /* subject: container; a: ms that it took */
    EVENT_CONTAINER_REMOVED, /* container; text: reason; a: tasks that it served */
    EVENT_CONTAINER_REFRESHED,
    EVENT_CONTAINER_UNHEALTHY,
    EVENT_CONTAMINATION, /* container; text: what was met */
    EVENT_POOL_SCALED,   /* a: from, b: to; text: why */
    EVENT_POOL_PAUSED,
    EVENT_POOL_RESUMED,
    EVENT_POOL_DRAINING,
    EVENT_POOL_DRAINED,
    EVENT_CIRCUIT_OPENED,
    EVENT_CIRCUIT_CLOSED,
    EVENT_TASK_QUEUED,  /* task; a: how many wait, this one included */
    EVENT_TASK_STARTED, /* task; other: container */
    EVENT_TASK_RETRIED,
    EVENT_TASK_ENDED,  /* task; other: container; text: outcome; a: exit code or EVENT_UNKNOWN; b: us from submission */
    EVENT_LEASE_TAKEN, /* lease; other: container */
    EVENT_LEASE_ENDED,
    EVENT_LEASE_OVERDUE,
    EVENT_CONFIG_REJECTED, /* text: why; nothing changed */
    EVENT_CONFIG_RELOADED, /* a: keys changed; b: pools that replace their containers */
    EVENT_ENGINE_UP,
    EVENT_ENGINE_DOWN,
    EVENT_TYPES
};

struct event {
    enum event_type type;
    uint64_t id, wall_ms; /* set when it is emitted; ids go up by one */
    const char *agent_type, *subject, *other,
        *text; /* NULL: none. Read, they are in the ring: until the next is emitted */
    int64_t a, b;
};

struct event_cursor {
    uint64_t offset, id; /* of the next one to be read */
};

struct event_log {
    char run[9]; /* of this log: ids mean nothing in another */
    uint64_t next_id, tail_id;
    uint64_t head, tail;          /* offsets that only grow; modulo the ring's size they are places in it */
    void (*listener)(void *user); /* after each event; NULL: nobody */
    void *listener_user;
    _Alignas(8) uint8_t ring[EVENT_RING_BYTES];
};

/* `random` makes the run's name. */
void event_log_init(struct event_log *log, uint32_t random);
void event_emit(struct event_log *log, const struct event *event, uint64_t wall_ms);

/* To the next one that will come; after `id` of the same run (an unknown one: to the oldest there is). */
void event_cursor_end(const struct event_log *log, struct event_cursor *cursor);
void event_cursor_after(const struct event_log *log, struct event_cursor *cursor, uint64_t id);
/* How many were overwritten before the cursor had read them; it goes on at the oldest that is left. */
uint64_t event_cursor_missed(const struct event_log *log, struct event_cursor *cursor);
/* False: there is none yet. The cursor must not have missed any. */
bool event_next(const struct event_log *log, struct event_cursor *cursor, struct event *event);

const char *event_type_name(enum event_type type);
/* EVENT_TYPES: there is none of that name. */
enum event_type event_type_find(const char *name, size_t length);
/* As one JSON object. */
void event_write(struct buffer *out, const struct event_log *log, const struct event *event);
