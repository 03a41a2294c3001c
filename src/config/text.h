/* What a configuration text must be before a parser sees it. */
#pragma once

#include <stddef.h>

#include "base/error.h"

/* UTF-8 without NUL and other control characters, and without directives (lines that begin with %): 0, or -1 with file
 * and line. */
int text_check(const char *text, size_t size, const char *name, struct error *err);
