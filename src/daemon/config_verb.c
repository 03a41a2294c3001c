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

static void print_warning(void *user, const char *text)
{
    fprintf(stderr, "%s: warning: %s\n", (const char *)user, text);
}

static int show(struct daemon_arguments *arguments, bool only_check)
{
    struct config *config = arguments_config(arguments);
    if (config == NULL)
        return 2;
    struct buffer text = {0};
    if (only_check) {
        config_warnings(config, print_warning, (void *)arguments->config_path);
        buffer_printf(&text, "%s: correct\n", arguments->config_path);
    } else {
        config_print_effective(config, &text);
    }
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
        code = show(&arguments, true);
    } else if (strcmp(verb, "show") == 0 && arguments.rest_count == 1) {
        code = show(&arguments, false);
    } else if (strcmp(verb, "docs") == 0 && arguments.rest_count == 1) {
        struct buffer text = {0};
        config_print_docs(&text);
        code = print(&text);
    } else {
        printf("usage: warmpool config check FILE   says whether a file is correct, or what is wrong with it\n"
               "       warmpool config show         prints what is in force\n"
               "       warmpool config docs         prints the option table\n");
        code = arguments.help ? 0 : 2;
    }
    arguments_free(&arguments);
    return code;
}
