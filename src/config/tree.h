/* A configuration text as a small tree, each node with its line. Bounded: no aliases, at most 8 levels and 20,000
 * nodes. */
#pragma once

#include <stddef.h>

#include "base/error.h"

enum tree_kind { TREE_SCALAR, TREE_SEQUENCE, TREE_MAPPING };

struct tree {
    enum tree_kind kind;
    int line;           /* from 1; 0: not from a file */
    char *key;          /* in a mapping */
    char *text;         /* of a scalar */
    struct tree *first; /* child */
    struct tree *next;  /* sibling */
};

/* NULL with `err`; an empty text is an empty mapping. Free with tree_free(). */
struct tree *tree_parse(const char *text, size_t size, const char *name, struct error *err);
struct tree *tree_free(struct tree *tree); /* siblings too; returns NULL */

/* From a setting's text: "a, b" becomes a sequence, and "k=v, l=w" a mapping. NULL when out of memory. */
struct tree *tree_scalar(const char *text);
struct tree *tree_sequence(const char *text);
struct tree *tree_mapping(const char *text);
