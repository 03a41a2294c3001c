/* Waiting tasks. Within a priority first come, first served. Between priorities a task counts as if it had come
 * QUEUE_AGEING_US later for each step below the highest: the urgent go first, but nothing waits for ever behind a
 * stream of them. Every operation takes constant time, but for queue_put_back(). */
#pragma once

#include "pool/task.h"

#define QUEUE_AGEING_US 10000000U

struct queue {
    struct list tasks[TASK_PRIORITIES];
    uint32_t length;
};

void queue_init(struct queue *queue);
void queue_push(struct queue *queue, struct task *task);
/* At its old place by submitted_us: behind those of its priority that had come before it. */
void queue_put_back(struct queue *queue, struct task *task);
struct task *queue_peek(const struct queue *queue); /* NULL when empty */
void queue_remove(struct queue *queue, struct task *task);

/* The smaller goes first. */
uint64_t queue_rank(const struct task *task);
