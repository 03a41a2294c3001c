#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static const struct option_spec *find(const struct option_spec *specs, size_t count, const char *name, size_t length)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(specs[i].name) == length && strncmp(specs[i].name, name, length) == 0)
            return &specs[i];
    return NULL;
}

static int take(struct cli *cli, const struct option_spec *spec, int *at, int end, const char *inline_value)
{
    if (spec->flag != NULL) {
        *spec->flag = true;
        return inline_value == NULL ? 0 : misused(cli, "%s takes no value", spec->name);
    }
    const char *value = inline_value;
    if (value == NULL) {
        if (*at + 1 >= end)
            return misused(cli, "%s needs a value", spec->name);
        value = cli->argv[++*at];
    }
    if (spec->text != NULL) {
        *spec->text = value;
        return 0;
    }
    int result = spec->each(spec->user, value);
    if (result == -2)
        return -1;
    if (result < 0 && spec->hidden)
        return misused(cli, "%s: must be %s", spec->name, spec->form);
    if (result < 0)
        return misused(cli, "%s %s: must be %s", spec->name, value, spec->form != NULL ? spec->form : "NAME=VALUE");
    return 0;
}

int options_read(struct cli *cli, const struct option_spec *specs, size_t count, int *rest)
{
    int end = 1, kept = 1;
    while (end < cli->argc && strcmp(cli->argv[end], "--") != 0)
        end++;
    *rest = end < cli->argc ? end + 1 : cli->argc;
    for (int at = 1; at < end; at++) {
        const char *word = cli->argv[at];
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            verb_usage(verb_find(cli->argv[0]));
            return 1;
        }
        if (word[0] != '-' || word[1] == '\0') {
            cli->argv[kept++] = cli->argv[at];
            continue;
        }
        size_t length = strcspn(word, "=");
        if (strncmp(word, "--", 2) != 0)
            length = strlen(word);
        const struct option_spec *spec = find(specs, count, word, length);
        if (spec == NULL && strcmp(word, "--socket") == 0 && at + 1 < end) {
            free(cli->socket);
            cli->socket = realpath(cli->argv[++at], NULL);
            if (cli->socket == NULL)
                cli->socket = strdup(cli->argv[at]);
            continue;
        }
        if (spec == NULL) {
            misused(cli, "unknown option %s", word);
            return -1;
        }
        if (take(cli, spec, &at, end, word[length] == '=' ? word + length + 1 : NULL) != 0)
            return -1;
    }
    cli->argc = kept;
    return 0;
}

int options_time(const char *text, unsigned long *milliseconds)
{
    char *unit;
    unsigned long value = strtoul(text, &unit, 10);
    if (unit == text || value > 1000000000UL)
        return -1;
    if (strcmp(unit, "m") == 0)
        *milliseconds = value * 60000;
    else if (strcmp(unit, "s") == 0)
        *milliseconds = value * 1000;
    else if (strcmp(unit, "ms") == 0 || *unit == '\0')
        *milliseconds = value;
    else
        return -1;
    return 0;
}
