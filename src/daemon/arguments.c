#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/verbs.h"

static int add_override(struct daemon_arguments *arguments, const char *setting)
{
    const char *equals = strchr(setting, '=');
    if (equals == NULL || equals == setting) {
        fprintf(stderr, "warmpoold: --set %s: must be KEY=VALUE\n", setting);
        return -1;
    }
    if (arguments->override_count == sizeof arguments->overrides / sizeof arguments->overrides[0]) {
        fprintf(stderr, "warmpoold: more than %zu --set options; put them into a file\n", arguments->override_count);
        return -1;
    }
    char *key = strndup(setting, (size_t)(equals - setting));
    if (key == NULL)
        return -1;
    arguments->keys[arguments->override_count] = key;
    arguments->overrides[arguments->override_count++] = (struct config_override){.key = key, .value = equals + 1};
    return 0;
}

int arguments_read(struct daemon_arguments *arguments, int argc, char *argv[])
{
    *arguments = (struct daemon_arguments){.tag = NULL};
    for (int i = 1; i < argc; i++) {
        const char **text = strcmp(argv[i], "--config") == 0   ? &arguments->config_path
                            : strcmp(argv[i], "--socket") == 0 ? &arguments->socket
                            : strcmp(argv[i], "--tag") == 0    ? &arguments->tag
                                                               : NULL;
        bool set = strcmp(argv[i], "--set") == 0;
        if ((text != NULL || set) && i + 1 == argc) {
            fprintf(stderr, "warmpoold: %s needs a value\n", argv[i]);
            return -1;
        }
        if (set) {
            if (add_override(arguments, argv[++i]) < 0)
                return -1;
        } else if (text != NULL) {
            *text = argv[++i];
        } else if (strcmp(argv[i], "--json") == 0) {
            arguments->json = true;
        } else if (strcmp(argv[i], "--help") == 0) {
            arguments->help = true;
        } else if (argv[i][0] == '-' || arguments->rest_count == sizeof arguments->rest / sizeof arguments->rest[0]) {
            fprintf(stderr, "warmpoold %s: unknown option %s\n", argv[0], argv[i]);
            return -1;
        } else {
            arguments->rest[arguments->rest_count++] = argv[i];
        }
    }
    return 0;
}

void arguments_free(struct daemon_arguments *arguments)
{
    for (size_t i = 0; i < arguments->override_count; i++)
        free(arguments->keys[i]);
}

struct config *arguments_config(struct daemon_arguments *arguments)
{
    struct error error = ERROR_INIT;
    struct config *config = arguments_load(arguments, &error);
    if (config == NULL)
        fprintf(stderr, "warmpoold: %s\n", error.message);
    return config;
}

struct config *arguments_load(struct daemon_arguments *arguments, struct error *err)
{
    struct config_override overrides[66];
    size_t count = arguments->override_count;
    memcpy(overrides, arguments->overrides, count * sizeof *overrides);
    if (arguments->socket != NULL)
        overrides[count++] = (struct config_override){.key = "socket", .value = arguments->socket};
    return config_load(arguments->config_path, overrides, count, err);
}
