/* The default agent image: a root file system of the host's static busybox, made without a registry. */
#pragma once

#include "base/buffer.h"
#include "base/error.h"
#include "engine/engine.h"

#define IMAGE_BUSYBOX "/bin/busybox"

/* Appends the root file system as a tar to `out`. Blocks for some milliseconds: it reads the program and asks it for
 * its applets. ERROR_NOT_FOUND or ERROR_INVALID, with the mend in words, when there is no static busybox. The same
 * host gives the same bytes each time. */
int image_tar_build(struct buffer *out, struct error *err);

/* As above, from the busybox at `path`. */
int image_tar_build_from(const char *path, struct buffer *out, struct error *err);

/* Builds the tar and imports it as `tag`. Answers once, later, with the image's id. `tag` is copied. */
void image_build(struct engine *engine, const char *tag, engine_id_fn *done, void *user);
