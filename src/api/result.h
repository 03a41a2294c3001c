/* The JSON that the API gives: the seed's ExecutionResult, PoolMetrics and AgentContainerInfo, field for field, and
 * what goes beyond. */
#pragma once

#include "base/buffer.h"
#include "executor/executor.h"

/* Without output and error when `output` is false. */
void result_write(struct buffer *out, const struct task_result *result, bool output);
void metrics_write(struct buffer *out, const struct executor *executor);
void containers_write(struct buffer *out, const struct executor *executor);
void pool_write(struct buffer *out, const struct pool_info *info);
void pools_write(struct buffer *out, const struct executor *executor);
void lease_write(struct buffer *out, const struct lease_info *info);
void leases_write(struct buffer *out, const struct executor *executor);
void status_write(struct buffer *out, const struct executor *executor, const char *socket);
void error_write(struct buffer *out, const char *code, const char *message, const char *hint);
