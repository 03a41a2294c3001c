/* Leveled log lines to a sink that the owner chooses. Library code never prints: it logs to the object it was
 * given. A `struct log` is set up once and read by one thread. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

struct log {
    enum log_level level;                                             /* lines above it are dropped */
    void (*sink)(void *user, enum log_level level, const char *line); /* NULL drops everything; no newline in `line` */
    void *user;
};

void log_write(const struct log *log, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(log, ...) log_write((log), LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(log, ...)  log_write((log), LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(log, ...)  log_write((log), LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(log, ...) log_write((log), LOG_LEVEL_DEBUG, __VA_ARGS__)

/* "error", "warn", "info", "debug". */
const char *log_level_name(enum log_level level);
