/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file version.h
 * @brief The version of the headers and of the library, and what this build can do.
 */
#ifndef PLAIT_VERSION_H
#define PLAIT_VERSION_H

#include <stddef.h>
#include <plait/status.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLAIT_VERSION_MAJOR 0
#define PLAIT_VERSION_MINOR 1
#define PLAIT_VERSION_PATCH 0

/** The library's version, "0.1.0". Any thread, callbacks too. */
PLAIT_API const char *plait_version(void);
/** How the library was built, one line: compiler, sanitizers, PMIx, debug checks. */
PLAIT_API const char *plait_build_options(void);

/** A transport of this build. */
struct plait_transport_info {
    const char *name; /**< "shm", "ofi" */
    int available;    /**< nonzero: can be used here */
    const char *why;  /**< one sentence: what it is used for, or why it cannot be */
};
/** Describes transport i (0, 1, ...). @return 0, or PLAIT_E_NOTFOUND past the last. Never blocks. Any thread. The
 *  strings are static or belong to the calling thread until its next call. */
PLAIT_API int plait_transport_info(unsigned i, struct plait_transport_info *info);

/** The devices of this host that transports have looked for, as they were at that time. */
struct plait_devices;

/** A device, or a provider of libfabric that has none here; start from PLAIT_DEVICE_INFO_INIT. */
struct plait_device_info {
    size_t size;           /**< in: sizeof(struct plait_device_info) */
    const char *transport; /**< "ofi" */
    const char *library;   /**< what the transport works with: "libfabric 1.17" */
    const char *provider;  /**< of that library: "tcp", "verbs" */
    const char *kind;      /**< its endpoints: "MSG", which are connected, or "RDM", reliable datagrams */
    int usable;            /**< nonzero: links can use it here */
    int chosen;            /**< nonzero: new links do, at the NIC whose address the connection has */
    const char *nic;       /**< "eth0", "mlx5_0"; NULL: there is none */
    const char *address;   /**< "192.0.2.7"; NULL: none, or none to read */
    int node;              /**< NUMA node that the NIC is near to; -1: not known, as of lo and of virtual devices */
    const char *cpus;      /**< CPUs that it is near to, "0-7,16-23"; NULL: not known */
    const char *why;       /**< why the provider is chosen, or is not, or cannot be used */
};
#define PLAIT_DEVICE_INFO_INIT { sizeof(struct plait_device_info), NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, -1, NULL, NULL }

/**
 * Looks for devices: asks each provider of libfabric that plait would use, in order of preference. PLAIT_PROVIDER in the environment
 * is respected, as by new links. A transport that cannot be used, or that needs no device, has none in the list.
 * @param[out] devices  the list; the caller owns it and closes it. NULL on failure.
 * @return 0, PLAIT_E_INVAL (NULL), PLAIT_E_NOMEM. Blocks while providers look at their devices: some ms, with libfabric's own time to load
 *         at the first call in a process. Any thread; from callbacks it is allowed but slow.
 */
PLAIT_API int plait_devices_open(struct plait_devices **devices);
/** How many there are: one for each NIC and address of a provider, and one for each provider without; those of one provider lie together.
 *  Never blocks. Any thread, callbacks too. */
PLAIT_API unsigned plait_devices_count(const struct plait_devices *devices);
/**
 * Describes device i (0, 1, ...).
 * @param[in,out] info  size is read, the rest is filled; its strings are valid until the list is closed.
 * @return 0, PLAIT_E_INVAL (NULL, size), PLAIT_E_NOTFOUND past the last. Never blocks. Any thread, callbacks too.
 */
PLAIT_API int plait_devices_get(const struct plait_devices *devices, unsigned i, struct plait_device_info *info);
/** Frees the list and its strings; NULL is allowed. Never blocks. Any thread, callbacks too. */
PLAIT_API void plait_devices_close(struct plait_devices *devices);

#ifdef __cplusplus
}
#endif
#endif
