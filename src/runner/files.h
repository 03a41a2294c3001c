/* Files in and out of the container's writable mounts: one transfer at a time, whatever the task does. */
#pragma once

#include "tree/reader.h"
#include "tree/writer.h"

struct runner;

enum files_kind { FILES_NONE, FILES_PUT, FILES_GET };

struct files {
    enum files_kind kind;
    bool touched;    /* by a transfer, since the last reset */
    uint32_t number; /* header.task of its frames */
    uint64_t credit; /* GET: bytes that may be sent */
    uint32_t owed;   /* PUT: bytes taken, credit not given */
    union {
        struct tree_reader reader;
        struct tree_writer writer;
    };
};

/* Frames from the daemon. False: the frame is not allowed here. A new transfer ends one that is still there. */
bool files_put(struct runner *runner, const struct frame *frame);
bool files_get(struct runner *runner, const struct frame *frame);
/* A FILE that no transfer waits for (its PUT has failed) is passed over. */
void files_feed(struct runner *runner, const struct frame *frame);
void files_credit(struct runner *runner, uint32_t task, uint32_t bytes);
/* Ends the transfer of `task`, or any with 0, without a word. Before a reset, and when the connection is lost. */
void files_cancel(struct runner *runner, uint32_t task);
/* Wipes what an ended transfer left here: names, and the beginning of a block. */
void files_wipe(struct runner *runner);
/* Something can be sent right now: the loop must not sleep. */
bool files_ready(struct runner *runner);
/* Sends what credit and room allow, FILES_STEP_BYTES at most. */
void files_step(struct runner *runner);
