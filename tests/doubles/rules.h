/* What an engine of other API versions would say and would not: the rules of the engine double. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"

struct speech {
    int least, most; /* 1.LEAST to 1.MOST; most 0: as the real engine does */
};

/* "1.44-1.51" */
int speech_parse(struct speech *speech, const char *text);

/* The path as the real engine takes it: without a version. NULL, and `words` why, when Docker would refuse that
 * version. */
const char *speech_path(const struct speech *speech, const char *path, char *words, size_t size);

/* Which bodies have to be seen whole. */
enum rule { RULE_NONE, RULE_VERSION, RULE_CREATE_CONTAINER, RULE_CREATE_NETWORK, RULE_INSPECT_IMAGE };
enum rule speech_rule(const struct speech *speech, const char *method, const char *path);

/* A request's or an answer's JSON body as those versions have it. What is no JSON stays. */
void speech_body(const struct speech *speech, enum rule rule, struct buffer *body);
