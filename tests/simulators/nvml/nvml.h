/* The part of NVML's binary interface that the stand-in has, as nvidia-ml-py 13 calls it. */
#ifndef LOTABOTS_NVML_H
#define LOTABOTS_NVML_H

enum {
    NVML_SUCCESS = 0,
    NVML_UNINITIALIZED = 1,
    NVML_INVALID_ARGUMENT = 2,
    NVML_NOT_SUPPORTED = 3,
    NVML_NOT_FOUND = 6,
    NVML_INSUFFICIENT_SIZE = 7,
    NVML_TIMEOUT = 10,
    NVML_GPU_IS_LOST = 15,
    NVML_UNKNOWN = 999,
};

enum { EVENT_XID = 8, MEMORY_V2 = 0x02000028, FIELD_MEMORY_TEMP = 82, FIELD_RECOVERY_ACTION = 230 };

typedef int nvmlReturn_t;
typedef struct handle *nvmlDevice_t;
typedef struct event_set *nvmlEventSet_t;

struct memory_v1 { unsigned long long total, free, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
struct utilisation { unsigned gpu, memory; };
struct process { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };
struct event { nvmlDevice_t device; unsigned long long type, data; unsigned gpu_instance, compute_instance; };
struct conf_compute { unsigned environment, feature, dev_tools_mode; };
struct attributes {
    unsigned multiprocessors, copy_engines, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices;
    unsigned long long memory_mb;
};
struct pci {
    char legacy_bus_id[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};
struct field {
    unsigned id, scope;
    long long timestamp, latency_us;
    int value_type, returned;
    union { double real; unsigned whole; unsigned long long large; } value;
};

#endif
