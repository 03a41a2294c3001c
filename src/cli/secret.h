/* `--secret` and `--secret-env` of `warmpool run` and `exec`. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json_write.h"

#define CLI_SECRETS_MAX 32U
#define CLI_SECRET_FORM "NAME=VALUE or NAME=@FILE, NAME being of letters, digits and _"

struct cli_secrets {
    struct {
        char name[65];
        uint8_t *value; /* owned */
        size_t size;
        bool as_env;
    } list[CLI_SECRETS_MAX];
    size_t count;
    bool from_stdin;
};

/* Options: "NAME=VALUE", "NAME=@FILE", "NAME=@-". -1 after nothing: the caller says how it must look; -2 after a
 * message. */
int secret_file_add(void *user, const char *value);
int secret_env_add(void *user, const char *value);
/* The member secrets of a request. */
void secrets_write(const struct cli_secrets *secrets, struct json_writer *json);
/* Overwrites them. */
void secrets_free(struct cli_secrets *secrets);
