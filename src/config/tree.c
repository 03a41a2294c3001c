#include "config/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libfyaml.h>

#include "config/text.h"

#define DEPTH_MAX 8
#define NODES_MAX 20000U
#define TEXT_MAX  131072U /* bytes of one text: what the kernel takes as one argument or variable */

struct builder {
    const char *name;
    struct fy_parser *parser;
    struct error *err;
    struct tree *stack[DEPTH_MAX]; /* open collections, outermost first */
    struct tree **tail[DEPTH_MAX]; /* where the next child goes */
    char *pending_key[DEPTH_MAX];
    int key_line[DEPTH_MAX];
    unsigned depth, nodes;
    int line; /* of the last event that has one: that of an empty value has none */
    struct tree *root;
};

struct tree *tree_free(struct tree *tree)
{
    while (tree != NULL) {
        struct tree *next = tree->next;
        tree_free(tree->first); /* at most DEPTH_MAX deep */
        free(tree->key);
        free(tree->text);
        free(tree);
        tree = next;
    }
    return NULL;
}

static struct tree *tree_new(enum tree_kind kind, const char *text, size_t size)
{
    struct tree *tree = calloc(1, sizeof *tree);
    if (tree == NULL)
        return NULL;
    tree->kind = kind;
    if (text != NULL) {
        tree->text = strndup(text, size);
        if (tree->text == NULL)
            return tree_free(tree);
    }
    return tree;
}

/* Puts a new node where the next child belongs, or makes it the root. */
static int builder_put(struct builder *builder, struct tree *tree, int line)
{
    if (tree == NULL)
        return error_set(builder->err, ERROR_NOMEM, "out of memory");
    tree->line = line;
    if (builder->depth == 0) {
        if (builder->root != NULL) {
            tree_free(tree);
            return error_set(builder->err, ERROR_INVALID, "%s:%d: a second document; one is allowed", builder->name,
                             line);
        }
        builder->root = tree;
        return 0;
    }
    unsigned top = builder->depth - 1;
    tree->key = builder->pending_key[top];
    if (tree->key != NULL)
        tree->line = builder->key_line[top];
    builder->pending_key[top] = NULL;
    *builder->tail[top] = tree;
    builder->tail[top] = &tree->next;
    return 0;
}

static int builder_open(struct builder *builder, enum tree_kind kind, int line)
{
    if (builder->depth == DEPTH_MAX)
        return error_set(builder->err, ERROR_INVALID, "%s:%d: nested more than %d levels deep", builder->name, line,
                         DEPTH_MAX);
    struct tree *tree = tree_new(kind, NULL, 0);
    if (builder_put(builder, tree, line) < 0)
        return -1;
    builder->stack[builder->depth] = tree;
    builder->tail[builder->depth] = &tree->first;
    builder->depth++;
    return 0;
}

static int check_key(const struct builder *builder, const char *key, int line)
{
    for (const struct tree *other = builder->stack[builder->depth - 1]->first; other != NULL; other = other->next)
        if (other->key != NULL && strcmp(other->key, key) == 0)
            return error_set(builder->err, ERROR_INVALID, "%s:%d: %.64s: given twice; the first is on line %d",
                             builder->name, line, key, other->line);
    if (strcmp(key, "<<") == 0)
        return error_set(builder->err, ERROR_INVALID, "%s:%d: <<: a merge key; write the values out", builder->name,
                         line);
    return 0;
}

