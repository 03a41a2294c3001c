/* Intrusive hash table from strings to objects: an object holds a `struct hash_node` whose key points into the object.
 * Buckets double as it grows; a zeroed table is a valid empty one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash_node {
    struct hash_node *next;
    const char *key;
    uint32_t hash;
};

struct hash_table {
    struct hash_node **buckets; /* owned */
    size_t size, count;         /* size: 0 or a power of two */
};

#define hash_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

/* NULL when absent. */
struct hash_node *hash_find(const struct hash_table *table, const char *key);

/* The key must not be there yet and must live as long as the node. False when out of memory. */
bool hash_add(struct hash_table *table, struct hash_node *node, const char *key);

/* The node must be in the table. */
void hash_remove(struct hash_table *table, struct hash_node *node);

/* Frees the buckets; the nodes are the caller's. */
void hash_free(struct hash_table *table);
