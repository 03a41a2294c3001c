/* An attach stream of a test, and what came of it. */
#pragma once

#include "harness.h"

struct attached {
    struct fixture *f;
    struct engine_stream *stream;
    bool open, is_writable, ended, closed_by_user;
    unsigned opened, closed;
    struct error error;
    struct buffer in;
    size_t wanted; /* bytes of `in` */
    bool complete;
    /* A pattern instead of `in`. */
    bool pattern;
    size_t sent, received, total;
    bool close_at_data;
};

void attach(struct fixture *f, struct attached *a, const char *id);
void attach_ok(struct fixture *f, struct attached *a, const char *id); /* waits */
void detach(struct attached *a);
void say(struct attached *a, const char *text);
/* Waits for as many bytes, and compares all that came. */
void hear(struct attached *a, const char *text);
void expect_closed(struct attached *a, enum error_code code, const char *words); /* waits */
/* Sends what the stream takes of `total` bytes of the pattern; goes on by itself. */
void pattern_send(struct attached *a);
