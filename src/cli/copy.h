/* `--copy-in` and `--copy-out` of `warmpool run`, and `warmpool cp`: trees of this machine are packed and unpacked by
 * child processes
 * (`warmpoold pack`, `unpack`), whose frames are relayed. See docs/FILES.md. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/json_write.h"
#include "cli/cli.h"
#include "wire/file.h"

#define COPIES_MAX 64U

struct copy {
    char *local, *remote; /* owned */
    char name[FILE_NAME_MAX + 1];
};

struct copies {
    const struct cli *cli;
    struct copy in[COPIES_MAX], out[COPIES_MAX];
    size_t in_count, out_count, in_at, out_at, out_begun;
    pid_t child; /* of the present copy; 0: none */
    int fd;      /* from pack, or to unpack; -1: none */
    uint32_t credit;
    struct buffer frame; /* of pack: one that is not sent yet */
    uint32_t owed;       /* taken from the daemon and not given back */
    bool sent_last;      /* frame of the present one in */
    bool failed, to_stdout;
};

/* Options: "SRC:DST". -1 after nothing: the caller says how it must look. */
int copy_in_add(void *user, const char *value);
int copy_out_add(void *user, const char *value);
/* The same, taken apart already. */
int copy_in_set(struct copies *copies, const char *local, const char *remote);
int copy_out_set(struct copies *copies, const char *remote, const char *local);
void copies_free(struct copies *copies);
/* The members copyIn and copyOut of a request. */
void copies_write(const struct copies *copies, struct json_writer *json);

/* Something may be read from the packing child and sent on. */
bool copies_want_read(const struct copies *copies);
/* Credit for files: the first of each copy begins it. */
int copies_credit(struct copies *copies, uint32_t bytes);
/* Sends what the child has packed to `daemon`. -1 when that is gone. */
int copies_send(struct copies *copies, int daemon);
/* The runner's word on a copy in. */
void copies_result(struct copies *copies, bool refused);
/* Records from the container. `*credit` gets what can be given back to the daemon. */
int copies_receive(struct copies *copies, const uint8_t *payload, size_t size, uint8_t flags, uint32_t *credit);
/* The task is over: a copy that did not come whole has failed. Says whether any did. */
bool copies_end(struct copies *copies);
