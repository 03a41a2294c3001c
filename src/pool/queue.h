/* Waiting tasks: first come first served within a priority, a higher priority first. */
#pragma once

#include "pool/task.h"

struct queue {
    struct list tasks[TASK_PRIORITIES];
    uint32_t length;
};

void queue_init(struct queue *queue);
void queue_push(struct queue *queue, struct task *task);
struct task *queue_peek(const struct queue *queue); /* NULL when empty */
void queue_remove(struct queue *queue, struct task *task);
