#include "config/login.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "config/reference.h"

/* A line of text; nothing else is a password. */
static int secret_read(const char *path, char *secret, size_t size, struct error *err)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    size_t used = 0;
    ssize_t got = fd < 0 ? -1 : 1;
    while (got > 0 && used < size) {
        got = read(fd, secret + used, size - used);
        used += got > 0 ? (size_t)got : 0;
    }
    if (got < 0)
        return error_errno(err, errno, "registryAuth: reading passwordFile %.200s", path);
    if (used == size)
        return error_set(err, ERROR_INVALID, "registryAuth: passwordFile %.200s is longer than %zu bytes", path,
                         size - 1);
    while (used > 0 && (secret[used - 1] == '\n' || secret[used - 1] == '\r'))
        used--;
    secret[used] = '\0';
    if (used == 0 || strlen(secret) != used || strpbrk(secret, "\r\n") != NULL)
        return error_set(err, ERROR_INVALID, "registryAuth: passwordFile %.200s must have the password, in one line",
                         path);
    return 0;
}

static void server_of(const char *registry, char *server, size_t size)
{
    struct reference parsed = {.host_length = 0};
    char name[512];
    snprintf(name, sizeof(name), "%s%simage", registry, registry[0] != '\0' ? "/" : "");
    if (reference_parse(&parsed, name, NULL) < 0)
        server[0] = '\0';
    else
        reference_server(&parsed, server, size);
}

int login_find(struct login *login, const struct config *config, const char *registry, const char *reference,
               struct error *err)
{
    struct reference parsed;
    char server[sizeof(login->server)];
    memset(login, 0, sizeof(*login));
    login->username = config_registry_auth(config, "username");
    login->password = config_registry_auth(config, "password");
    login->identity_token = config_registry_auth(config, "identityToken");
    if (login->username == NULL && login->identity_token == NULL)
        return 0;
    server_of(registry, server, sizeof(server));
    if (reference_parse(&parsed, reference, NULL) < 0)
        return 0;
    reference_server(&parsed, login->server, sizeof(login->server));
    if (strcmp(server, login->server) != 0)
        return 0;
    const char *file = config_registry_auth(config, "passwordFile");
    if (file == NULL)
        return 1;
    login->password = login->secret;
    return secret_read(file, login->secret, sizeof(login->secret), err) < 0 ? -1 : 1;
}

void login_forget(struct login *login)
{
    explicit_bzero(login->secret, sizeof(login->secret));
}
