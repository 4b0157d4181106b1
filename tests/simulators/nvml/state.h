/* The file that says how the GPUs are; its name is in LOTABOTS_NVML_STATE. */
#ifndef LOTABOTS_STATE_H
#define LOTABOTS_STATE_H

#include "json.h"

/* What the file holds now; what was got before is gone then. A file that is no JSON ends the process. */
const struct json *state(void);
/* A number or boolean of an object, as a whole number. */
long long whole(const struct json *object, const char *name, long long otherwise);
void pause_ms(long milliseconds);

#endif
