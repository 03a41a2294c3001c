/* One file per verb. Each returns the process's exit code. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"

int verb_serve(int argc, char *argv[]);
int verb_image(int argc, char *argv[]);
int verb_doctor(int argc, char *argv[]);
int verb_config(int argc, char *argv[]);
int verb_pack(int argc, char *argv[]);
int verb_unpack(int argc, char *argv[]);

/* What the verbs share on the command line. */
struct daemon_arguments {
    const char *config_path, *socket;
    const char *rest[4]; /* what is no option */
    size_t rest_count;
    struct config_override overrides[64];
    char *keys[64];
    size_t override_count;
    const char *tag;
    bool json, help;
};

/* 0, or -1 after it has said what is wrong. `--set` takes key=value; commas separate list items. */
int arguments_read(struct daemon_arguments *arguments, int argc, char *argv[]);
void arguments_free(struct daemon_arguments *arguments);
/* Loads the configuration they name; NULL after it has said what is wrong. */
struct config *arguments_config(struct daemon_arguments *arguments);
/* The same, without a word. */
struct config *arguments_load(struct daemon_arguments *arguments, struct error *err);
