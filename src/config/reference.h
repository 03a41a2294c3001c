/* Names of images, by Docker's rules: [HOST[:PORT]/]PATH[:TAG][@DIGEST]. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define REFERENCE_HUB "docker.io" /* the registry of references that name none */

struct reference {
    char name[256];     /* host and path, as written: "registry.example:5000/team/image" */
    size_t host_length; /* of the host and port in it; 0: it names none */
    char tag[129];      /* "" when not given */
    char digest[160];   /* "sha256:..."; "" when not given */
};

/* -1 with ERROR_INVALID, which says what is wrong where. */
int reference_parse(struct reference *reference, const char *text, struct error *err);

/* Where it is looked for: the host that it names, else REFERENCE_HUB. */
void reference_server(const struct reference *reference, char *server, size_t size);
/* "docker.io/library/busybox" for "busybox": the same for all ways to write the same repository. */
void reference_repository(const struct reference *reference, char *repository, size_t size);

/* What to put before references without a host: HOST[:PORT][/PATH], without a scheme. */
int registry_check(const char *registry, struct error *err);

/* reference_parse() for one that only has to be right; an image's id ("sha256:...") is, too. */
int reference_check(const char *reference, struct error *err);

/* Does it say itself which registry it is of? */
bool reference_names_registry(const char *reference);

/* As it is called at `registry` ("" and NULL: none is configured, and it stays). The caller frees; NULL: out of memory.
 */
char *reference_at(const char *registry, const char *reference);

/* With the digest in place of tag or digest. The caller frees; NULL: out of memory. */
char *reference_pinned(const char *reference, const char *digest);
