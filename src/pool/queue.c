#include "pool/queue.h"

void queue_init(struct queue *queue)
{
    for (unsigned i = 0; i < TASK_PRIORITIES; i++)
        list_init(&queue->tasks[i]);
    queue->length = 0;
}

void queue_push(struct queue *queue, struct task *task)
{
    list_push_back(&queue->tasks[task->priority], &task->link);
    queue->length++;
}

struct task *queue_peek(const struct queue *queue)
{
    if (queue->length == 0)
        return NULL;
    for (unsigned i = 0; i < TASK_PRIORITIES; i++)
        if (!list_empty(&queue->tasks[i]))
            return list_entry(queue->tasks[i].next, struct task, link);
    return NULL;
}

void queue_remove(struct queue *queue, struct task *task)
{
    list_remove(&task->link);
    queue->length--;
}
