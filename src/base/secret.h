/* What a task's secret may be: the one rule for the API, the library and the command line. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define SECRET_NAME_MAX 64U

/* NULL when it may be; else what is wrong, as "must ...", which tells nothing of the value. `as_env`: it becomes a
 * variable, `name`, of the task. */
const char *secret_wrong(const char *name, const void *value, size_t size, bool as_env);

/* free(), with all of the memory overwritten first. NULL is allowed. */
void secret_free(void *memory);
