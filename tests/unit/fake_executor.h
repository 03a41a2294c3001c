/* A double of the executor: tasks are played on the loop, without an engine. What a task does is its command's first
 * word:
 *
 *     echo WORDS       the words on stdout, "err" on stderr, code 0
 *     bytes            invalid UTF-8
 *     split            "grüße" in two pieces, cut inside the ü
 *     flood N          N bytes of stdout, never more than FAKE_WINDOW ahead of what was consumed
 *     cat              stdin back on stdout until its end
 *     sleep            runs until it is cancelled or abandoned
 *     missing          cannot be executed: 127
 *     starved          no container
 *     full             the queue is full, at once
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>

#include "executor/executor.h"

#define FAKE_WINDOW 65536U

struct fake_counters { /* read by the test's thread */
    atomic_uint running, abandoned, cancelled, signalled, last_signal;
    atomic_size_t consumed, ahead_most;
};

struct executor *fake_executor_new(uv_loop_t *loop, struct fake_counters *counters);
/* Closes its timer; free it when the loop has ended. */
void fake_executor_stop(struct executor *executor);
void fake_executor_free(struct executor *executor);
