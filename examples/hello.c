/* The smallest use of the library: one task in a warm container.
 *
 *     make && build/examples/hello coder 'echo hello from $AGENT_TYPE'
 */
#include <stdio.h>
#include <stdlib.h>

#include <warmpool/warmpool.h>

int main(int argc, char *argv[])
{
    const char *const settings[] = {"stateDir=/tmp/warmpool-hello", "warmupAgentTypes=coder", "poolSize=1", NULL};
    wp_options options = WP_OPTIONS_INIT;
    options.settings = settings;
    wp_error error;
    wp_executor *executor = wp_executor_open(&options, &error);
    if (executor == NULL || wp_executor_ready(executor, 60000, &error) < 0) {
        fprintf(stderr, "hello: %s\n", error.message);
        wp_executor_close(executor);
        return EXIT_FAILURE;
    }

    const char *const command[] = {"sh", "-c", argc > 2 ? argv[2] : "echo hello from $AGENT_TYPE", NULL};
    wp_task task = WP_TASK_INIT;
    task.agent_type = argc > 1 ? argv[1] : "coder";
    task.argv = command;
    for (int run = 1; run <= 3; run++) {
        wp_result *result = wp_executor_execute(executor, &task, &error);
        if (result == NULL) {
            fprintf(stderr, "hello: %s\n", error.message);
            break;
        }
        fwrite(result->output, 1, result->output_size, stdout);
        fprintf(stderr, "run %d in %s: exit code %d after %.3f ms%s%s\n", run, result->container_name,
                result->exit_code, (double)result->total_us / 1000, result->message[0] != '\0' ? ": " : "",
                result->message);
        wp_result_free(result);
    }
    wp_executor_close(executor);
    return EXIT_SUCCESS;
}
