/* What the kernel counts for the whole container: cgroup v1 and v2, network interfaces. Files are opened once. A memory
 * peak cannot be reset from inside, so it says something about a task only when it rose during that task. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "runner/runner.h"

#define V1 "/sys/fs/cgroup/"

static int open_read(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC);
}

static uint64_t parse_number(const char *text)
{
    if (*text < '0' || *text > '9')
        return UINT64_MAX; /* "max" */
    uint64_t value = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (uint64_t)(*text - '0');
    return value;
}

static uint64_t read_number(int fd)
{
    char text[64];
    return read_again(fd, text, sizeof text) > 0 ? parse_number(text) : UINT64_MAX;
}

/* The number after "key " at a line's beginning. */
static uint64_t read_keyed(int fd, const char *key)
{
    char text[1024];
    size_t length = strlen(key);
    if (read_again(fd, text, sizeof text) <= 0)
        return UINT64_MAX;
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) == 0)
            return parse_number(line + length);
    }
    return UINT64_MAX;
}

void figures_open(struct figures *figures)
{
    *figures = (struct figures){.peak_fd = open_read(V1 "memory/memory.max_usage_in_bytes")};
    if (figures->peak_fd >= 0) {
        figures->cpu_fd = open_read(V1 "cpuacct/cpuacct.usage");
        if (figures->cpu_fd < 0)
            figures->cpu_fd = open_read(V1 "cpu,cpuacct/cpuacct.usage");
        figures->oom_fd = open_read(V1 "memory/memory.oom_control");
    } else {
        figures->version2 = true;
        figures->peak_fd = open_read(V1 "memory.peak");
        figures->cpu_fd = open_read(V1 "cpu.stat");
        figures->oom_fd = open_read(V1 "memory.events");
    }
    figures->net_fd = open_read("/proc/net/dev");
}

static uint64_t read_cpu_us(const struct figures *figures)
{
    if (figures->version2)
        return read_keyed(figures->cpu_fd, "usage_usec ");
    uint64_t nanoseconds = read_number(figures->cpu_fd);
    return nanoseconds == UINT64_MAX ? UINT64_MAX : nanoseconds / 1000;
}

/* Received and sent bytes of all interfaces but lo; unmeasured when there is no other. */
static uint64_t read_network(int fd)
{
    char text[4096];
    uint64_t sum = 0;
    bool any = false;
    if (read_again(fd, text, sizeof text) <= 0)
        return UINT64_MAX;
    for (char *colon = strchr(text, ':'); colon != NULL; colon = strchr(colon + 1, ':')) {
        char *name = colon;
        while (name > text && name[-1] != ' ' && name[-1] != '\n')
            name--;
        const char *at = colon + 1;
        uint64_t columns[9];
        for (unsigned i = 0; i < 9; i++) {
            at += strspn(at, " ");
            columns[i] = parse_number(at);
            at += strcspn(at, " \n");
        }
        if (strncmp(name, "lo:", 3) == 0 || columns[0] == UINT64_MAX || columns[8] == UINT64_MAX)
            continue;
        any = true;
        sum += columns[0] + columns[8];
    }
    return any ? sum : UINT64_MAX;
}

void figures_read(struct figures *figures)
{
    figures->peak = read_number(figures->peak_fd);
    figures->cpu_us = read_cpu_us(figures);
    figures->oom_kills = read_keyed(figures->oom_fd, "oom_kill ");
    figures->network = read_network(figures->net_fd);
}

static uint64_t difference(uint64_t before, uint64_t after)
{
    return before == UINT64_MAX || after == UINT64_MAX || after < before ? EXIT_UNMEASURED : after - before;
}

void figures_exit(struct figures *figures, struct message_exit *exit, bool sigkilled)
{
    uint64_t peak = read_number(figures->peak_fd);
    if (peak != UINT64_MAX && figures->peak != UINT64_MAX && peak > figures->peak) {
        exit->peak_bytes = peak;
        exit->peak_source = PEAK_CGROUP;
    }
    exit->cgroup_cpu_us = difference(figures->cpu_us, read_cpu_us(figures));
    if (figures->network != UINT64_MAX)
        exit->network_bytes = difference(figures->network, read_network(figures->net_fd));
    if (exit->outcome == EXIT_SIGNALED && exit->signal == 9 && !sigkilled) {
        uint64_t kills = read_keyed(figures->oom_fd, "oom_kill ");
        if (kills != UINT64_MAX && figures->oom_kills != UINT64_MAX && kills > figures->oom_kills)
            exit->outcome = EXIT_OOM_KILLED;
    }
}

static uint64_t read_path(const char *path)
{
    int fd = open_read(path);
    uint64_t value = read_number(fd);
    if (fd >= 0)
        close(fd);
    return value;
}

void figures_pong(const struct figures *figures, struct message_pong *pong)
{
    bool two = figures->version2;
    pong->memory_bytes = read_path(two ? V1 "memory.current" : V1 "memory/memory.usage_in_bytes");
    pong->memory_limit = read_path(two ? V1 "memory.max" : V1 "memory/memory.limit_in_bytes");
    pong->pids = read_path(two ? V1 "pids.current" : V1 "pids/pids.current");
    pong->pids_limit = read_path(two ? V1 "pids.max" : V1 "pids/pids.max");
}
