/* Stand in for libnvidia-ml.so.1: GPUs and their failures as a JSON file says, read again when it changes.
 *
 * The file is named by LOTABOTS_NVML_STATE; README.md beside this file says what can stand in it. A value that
 * is not there is "not supported", as for a GPU that does not have it. For one calling thread at a time.
 */
#include "nvml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

#define API __attribute__((visibility("default"))) nvmlReturn_t
#define TRY(call)                                        \
    do {                                                 \
        nvmlReturn_t refused = (call);                   \
        if (refused != NVML_SUCCESS) return refused;     \
    } while (0)

enum { MAX_HANDLES = 256, STEP_MS = 5 };

struct handle { char uuid[96]; };
struct event_set { long long seen; };

static struct handle handles[MAX_HANDLES];
static unsigned handle_count;
static int starts;

/* ---- the beginning of every call: hang, then fail, as the file says ------------------------------------ */

static nvmlReturn_t scripted(const struct json *object, const char *function) {
    return (nvmlReturn_t)whole(json_get(object, "fails"), function, NVML_SUCCESS);
}

static nvmlReturn_t begin(const char *function) {
    for (long long spent = 0; spent < whole(json_get(state(), "hangs_ms"), function, 0); spent += STEP_MS)
        pause_ms(STEP_MS); /* ends early when the file no longer says so */
    return scripted(state(), function);
}

static nvmlReturn_t begun(const char *function) {
    if (!starts) return NVML_UNINITIALIZED;
    return begin(function);
}

static int named(const struct json *device, const char *uuid) {
    const struct json *found = json_get(device, "uuid");
    return found && found->text && !strcmp(found->text, uuid);
}

static const struct json *mig_of(const struct json *gpu, const char *uuid) {
    const struct json *list = json_get(gpu, "mig_devices");
    for (const struct json *mig = json_at(list, 0); mig; mig = mig->next)
        if (named(mig, uuid)) return mig;
    return NULL;
}

/* The GPU of a handle, and in `device` the GPU or the MIG device that the handle is of. */
static nvmlReturn_t find(const char *function, nvmlDevice_t handle, const struct json **device,
                         const struct json **whole_gpu) {
    TRY(begun(function));
    if (!handle || handle < handles || handle >= handles + handle_count) return NVML_INVALID_ARGUMENT;
    for (const struct json *gpu = json_at(json_get(state(), "gpus"), 0); gpu; gpu = gpu->next) {
        const struct json *mig = mig_of(gpu, handle->uuid);
        if (!mig && !named(gpu, handle->uuid)) continue;
        if (whole(gpu, "lost", 0)) return NVML_GPU_IS_LOST;
        if (whole(gpu, "off_the_bus", 0)) return NVML_UNKNOWN;
        *device = mig ? mig : gpu;
        if (whole_gpu) *whole_gpu = gpu;
        return scripted(gpu, function);
    }
    return NVML_GPU_IS_LOST;
}

#define DEVICE(handle)         \
    const struct json *device; \
    TRY(find(__func__, handle, &device, NULL))

static nvmlReturn_t put_text(const struct json *object, const char *name, char *to, unsigned length) {
    const struct json *found = json_get(object, name);
    if (!found || !found->text) return NVML_NOT_SUPPORTED;
    if (strlen(found->text) >= length) return NVML_INSUFFICIENT_SIZE;
    strcpy(to, found->text);
    return NVML_SUCCESS;
}

static nvmlReturn_t put_whole(const struct json *object, const char *name, unsigned *to) {
    const struct json *found = json_get(object, name);
    if (!found) return NVML_NOT_SUPPORTED;
    *to = (unsigned)found->whole;
    return NVML_SUCCESS;
}

static nvmlReturn_t put_large(const struct json *object, const char *name, unsigned long long *to) {
    const struct json *found = json_get(object, name);
    if (!found) return NVML_NOT_SUPPORTED;
    *to = (unsigned long long)found->whole;
    return NVML_SUCCESS;
}

