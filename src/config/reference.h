/* Names of images: [HOST[:PORT]/]PATH[:TAG][@sha256:DIGEST], by the rules of registries. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

/* -1 with what is wrong about it. */
int reference_check(const char *reference, struct error *err);

/* Does it say itself which registry it is of? Its first component is a host then: it has a dot, a port, or is
 * localhost. */
bool reference_names_registry(const char *reference);

/* As it is called at `registry` ("" and NULL: none is configured, and it stays). The caller frees; NULL: out of memory.
 */
char *reference_at(const char *registry, const char *reference);

/* With the digest in place of tag or digest. The caller frees. */
char *reference_pinned(const char *reference, const char *digest);
