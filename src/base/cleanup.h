/* Cleanup attributes: `_cleanup_free_ char *text = NULL;`. Handing over is visible: `text = NULL;`
 * or `fd = -1; // consumed`. close() is never retried. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buffer.h"

static inline void cleanup_free_pointer(void *pointer)
{
    free(*(void **)pointer);
}

static inline void cleanup_close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cleanup_close_file(FILE **file)
{
    if (*file != NULL)
        fclose(*file);
}

#define _cleanup_free_   __attribute__((cleanup(cleanup_free_pointer)))
#define _cleanup_close_  __attribute__((cleanup(cleanup_close_fd)))
#define _cleanup_fclose_ __attribute__((cleanup(cleanup_close_file)))
#define _cleanup_buffer_ __attribute__((cleanup(buffer_free)))
