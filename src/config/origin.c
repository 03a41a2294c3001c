/* Where a value comes from: for messages, and for what is shown of a configuration. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config/internal.h"

/* poolSize: WARMPOOL_POOL_SIZE. */
void environment_name(const char *key, char *name, size_t size)
{
    size_t used = (size_t)snprintf(name, size, "WARMPOOL_");
    for (; *key != '\0' && used + 3 < size; key++) {
        if (isupper((unsigned char)*key))
            name[used++] = '_';
        name[used++] = (char)toupper((unsigned char)*key);
    }
    name[used] = '\0';
}

bool origin_given(const struct config_origin *origin)
{
    return origin->source >= SOURCE_FILE;
}

void origin_print(const struct config *config, const struct config_origin *origin, const char *key, char *text,
                  size_t size)
{
    switch (origin->source) {
    case SOURCE_DEFAULT:
        snprintf(text, size, "default");
        break;
    case SOURCE_BUILT_IN:
        snprintf(text, size, "built in");
        break;
    case SOURCE_FILE:
        snprintf(text, size, "%s:%d", config->name, origin->line);
        break;
    case SOURCE_ENVIRONMENT:
        environment_name(key, text, size);
        break;
    case SOURCE_SETTING:
        snprintf(text, size, "--set");
        break;
    }
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

bool check_own(const struct check *check, const char *key)
{
    return origin_given(&check->profile->origins[option_find(key) - options]);
}

bool check_given(const struct check *check, const char *key)
{
    return check_own(check, key) || origin_given(&check->config->defaults.origins[option_find(key) - options]);
}

int check_refuse(const struct check *check, const char *key, const char *format, ...)
{
    size_t index = (size_t)(option_find(key) - options);
    const struct config_origin *own = &check->profile->origins[index];
    const struct config_origin *origin = origin_given(own) ? own : &check->config->defaults.origins[index];
    char place[256] = "", text[ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (origin_given(origin)) {
        origin_print(check->config, origin, key, place, sizeof place - 2);
        strcat(place, ": ");
    }
    return error_set(check->err, ERROR_INVALID, "%s%s: %s", place, check->profile->agent_type, text);
}
