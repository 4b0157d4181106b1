/* The file that says how the GPUs are: read again when it changes. */
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static struct json *now;
static struct stat known;

const struct json *state(void) {
    const char *path = getenv("LOTABOTS_NVML_STATE");
    struct stat found;
    if (!path || stat(path, &found)) return now;
    if (now && found.st_ino == known.st_ino && found.st_size == known.st_size &&
        !memcmp(&found.st_mtim, &known.st_mtim, sizeof found.st_mtim))
        return now;
    FILE *file = fopen(path, "rb");
    if (!file) return now;
    char *text = calloc(1, (size_t)found.st_size + 1);
    struct json *read = NULL;
    if (text && fread(text, 1, (size_t)found.st_size, file) == (size_t)found.st_size) read = json_parse(text);
    free(text);
    fclose(file);
    if (!read) { /* a mistake of the test: say so instead of going on with old GPUs */
        fprintf(stderr, "nvml stand-in: %s is no JSON\n", path);
        abort();
    }
    json_free(now);
    now = read;
    known = found;
    return now;
}

long long whole(const struct json *object, const char *name, long long otherwise) {
    const struct json *found = json_get(object, name);
    return found ? found->whole : otherwise;
}

void pause_ms(long milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    nanosleep(&time, NULL);
}
