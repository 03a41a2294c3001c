#include "cli/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/secret.h"
#include "cli/cli.h"

#define VALUE_MAX 65536U

/* All of it, or one byte more than may be. 0, or -1 with errno. */
static int read_value(int fd, uint8_t *value, size_t *size)
{
    *size = 0;
    while (*size <= VALUE_MAX) {
        ssize_t got = read(fd, value + *size, VALUE_MAX + 1 - *size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return (int)got;
        *size += (size_t)got;
    }
    return 0;
}

static int take_file(struct cli_secrets *secrets, const char *path, uint8_t *value, size_t *size)
{
    bool from_stdin = strcmp(path, "-") == 0;
    secrets->from_stdin |= from_stdin;
    int fd = from_stdin ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    int result = fd < 0 ? -1 : read_value(fd, value, size);
    int error = errno;
    if (fd > 0)
        close(fd);
    if (result < 0)
        failed("the secret in %s cannot be read: %s", path, strerror(error));
    return result;
}

static int add(struct cli_secrets *secrets, const char *text, bool as_env)
{
    size_t length = strcspn(text, "="), size = 0;
    if (text[length] == '\0' || length == 0 || length > SECRET_NAME_MAX)
        return -1;
    if (secrets->count == CLI_SECRETS_MAX) {
        failed("a task may have %u secrets", CLI_SECRETS_MAX);
        return -2;
    }
    uint8_t *value = malloc(VALUE_MAX + 1);
    char *name = secrets->list[secrets->count].name;
    memcpy(name, text, length);
    name[length] = '\0';
    const char *given = text + length + 1;
    int result = value == NULL ? -2 : 0;
    if (given[0] == '@') {
        result = value == NULL || take_file(secrets, given + 1, value, &size) < 0 ? -2 : 0;
    } else if (value != NULL) {
        size = strnlen(given, VALUE_MAX + 1);
        memcpy(value, given, size);
    }
    const char *wrong = result == 0 ? secret_wrong(name, value, size, as_env) : NULL;
    for (size_t i = 0; i < secrets->count && wrong == NULL; i++)
        if (strcmp(secrets->list[i].name, name) == 0)
            wrong = "is given twice";
    if (wrong != NULL)
        failed("the secret %s %s", name, wrong);
    if (wrong != NULL || result != 0) {
        secret_free(value);
        return -2;
    }
    secrets->list[secrets->count].value = value;
    secrets->list[secrets->count].size = size;
    secrets->list[secrets->count++].as_env = as_env;
    return 0;
}

int secret_file_add(void *user, const char *value)
{
    return add(user, value, false);
}

int secret_env_add(void *user, const char *value)
{
    return add(user, value, true);
}

void secrets_write(const struct cli_secrets *secrets, struct json_writer *json)
{
    if (secrets->count == 0)
        return;
    jw_key(json, "secrets");
    jw_open(json, '{');
    for (size_t i = 0; i < secrets->count; i++) {
        jw_key(json, secrets->list[i].name);
        jw_open(json, '{');
        jw_key(json, "value");
        jw_base64(json, secrets->list[i].value, secrets->list[i].size);
        jw_key(json, "encoding");
        jw_text(json, "base64");
        if (secrets->list[i].as_env) {
            jw_key(json, "as");
            jw_text(json, "env");
        }
        jw_close(json, '}');
    }
    jw_close(json, '}');
}

void secrets_free(struct cli_secrets *secrets)
{
    while (secrets->count > 0)
        secret_free(secrets->list[--secrets->count].value);
}