static int builder_scalar(struct builder *builder, struct fy_token *token, int line)
{
    size_t size = 0;
    const char *text = token == NULL ? "" : fy_token_get_text(token, &size);
    if (text == NULL || memchr(text, '\0', size) != NULL)
        return error_set(builder->err, ERROR_INVALID, "%s:%d: a text with a NUL in it", builder->name, line);
    if (size > TEXT_MAX)
        return error_set(builder->err, ERROR_INVALID, "%s:%d: a text of %zu bytes; allowed: at most %u", builder->name,
                         line, size, TEXT_MAX);
    bool is_key = builder->depth > 0 && builder->stack[builder->depth - 1]->kind == TREE_MAPPING &&
                  builder->pending_key[builder->depth - 1] == NULL;
    if (!is_key)
        return builder_put(builder, tree_new(TREE_SCALAR, text, size), line);
    char *key = strndup(text, size);
    if (key == NULL)
        return error_set(builder->err, ERROR_NOMEM, "out of memory");
    builder->pending_key[builder->depth - 1] = key;
    builder->key_line[builder->depth - 1] = line;
    return check_key(builder, key, line);
}

/* Neither says anything about the configuration, and an anchor is of no use without an alias. */
static int check_decoration(const struct builder *builder, const struct fy_event *event, int line)
{
    const struct fy_token *anchor = NULL, *tag = NULL;
    if (event->type == FYET_SCALAR) {
        anchor = event->scalar.anchor;
        tag = event->scalar.tag;
    } else if (event->type == FYET_MAPPING_START) {
        anchor = event->mapping_start.anchor;
        tag = event->mapping_start.tag;
    } else if (event->type == FYET_SEQUENCE_START) {
        anchor = event->sequence_start.anchor;
        tag = event->sequence_start.tag;
    }
    if (anchor != NULL)
        return error_set(builder->err, ERROR_INVALID, "%s:%d: an anchor (&); write the value out where it is needed",
                         builder->name, line);
    if (tag != NULL)
        return error_set(builder->err, ERROR_INVALID, "%s:%d: a tag (!); write the value without it", builder->name,
                         line);
    return 0;
}

static int builder_event(struct builder *builder, struct fy_event *event)
{
    const struct fy_mark *mark = fy_event_start_mark(event);
    int line = mark == NULL || mark->line < 0 ? builder->line : mark->line + 1;
    builder->line = line;
    if (++builder->nodes > NODES_MAX)
        return error_set(builder->err, ERROR_INVALID, "%s:%d: more than %u nodes", builder->name, line, NODES_MAX);
    if (check_decoration(builder, event, line) < 0)
        return -1;
    bool key_expected = builder->depth > 0 && builder->stack[builder->depth - 1]->kind == TREE_MAPPING &&
                        builder->pending_key[builder->depth - 1] == NULL;
    switch ((int)event->type) {
    case FYET_SCALAR:
        return builder_scalar(builder, event->scalar.value, line);
    case FYET_MAPPING_START:
    case FYET_SEQUENCE_START:
        if (key_expected)
            return error_set(builder->err, ERROR_INVALID, "%s:%d: a key must be a text", builder->name, line);
        return builder_open(builder, event->type == FYET_MAPPING_START ? TREE_MAPPING : TREE_SEQUENCE, line);
    case FYET_MAPPING_END:
    case FYET_SEQUENCE_END:
        builder->depth--;
        return 0;
    case FYET_ALIAS:
        return error_set(builder->err, ERROR_INVALID, "%s:%d: an alias (*); write the value out", builder->name, line);
    default:
        return 0;
    }
}

/* libfyaml's words go nowhere: its errors are collected. (Printing one, it reads beyond some texts' end: 0.7.12.) */
static void on_words(struct fy_diag *diag, void *user, const char *text, size_t size)
{
    (void)diag;
    (void)user;
    (void)text;
    (void)size;
}

/* Its first complaint. False: it has none. */
static bool complained(struct fy_diag *diag, const char *name, struct error *err)
{
    void *iterator = NULL;
    const struct fy_diag_error *first = fy_diag_errors_iterate(diag, &iterator);
    if (first == NULL)
        return false;
    error_set(err, ERROR_INVALID, "%s:%d: not YAML: %.160s (column %d)", name, first->line,
              first->msg != NULL ? first->msg : "an error", first->column);
    return true;
}

