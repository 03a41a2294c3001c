/* What differs between two configurations, and whether a running daemon can take the step. */
#include <string.h>

#include "base/buffer.h"
#include "config/internal.h"
#include "config/option.h"

/* The log and the events have many readers: of what may hold a password or a key only the fact is told. */
static void print(const struct option *option, const void *record, struct buffer *out)
{
    if (option->type == TYPE_PAIRS)
        buffer_append_string(out, "(not shown)");
    else
        option_print(option, record, out);
}

bool profile_rolls(const struct profile *from, const struct profile *to)
{
    for (size_t i = 0; i < option_count; i++)
        if (options[i].scope != SCOPE_GLOBAL && options[i].reload == RELOAD_ROLL &&
            !option_equal(&options[i], from, to))
            return true;
    return false;
}

int config_reload_check(const struct config *from, const struct config *to, struct error *err)
{
    for (size_t i = 0; i < option_count; i++) {
        if (options[i].reload != RELOAD_RESTART || option_equal(&options[i], from, to))
            continue;
        struct buffer old = {0}, new = {0};
        print(&options[i], from, &old);
        print(&options[i], to, &new);
        const char *a = buffer_text(&old), *b = buffer_text(&new);
        error_set(err, ERROR_CONFLICT,
                  "%s cannot change while the daemon runs (from %.100s to %.100s); restart it, or put it back",
                  options[i].key, a != NULL ? a : "", b != NULL ? b : "");
        buffer_free(&old);
        buffer_free(&new);
        return -1;
    }
    return 0;
}

static void tell(const struct option *option, const void *from, const void *to, const char *agent_type,
                 config_change_fn *fn, void *user)
{
    struct buffer old = {0}, new = {0};
    print(option, from, &old);
    print(option, to, &new);
    const char *a = buffer_text(&old), *b = buffer_text(&new);
    if (a != NULL && b != NULL)
        fn(user, agent_type, option->key, a, b);
    buffer_free(&old);
    buffer_free(&new);
}

/* What changed for a type exactly as it did at the top level was told there. */
static void tell_type(const struct option *option, const struct config *from, const struct config *to,
                      const char *agent_type, config_change_fn *fn, void *user)
{
    const struct profile *old = config_profile_of(from, agent_type), *new = config_profile_of(to, agent_type);
    bool as_above = option_equal(option, old, &from->defaults) && option_equal(option, new, &to->defaults);
    if (!as_above && !option_equal(option, old, new))
        tell(option, old, new, agent_type, fn, user);
}

static bool has_profile(const struct config *config, const char *agent_type)
{
    return config_profile_of(config, agent_type) != &config->defaults;
}

void config_changes(const struct config *from, const struct config *to, config_change_fn *fn, void *user)
{
    for (size_t i = 0; i < option_count; i++) {
        const struct option *option = &options[i];
        bool global = option->scope == SCOPE_GLOBAL;
        const void *old = global ? (const void *)from : &from->defaults,
                   *new = global ? (const void *)to : &to->defaults;
        if (!option_equal(option, old, new))
            tell(option, old, new, NULL, fn, user);
        for (size_t j = 0; !global && j < to->profile_count; j++)
            tell_type(option, from, to, to->profiles[j].agent_type, fn, user);
        for (size_t j = 0; !global && j < from->profile_count; j++)
            if (!has_profile(to, from->profiles[j].agent_type))
                tell_type(option, from, to, from->profiles[j].agent_type, fn, user);
    }
}
