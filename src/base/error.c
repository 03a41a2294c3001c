#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void error_format(struct error *err, enum error_code code, const char *format, va_list args)
{
    err->code = code;
    vsnprintf(err->message, sizeof err->message, format, args);
}

int error_set(struct error *err, enum error_code code, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        error_format(err, code, format, args);
        va_end(args);
    }
    return -1;
}

int error_errno(struct error *err, int errnum, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        error_format(err, errnum == ENOMEM ? ERROR_NOMEM : ERROR_SYSTEM, format, args);
        va_end(args);
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, ": %s", strerror(errnum));
    }
    return -1;
}

int error_prefix(struct error *err, const char *format, ...)
{
    if (err != NULL) {
        char old[ERROR_MESSAGE_MAX];
        memcpy(old, err->message, sizeof old);
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, ": %s", old);
    }
    return -1;
}

const char *error_code_name(enum error_code code)
{
    switch (code) {
    case ERROR_NONE:
        return "none";
    case ERROR_INVALID:
        return "invalid";
    case ERROR_NOT_FOUND:
        return "not_found";
    case ERROR_CONFLICT:
        return "conflict";
    case ERROR_UNAVAILABLE:
        return "unavailable";
    case ERROR_ENGINE:
        return "engine_failed";
    case ERROR_TIMEOUT:
        return "timeout";
    case ERROR_LIMIT:
        return "limit_reached";
    case ERROR_CANCELLED:
        return "cancelled";
    case ERROR_PROTOCOL:
        return "protocol";
    case ERROR_SYSTEM:
        return "system";
    case ERROR_NOMEM:
        return "out_of_memory";
    case ERROR_DENIED:
        return "denied";
    }
    return "unknown";
}