static int parse_events(struct builder *builder, struct fy_diag *diag)
{
    for (;;) {
        struct fy_event *event = fy_parser_parse(builder->parser);
        if (event == NULL)
            break;
        int result = builder_event(builder, event);
        fy_parser_event_free(builder->parser, event);
        if (result < 0)
            return -1;
    }
    if (complained(diag, builder->name, builder->err))
        return -1;
    return fy_parser_get_stream_error(builder->parser)
               ? error_set(builder->err, ERROR_INVALID, "%s: not YAML", builder->name)
               : 0;
}

struct tree *tree_parse(const char *text, size_t size, const char *name, struct error *err)
{
    if (text_check(text, size, name, err) < 0)
        return NULL;
    struct fy_diag_cfg diag_cfg;
    fy_diag_cfg_default(&diag_cfg);
    diag_cfg.fp = NULL;
    diag_cfg.output_fn = on_words;
    diag_cfg.colorize = false;
    diag_cfg.show_source = false;
    diag_cfg.show_position = true;
    struct fy_diag *diag = fy_diag_create(&diag_cfg);
    if (diag != NULL)
        fy_diag_set_collect_errors(diag, true);
    struct fy_parse_cfg cfg = {.search_path = "", .flags = FYPCF_DEFAULT_PARSE | FYPCF_JSON_NONE, .diag = diag};
    struct builder builder = {.name = name, .parser = diag == NULL ? NULL : fy_parser_create(&cfg), .err = err};
    int result = -1;
    if (builder.parser == NULL || fy_parser_set_string(builder.parser, text, size) < 0)
        error_set(err, ERROR_NOMEM, "out of memory");
    else
        result = parse_events(&builder, diag);
    if (builder.parser != NULL)
        fy_parser_destroy(builder.parser);
    fy_diag_destroy(diag);
    for (unsigned i = 0; i < DEPTH_MAX; i++)
        free(builder.pending_key[i]);
    if (result < 0)
        return tree_free(builder.root);
    if (builder.root == NULL || (builder.root->kind == TREE_SCALAR && builder.root->text[0] == '\0')) {
        tree_free(builder.root);
        builder.root = tree_new(TREE_MAPPING, NULL, 0);
    }
    if (builder.root != NULL && builder.root->kind != TREE_MAPPING) {
        error_set(err, ERROR_INVALID, "%s:%d: the configuration must be a mapping of keys to values", name,
                  builder.root->line);
        return tree_free(builder.root);
    }
    return builder.root;
}

/* --- from settings ---------------------------------------------------------------------------------------- */

struct tree *tree_scalar(const char *text)
{
    return tree_new(TREE_SCALAR, text, strlen(text));
}

static struct tree *split(const char *text, enum tree_kind kind)
{
    struct tree *list = tree_new(kind, NULL, 0);
    struct tree **tail = list == NULL ? NULL : &list->first;
    while (list != NULL && *(text += strspn(text, " ,")) != '\0') {
        size_t size = strcspn(text, ",");
        size_t trimmed = size;
        while (trimmed > 0 && text[trimmed - 1] == ' ')
            trimmed--;
        const char *equals = kind == TREE_MAPPING ? memchr(text, '=', trimmed) : NULL;
        size_t skip = equals == NULL ? 0 : (size_t)(equals - text) + 1;
        struct tree *item = tree_new(TREE_SCALAR, text + skip, trimmed - skip);
        if (item != NULL && kind == TREE_MAPPING)
            item->key = strndup(text, equals == NULL ? trimmed : skip - 1);
        if (item == NULL || (kind == TREE_MAPPING && item->key == NULL)) {
            tree_free(item);
            return tree_free(list);
        }
        *tail = item;
        tail = &item->next;
        text += size;
    }
    return list;
}

struct tree *tree_sequence(const char *text)
{
    return split(text, TREE_SEQUENCE);
}

struct tree *tree_mapping(const char *text)
{
    return split(text, TREE_MAPPING);
}
