#include "wire/weaken.h"

#ifdef WARMPOOL_WEAKEN

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *own_list;

void weaken_set(const char *defences)
{
    own_list = defences;
}

const char *weaken_list(const char *agent_type)
{
    static char list[512];
    const char *at = getenv("WARMPOOL_WEAKEN");
    if (agent_type == NULL || own_list != NULL)
        return own_list == NULL ? "" : own_list;
    while (at != NULL && *at != '\0') {
        size_t size = strcspn(at, ";"), name = strcspn(at, "=;");
        bool mine = (strlen(agent_type) == name && memcmp(at, agent_type, name) == 0) || (name == 1 && *at == '*');
        if (mine && name < size) {
            snprintf(list, sizeof list, "%.*s", (int)(size - name - 1), at + name + 1);
            return list;
        }
        at += size + (at[size] == ';');
    }
    return "";
}

bool weakened(const char *agent_type, const char *defence)
{
    size_t length = strlen(defence);
    for (const char *at = weaken_list(agent_type); *at != '\0';) {
        size_t size = strcspn(at, ",");
        if (size == length && memcmp(at, defence, length) == 0)
            return true;
        at += size + (at[size] == ',');
    }
    return false;
}

#else

typedef int weaken_is_empty; /* a file needs a declaration */

#endif