static nvmlReturn_t put_handle(const struct json *device, nvmlDevice_t *to) {
    const char *uuid = json_get(device, "uuid")->text;
    for (unsigned i = 0; i <= handle_count && i < MAX_HANDLES; ++i) {
        if (i == handle_count) snprintf(handles[handle_count++].uuid, sizeof handles->uuid, "%s", uuid);
        if (strcmp(handles[i].uuid, uuid)) continue;
        *to = &handles[i];
        return NVML_SUCCESS;
    }
    return NVML_UNKNOWN;
}

/* ---- the library ------------------------------------------------------------------------------------- */

API nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    TRY(begin(__func__));
    ++starts;
    return NVML_SUCCESS;
}

API nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

API nvmlShutdown(void) {
    TRY(begun(__func__));
    --starts;
    return NVML_SUCCESS;
}

__attribute__((visibility("default"))) const char *nvmlErrorString(nvmlReturn_t error) {
    static char text[32];
    snprintf(text, sizeof text, "stand-in error %d", error);
    return text;
}

API nvmlSystemGetDriverVersion(char *to, unsigned length) {
    TRY(begun(__func__));
    return put_text(state(), "driver_version", to, length);
}

API nvmlSystemGetNVMLVersion(char *to, unsigned length) {
    TRY(begun(__func__));
    return put_text(state(), "nvml_version", to, length);
}

API nvmlSystemGetConfComputeState(struct conf_compute *to) {
    TRY(begun(__func__));
    const struct json *found = json_get(state(), "confidential_computing");
    if (!found) return NVML_NOT_SUPPORTED;
    to->environment = (unsigned)whole(found, "environment", 0);
    to->feature = (unsigned)whole(found, "feature", 0);
    to->dev_tools_mode = (unsigned)whole(found, "dev_tools_mode", 0);
    return NVML_SUCCESS;
}

API nvmlDeviceGetCount_v2(unsigned *to) {
    TRY(begun(__func__));
    *to = json_count(json_get(state(), "gpus"));
    return NVML_SUCCESS;
}

static nvmlReturn_t open_gpu(const char *function, const struct json *gpu, nvmlDevice_t *to) {
    if (!gpu) return NVML_NOT_FOUND;
    if (whole(gpu, "off_the_bus", 0)) return NVML_GPU_IS_LOST; /* what is gone gets no handle */
    TRY(scripted(gpu, function));
    return put_handle(gpu, to);
}

API nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *to) {
    TRY(begun(__func__));
    const struct json *gpu = json_at(json_get(state(), "gpus"), index);
    return gpu ? open_gpu(__func__, gpu, to) : NVML_INVALID_ARGUMENT;
}

static const struct json *gpu_with(const char *name, const char *text) {
    const struct json *gpu = json_at(json_get(state(), "gpus"), 0);
    for (; gpu; gpu = gpu->next) {
        const struct json *found = json_get(gpu, name);
        if (found && found->text && !strcmp(found->text, text)) break;
    }
    return gpu;
}

API nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *to) {
    TRY(begun(__func__));
    return open_gpu(__func__, gpu_with("uuid", uuid), to);
}

API nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *to) {
    TRY(begun(__func__));
    return open_gpu(__func__, gpu_with("pci_bus_id", bus_id), to);
}

/* ---- one GPU: what it is ----------------------------------------------------------------------------- */

#define TEXT(function, name)                              \
    API function(nvmlDevice_t handle, char *to, unsigned length) { \
        DEVICE(handle);                                   \
        return put_text(device, name, to, length);        \
    }
#define WHOLE(function, name)                             \
    API function(nvmlDevice_t handle, unsigned *to) {     \
        DEVICE(handle);                                   \
        return put_whole(device, name, to);               \
    }
#define LARGE(function, name)                             \
    API function(nvmlDevice_t handle, unsigned long long *to) { \
        DEVICE(handle);                                   \
        return put_large(device, name, to);               \
    }

TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")
WHOLE(nvmlDeviceGetPowerUsage, "power_milliwatts")
WHOLE(nvmlDeviceGetEnforcedPowerLimit, "power_limit_milliwatts")
WHOLE(nvmlDeviceGetPcieReplayCounter, "pcie_replays")
WHOLE(nvmlDeviceGetGpuInstanceId, "gpu_instance")
WHOLE(nvmlDeviceGetComputeInstanceId, "compute_instance")
LARGE(nvmlDeviceGetCurrentClocksEventReasons, "clocks_event_reasons")
LARGE(nvmlDeviceGetCurrentClocksThrottleReasons, "clocks_event_reasons") /* its name before driver 535 */
LARGE(nvmlDeviceGetTotalEnergyConsumption, "energy_millijoules")

API nvmlDeviceGetPciInfo_v3(nvmlDevice_t handle, struct pci *to) {
    DEVICE(handle);
    memset(to, 0, sizeof *to);
    TRY(put_text(device, "pci_bus_id", to->bus_id, sizeof to->bus_id));
    sscanf(to->bus_id, "%x:%x:%x", &to->domain, &to->bus, &to->device);
    snprintf(to->legacy_bus_id, sizeof to->legacy_bus_id, "%04x:%02x:%02x.0", to->domain & 0xFFFF,
             to->bus & 0xFF, to->device & 0xFF);
    return NVML_SUCCESS;
}

/* ---- one GPU: how it is ------------------------------------------------------------------------------ */

API nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, struct memory_v1 *to) {
    DEVICE(handle);
    const struct json *memory = json_get(device, "memory");
    TRY(put_large(memory, "total", &to->total));
    to->used = (unsigned long long)(whole(memory, "used", 0) + whole(memory, "reserved", 0));
    to->free = to->total - to->used;
    return NVML_SUCCESS;
}

API nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, struct memory_v2 *to) {
    DEVICE(handle);
    const struct json *memory = json_get(device, "memory");
    if (to->version != MEMORY_V2) return NVML_INVALID_ARGUMENT;
    TRY(put_large(memory, "total", &to->total));
    to->used = (unsigned long long)whole(memory, "used", 0);
    to->reserved = (unsigned long long)whole(memory, "reserved", 0);
    to->free = to->total - to->used - to->reserved;
    return NVML_SUCCESS;
}

API nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, struct utilisation *to) {
    DEVICE(handle);
    const struct json *found = json_get(device, "utilisation");
    TRY(put_whole(found, "gpu", &to->gpu));
    return put_whole(found, "memory", &to->memory);
}

API nvmlDeviceGetTemperature(nvmlDevice_t handle, unsigned sensor, unsigned *to) {
    DEVICE(handle);
    return sensor ? NVML_INVALID_ARGUMENT : put_whole(device, "temperature", to);
}

API nvmlDeviceGetTemperatureThreshold(nvmlDevice_t handle, unsigned which, unsigned *to) {
    DEVICE(handle);
    return put_whole(device, which == 1 ? "slowdown_temperature" : "shutdown_temperature", to);
}

API nvmlDeviceGetClockInfo(nvmlDevice_t handle, unsigned type, unsigned *to) {
    static const char *names[] = {"graphics", "sm", "memory", "video"};
    DEVICE(handle);
    return type > 3 ? NVML_INVALID_ARGUMENT : put_whole(json_get(device, "clocks"), names[type], to);
}

API nvmlDeviceGetTotalEccErrors(nvmlDevice_t handle, unsigned type, unsigned since, unsigned long long *to) {
    DEVICE(handle);
    const struct json *ecc = json_get(device, since ? "ecc_lifetime" : "ecc");
    return put_large(ecc, type ? "uncorrected" : "corrected", to);
}

API nvmlDeviceGetRemappedRows(nvmlDevice_t handle, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failed) {
    DEVICE(handle);
    const struct json *rows = json_get(device, "remapped_rows");
    TRY(put_whole(rows, "corrected", corrected));
    TRY(put_whole(rows, "uncorrected", uncorrected));
    TRY(put_whole(rows, "pending", pending));
    return put_whole(rows, "failed", failed);
}

