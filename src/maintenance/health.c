#include "maintenance/health.h"

bool health_due(const struct container *container, uint64_t answered_us, uint64_t interval_us, uint64_t now_us)
{
    if (container->state != CONTAINER_IDLE && container->state != CONTAINER_UNHEALTHY)
        return false;
    uint64_t last = answered_us > container->entered_us ? answered_us : container->entered_us;
    return now_us - last >= interval_us;
}

static bool exhausted(uint64_t used, uint64_t limit)
{
    return used != UINT64_MAX && limit != UINT64_MAX && limit != 0 && used >= limit - limit / 20;
}

const char *health_verdict(const struct health_report *report)
{
    if (report->spawn_errno != 0)
        return "it cannot start a process";
    if (exhausted(report->memory_bytes, report->memory_limit))
        return "its memory is exhausted";
    if (exhausted(report->pids, report->pids_limit))
        return "its pids are exhausted";
    return NULL;
}
