#include "base/secret.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_MAX 65536U /* as SECRET_BYTES_MAX of the wire */

static bool is_name(const char *name)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
    size_t length = strlen(name);
    return length > 0 && length <= SECRET_NAME_MAX && strspn(name, letters) == length &&
           (name[0] < '0' || name[0] > '9');
}

const char *secret_wrong(const char *name, const void *value, size_t size, bool as_env)
{
    if (!is_name(name))
        return "must have a name of 1 to 64 letters, digits and _ that does not begin with a digit";
    if (as_env && strncmp(name, "WARMPOOL_", 9) == 0)
        return "must not become a variable whose name begins with WARMPOOL_: those are warmpool's own";
    if (size > VALUE_MAX)
        return "must not be larger than 65536 bytes";
    if (as_env && size > 0 && memchr(value, '\0', size) != NULL)
        return "must not contain a NUL to become a variable; as a file it may";
    return NULL;
}

void secret_free(void *memory)
{
    if (memory != NULL)
        explicit_bzero(memory, malloc_usable_size(memory));
    free(memory);
}
