/* Errors that carry a text. A function that can fail for a reason worth telling takes a nullable
 * `struct error *`, returns 0 or -1, and leaves the error untouched on success. Text gains context
 * on its way up with error_prefix(). */
#pragma once

#include <stdarg.h>
#include <stdbool.h>

enum error_code {
    ERROR_NONE = 0,
    ERROR_INVALID,     /* the caller's input is wrong; the message says what would be right */
    ERROR_NOT_FOUND,   /* the named thing does not exist */
    ERROR_CONFLICT,    /* it exists already, or its state forbids the request */
    ERROR_UNAVAILABLE, /* the engine or the daemon cannot be reached, or is stopping */
    ERROR_ENGINE,      /* the engine answered and refused; the message carries its own words */
    ERROR_TIMEOUT,     /* no answer within the time allowed */
    ERROR_LIMIT,       /* a configured limit was reached (queue full, output too large) */
    ERROR_CANCELLED,   /* the caller gave up first */
    ERROR_PROTOCOL,    /* the peer sent what the protocol does not allow */
    ERROR_SYSTEM,      /* a system call failed; the message ends in strerror() */
    ERROR_NOMEM,
    ERROR_DENIED, /* a registry or the engine does not know who asks, or does not allow it */
};

#define ERROR_MESSAGE_MAX 512

struct error {
    enum error_code code;
    char message[ERROR_MESSAGE_MAX];
};

#define ERROR_INIT                                                                                                     \
    {                                                                                                                  \
        .code = ERROR_NONE                                                                                             \
    }

/* Sets code and text; `err` may be NULL. Always returns -1, so that `return error_set(...)` reads well. */
int error_set(struct error *err, enum error_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As error_set() with ERROR_SYSTEM, ": " and strerror(errnum) appended. `errnum` is a positive errno. */
int error_errno(struct error *err, int errnum, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "text: " in front of what is there. Returns -1. */
int error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Lower-case snake name of a code, as the API prints it ("not_found"). Static storage. */
const char *error_code_name(enum error_code code);