API nvmlDeviceGetFieldValues(nvmlDevice_t handle, int count, struct field *fields) {
    DEVICE(handle);
    for (int i = 0; i < count; ++i) {
        const char *name = fields[i].id == FIELD_MEMORY_TEMP       ? "memory_temperature"
                           : fields[i].id == FIELD_RECOVERY_ACTION ? "recovery_action"
                                                                   : "";
        fields[i].value_type = 1;
        fields[i].returned = put_whole(device, name, &fields[i].value.whole);
    }
    return NVML_SUCCESS;
}

API nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t handle, unsigned *count, struct process *to) {
    DEVICE(handle);
    const struct json *list = json_get(device, "processes");
    unsigned found = json_count(list), room = *count;
    *count = found;
    if (found > room || (found && !to)) return NVML_INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < found; ++i) {
        const struct json *process = json_at(list, i);
        to[i].pid = (unsigned)whole(process, "pid", 0);
        to[i].memory = (unsigned long long)whole(process, "memory", -1); /* -1: not available */
        to[i].gpu_instance = to[i].compute_instance = 0xFFFFFFFF;
    }
    return NVML_SUCCESS;
}

/* ---- MIG --------------------------------------------------------------------------------------------- */

API nvmlDeviceGetMigMode(nvmlDevice_t handle, unsigned *current, unsigned *pending) {
    DEVICE(handle);
    TRY(put_whole(device, "mig", current));
    *pending = (unsigned)whole(device, "mig_pending", *current);
    return NVML_SUCCESS;
}

API nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t handle, unsigned *to) {
    DEVICE(handle);
    *to = json_get(device, "mig") ? 7 : 0;
    return NVML_SUCCESS;
}

API nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t handle, unsigned index, nvmlDevice_t *to) {
    DEVICE(handle);
    const struct json *mig = json_at(json_get(device, "mig_devices"), index);
    return mig ? put_handle(mig, to) : NVML_NOT_FOUND;
}

API nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t handle, nvmlDevice_t *to) {
    const struct json *device, *gpu;
    TRY(find(__func__, handle, &device, &gpu));
    return device == gpu ? NVML_INVALID_ARGUMENT : put_handle(gpu, to);
}

API nvmlDeviceGetAttributes_v2(nvmlDevice_t handle, struct attributes *to) {
    DEVICE(handle);
    const struct json *found = json_get(device, "attributes");
    memset(to, 0, sizeof *to);
    TRY(put_whole(found, "multiprocessors", &to->multiprocessors));
    to->gpu_slices = (unsigned)whole(found, "gpu_slices", 0);
    to->compute_slices = (unsigned)whole(found, "compute_slices", 0);
    return put_large(found, "memory_mib", &to->memory_mb);
}

/* ---- events ------------------------------------------------------------------------------------------ */

API nvmlEventSetCreate(nvmlEventSet_t *to) {
    TRY(begun(__func__));
    *to = calloc(1, sizeof **to);
    return *to ? NVML_SUCCESS : NVML_UNKNOWN;
}

API nvmlEventSetFree(nvmlEventSet_t set) {
    free(set);
    return begun(__func__);
}

API nvmlDeviceRegisterEvents(nvmlDevice_t handle, unsigned long long types, nvmlEventSet_t set) {
    DEVICE(handle);
    return types == EVENT_XID && set && !json_get(device, "gpu_instance") ? NVML_SUCCESS : NVML_NOT_SUPPORTED;
}

/* Events have a "number" that grows; each is told once to a set, whatever else changes in the file. */
API nvmlEventSetWait_v2(nvmlEventSet_t set, struct event *to, unsigned timeout_ms) {
    TRY(begun(__func__));
    for (unsigned spent = 0;; spent += STEP_MS) {
        const struct json *event = json_at(json_get(state(), "events"), 0);
        while (event && whole(event, "number", 0) <= set->seen) event = event->next;
        if (event) {
            set->seen = whole(event, "number", 0);
            memset(to, 0, sizeof *to);
            to->type = (unsigned long long)whole(event, "type", EVENT_XID);
            to->data = (unsigned long long)whole(event, "xid", 0);
            return put_handle(event, &to->device);
        }
        if (spent >= timeout_ms) return NVML_TIMEOUT;
        pause_ms(STEP_MS);
    }
}
