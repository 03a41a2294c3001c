#include "base/heap.h"

static void place(struct heap_node **where, struct heap_node *node)
{
    *where = node;
    if (node != NULL)
        node->where = where;
}

/* Of two trees without siblings the one with the smaller top, with the other one below it; either may be NULL. */
static struct heap_node *meld(struct heap_node *a, struct heap_node *b)
{
    if (a == NULL || b == NULL)
        return a != NULL ? a : b;
    if (b->key < a->key) {
        struct heap_node *smaller = b;
        b = a;
        a = smaller;
    }
    place(&b->next, a->child);
    place(&a->child, b);
    return a;
}

/* A list of siblings becomes one tree: pairs first, then all from the last to the first. */
static struct heap_node *meld_siblings(struct heap_node *first)
{
    struct heap_node *pairs = NULL, *all = NULL;
    while (first != NULL) {
        struct heap_node *a = first, *b = first->next;
        first = b != NULL ? b->next : NULL;
        a->next = NULL;
        if (b != NULL)
            b->next = NULL;
        struct heap_node *pair = meld(a, b);
        pair->next = pairs;
        pairs = pair;
    }
    while (pairs != NULL) {
        struct heap_node *next = pairs->next;
        pairs->next = NULL;
        all = meld(all, pairs);
        pairs = next;
    }
    return all;
}

void heap_add(struct heap *heap, struct heap_node *node, uint64_t key)
{
    *node = (struct heap_node){.key = key};
    place(&heap->top, meld(heap->top, node));
}

void heap_remove(struct heap *heap, struct heap_node *node)
{
    if (node->where == NULL)
        return;
    place(node->where, node->next);
    struct heap_node *below = meld_siblings(node->child);
    place(&heap->top, meld(heap->top, below));
    *node = (struct heap_node){.key = node->key};
}
