#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash_string(const char *text)
{
    uint32_t hash = 2166136261U;
    for (; *text != '\0'; text++)
        hash = (hash ^ (uint8_t)*text) * 16777619U;
    return hash;
}

struct hash_node *hash_find(const struct hash_table *table, const char *key)
{
    if (table->size == 0)
        return NULL;
    uint32_t hash = hash_string(key);
    struct hash_node *node = table->buckets[hash & (table->size - 1)];
    while (node != NULL && (node->hash != hash || strcmp(node->key, key) != 0))
        node = node->next;
    return node;
}

static bool hash_grow(struct hash_table *table)
{
    size_t size = table->size == 0 ? 64 : table->size * 2;
    struct hash_node **buckets = calloc(size, sizeof *buckets);
    if (buckets == NULL)
        return false;
    for (size_t i = 0; i < table->size; i++) {
        while (table->buckets[i] != NULL) {
            struct hash_node *node = table->buckets[i];
            table->buckets[i] = node->next;
            node->next = buckets[node->hash & (size - 1)];
            buckets[node->hash & (size - 1)] = node;
        }
    }
    free(table->buckets);
    table->buckets = buckets;
    table->size = size;
    return true;
}

bool hash_add(struct hash_table *table, struct hash_node *node, const char *key)
{
    if (table->count >= table->size && !hash_grow(table))
        return false;
    node->key = key;
    node->hash = hash_string(key);
    struct hash_node **bucket = &table->buckets[node->hash & (table->size - 1)];
    node->next = *bucket;
    *bucket = node;
    table->count++;
    return true;
}

void hash_remove(struct hash_table *table, struct hash_node *node)
{
    struct hash_node **place = &table->buckets[node->hash & (table->size - 1)];
    while (*place != node)
        place = &(*place)->next;
    *place = node->next;
    table->count--;
}

void hash_free(struct hash_table *table)
{
    free(table->buckets);
    *table = (struct hash_table){0};
}
