/* What differs between two configurations, and whether a running daemon can take the step. */
#include <string.h>

#include "base/buffer.h"
#include "config/internal.h"
#include "config/option.h"

static void print(const struct option *option, const void *record, struct buffer *out)
{
    if (strcmp(option->key, "registryAuth") == 0) { /* may be a password: only whether it differs is told */
        buffer_append_string(out, "(not shown)");
        return;
    }
    option_print(option, record, out);
}

static bool differs(const struct option *option, const void *a, const void *b)
{
    struct buffer left = {0}, right = {0};
    option_print(option, a, &left);
    option_print(option, b, &right);
    const char *one = buffer_text(&left), *other = buffer_text(&right);
    bool different = one == NULL || other == NULL || strcmp(one, other) != 0;
    buffer_free(&left);
    buffer_free(&right);
    return different;
}

bool profile_rolls(const struct profile *from, const struct profile *to)
{
    for (size_t i = 0; i < option_count; i++)
        if (options[i].scope != SCOPE_GLOBAL && options[i].reload == RELOAD_ROLL && differs(&options[i], from, to))
            return true;
    return false;
}

int config_reload_check(const struct config *from, const struct config *to, struct error *err)
{
    for (size_t i = 0; i < option_count; i++) {
        if (options[i].reload != RELOAD_RESTART || !differs(&options[i], from, to))
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
    if (!differs(option, from, to))
        return;
    print(option, from, &old);
    print(option, to, &new);
    const char *a = buffer_text(&old), *b = buffer_text(&new);
    if (a != NULL && b != NULL)
        fn(user, agent_type, option->key, a, b);
    buffer_free(&old);
    buffer_free(&new);
}

void config_changes(const struct config *from, const struct config *to, config_change_fn *fn, void *user)
{
    for (size_t i = 0; i < option_count; i++) {
        const struct option *option = &options[i];
        if (option->scope == SCOPE_GLOBAL) {
            tell(option, from, to, NULL, fn, user);
            continue;
        }
        tell(option, &from->defaults, &to->defaults, NULL, fn, user);
        for (size_t j = 0; j < to->profile_count; j++) {
            const struct profile *profile = &to->profiles[j], *before = config_profile_of(from, profile->agent_type);
            bool inherits = !differs(option, &from->defaults, before) && !differs(option, &to->defaults, profile);
            if (!inherits) /* else it was told of the top level */
                tell(option, before, profile, profile->agent_type, fn, user);
        }
    }
}
