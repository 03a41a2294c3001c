/* The login of registryAuth, for those who pull. */
#pragma once

#include "config/config.h"

struct login {
    const char *username, *password, *identity_token; /* NULL: not given. The config's, or of this struct. */
    char server[256];                                 /* "registry.example:5000" */
    char secret[4096];                                /* what passwordFile says */
};

/* The login is for dockerRegistry, or for Docker Hub where none is set: no other registry gets to see it. 1 when there
 * is one for `reference`, as it is called at `registry`; 0 when not; -1 when passwordFile cannot be read. Reads a file,
 * each time, so that its content may change. End with login_forget(). */
int login_find(struct login *login, const struct config *config, const char *registry, const char *reference,
               struct error *err);
void login_forget(struct login *login);
