/* `warmpoold config check FILE | show | docs`. */
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "daemon/verbs.h"

static int print(struct buffer *text)
{
    const char *bytes = buffer_text(text);
    int code = bytes == NULL || fputs(bytes, stdout) < 0 ? 1 : 0;
    buffer_free(text);
    return code;
}

struct checking {
    const char *path;
    size_t faults, warnings;
};

static void print_fault(void *user, const char *text)
{
    struct checking *checking = user;
    checking->faults++;
    fprintf(stderr, "warmpoold: %s\n", text);
}

static void print_warning(void *user, const char *text)
{
    struct checking *checking = user;
    checking->warnings++;
    fprintf(stderr, "%s: warning: %s\n", checking->path, text);
}

static int check(struct daemon_arguments *arguments)
{
    struct checking checking = {.path = arguments->config_path};
    struct config *config =
        config_check(arguments->config_path, arguments->overrides, arguments->override_count, print_fault, &checking);
    if (config == NULL) {
        if (checking.faults > 1)
            fprintf(stderr, "warmpoold: %s: %zu errors\n", checking.path, checking.faults);
        return 2;
    }
    config_warnings(config, print_warning, &checking);
    size_t keys = config_key_count(config);
    config_free(config);
    int written = printf("%s: OK, %zu key%s, %zu warning%s\n", checking.path, keys, keys == 1 ? "" : "s",
                         checking.warnings, checking.warnings == 1 ? "" : "s");
    return written < 0 ? 1 : 0;
}

static int show(struct daemon_arguments *arguments)
{
    struct config *config = arguments_config(arguments);
    if (config == NULL)
        return 2;
    struct buffer text = {0};
    config_print_effective(config, &text);
    config_free(config);
    return print(&text);
}

int verb_config(int argc, char *argv[])
{
    struct daemon_arguments arguments;
    int code = 2;
    if (arguments_read(&arguments, argc, argv) < 0)
        return 2;
    const char *verb = arguments.rest_count > 0 ? arguments.rest[0] : "";
    if (strcmp(verb, "check") == 0 && arguments.rest_count == 2) {
        arguments.config_path = arguments.rest[1];
        code = check(&arguments);
    } else if (strcmp(verb, "show") == 0 && arguments.rest_count == 1) {
        code = show(&arguments);
    } else if (strcmp(verb, "docs") == 0 && arguments.rest_count == 1) {
        struct buffer text = {0};
        config_print_docs(&text);
        code = print(&text);
    } else {
        printf("usage: warmpool config check FILE   says that a file is OK, or all that is wrong with it\n"
               "       warmpool config show         prints what is in force, and where it comes from\n"
               "       warmpool config docs         prints the option table\n");
        code = arguments.help ? 0 : 2;
    }
    arguments_free(&arguments);
    return code;
}
