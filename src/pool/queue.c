#include "pool/queue.h"

#include <stddef.h>

void queue_init(struct queue *queue)
{
    for (unsigned i = 0; i < TASK_PRIORITIES; i++)
        list_init(&queue->tasks[i]);
    queue->length = 0;
}

uint64_t queue_rank(const struct task *task)
{
    return task->submitted_us + (uint64_t)task->priority * QUEUE_AGEING_US;
}

void queue_push(struct queue *queue, struct task *task)
{
    list_push_back(&queue->tasks[task->priority], &task->link);
    queue->length++;
}

void queue_put_back(struct queue *queue, struct task *task)
{
    struct list *head = &queue->tasks[task->priority], *after = head;
    while (after->next != head && list_entry(after->next, struct task, link)->submitted_us <= task->submitted_us)
        after = after->next;
    list_insert(after, &task->link);
    queue->length++;
}

struct task *queue_peek(const struct queue *queue)
{
    struct task *first = NULL;
    if (queue->length == 0)
        return NULL;
    for (unsigned i = 0; i < TASK_PRIORITIES; i++) {
        if (list_empty(&queue->tasks[i]))
            continue;
        struct task *task = list_entry(queue->tasks[i].next, struct task, link);
        if (first == NULL || queue_rank(task) < queue_rank(first))
            first = task;
    }
    return first;
}

void queue_remove(struct queue *queue, struct task *task)
{
    list_remove(&task->link);
    queue->length--;
}
