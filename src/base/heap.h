/* Intrusive pairing heap: the object with the smallest key first. An object holds a `struct heap_node`; all nodes of a
 * heap are ordered by their `key`, which must not change while the node is in it. Insertion takes constant time,
 * removal logarithmic (amortised). A zeroed heap is a valid empty one; a zeroed node is not in any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    struct heap_node *child, *next, **where; /* `where`: what points at this node; NULL: in no heap */
    uint64_t key;
};

struct heap {
    struct heap_node *top;
};

#define heap_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

static inline bool heap_contains(const struct heap_node *node)
{
    return node->where != NULL;
}

/* NULL when empty. */
static inline struct heap_node *heap_first(const struct heap *heap)
{
    return heap->top;
}

void heap_add(struct heap *heap, struct heap_node *node, uint64_t key);

/* May be called for a node that is in no heap. */
void heap_remove(struct heap *heap, struct heap_node *node);
