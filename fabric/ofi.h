/* SPDX-License-Identifier: BSD-3-Clause */
/* The libfabric transport's objects; for the files of fabric/ and its unit tests. Everything belongs to the thread of the context that
 * owns the hub; nothing blocks, except where a function says so.
 *
 *   hub     one for each context: its devices, its links, what of them has work; the context polls it, not the links
 *   device  one NIC of one provider: fabric, domain, completion queue, event queue, passive endpoint, buffers
 *   link    one peer: an endpoint (FI_EP_MSG), or an address of the device's endpoint (FI_EP_RDM); credits; packets being filled and read
 *   buffer  a packet and the operation that moves it
 */
#ifndef PLI_FABRIC_OFI_H
#define PLI_FABRIC_OFI_H

#include <netinet/in.h>
#include <poll.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <stdbool.h>
#include <string.h>
#include "fabric/lib.h"
#include "fabric/packet.h"
#include "runtime/transport.h"
#include "topo/topo.h"
#include "util/hash.h"
#include "util/list.h"

enum pli_ofi_kind { PLI_OFI_MSG = 1, PLI_OFI_RDM = 2 };

enum pli_ofi_op { PLI_OFI_IDLE, PLI_OFI_RX, PLI_OFI_TX };

struct pli_ofi_link;

struct pli_ofi_buf {
    struct fi_context2 ctx;     /* first: operations are known by it */
    struct pli_list node;       /* a pool's free ones; the operations of a link; what it has received, held */
    struct pli_ofi_link *link;  /* NULL: free; with the provider and RDM: a receive, or what a link has sent that is gone */
    uint8_t *mem;
    void *desc;                 /* of its registration, or NULL */
    uint32_t size, len;
    uint32_t id;                /* its place in hub->bufs: the token of a hold */
    uint32_t holds;             /* records in it that are held */
    enum pli_ofi_op op;
};

/* Buffers of one size, registered in chunks; none is given back before the device is closed. */
struct pli_ofi_pool {
    uint32_t size;
    struct pli_list free;       /* struct pli_ofi_buf, the last used first: it may be in a cache */
    struct pli_list chunks;
};

/* An address in a device's address vector, for all links to it. */
struct pli_ofi_peer {
    struct pli_list node;       /* dev->peers */
    fi_addr_t at;
    uint32_t links;
    uint8_t addr[64];
};

struct pli_ofi_dev {
    struct pli_list node;       /* hub->devs */
    struct pli_ofi_hub *hub;
    enum pli_ofi_kind kind;
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_cq *cq;
    int cq_fd;                  /* RDM: to sleep on */
    struct fid_eq *eq;          /* MSG */
    struct fid_pep *pep;        /* MSG: made when the first peer is to connect */
    struct fid_ep *ep;          /* RDM: of all links */
    struct fid_av *av;          /* RDM */
    struct pli_list peers;      /* RDM: struct pli_ofi_peer, what is in av */
    uint32_t rx_posted;         /* RDM: buffers with the provider, for packets of any link */
    uint32_t rx_promised;       /* RDM: packets that peers have been promised a buffer for, and that have not come */
    uint32_t rx_windows;        /* RDM: the links' windows together, at most what the provider takes */
    uint64_t strangers;         /* RDM: packets that were for no link, or did not fit */
    struct pli_ofi_pool small, big;
    uint32_t cq_size, cq_used;  /* completions that may be there at once; promised to links */
    uint32_t addr_len;
    uint8_t addr[64];           /* where pep, or ep, can be reached */
    char name[96];              /* "provider tcp, lo", for messages */
    bool no_big;                /* no memory for large packets */
    /* Each entry of the completion queue costs the provider tcp two or three system calls, so there it gets no entries for what is
     * received, and few for what is sent. A packet is found by looking at the buffer that it must come into; the descriptors to sleep
     * on are the sockets themselves. */
    bool quiet;
    struct pollfd *pfds;        /* quiet: they are in the hub's epoll while it is parked */
    uint32_t npfds, pfds_cap;
    uint64_t pfds_version;
    bool watched;
};

/* The hub is what the context polls. */
struct pli_ofi_hub {
    struct pli_tr tr;
    struct pli_list devs, links;
    struct pli_list ready;      /* links with packets to deliver, or something to tell */
    struct pli_list dirty;      /* links with records to send at the end of the poll */
    struct pli_ofi_buf **bufs;
    uint32_t nbufs, bufs_cap;
    struct pli_hash_table by_id;/* links, for the packets of RDM endpoints */
    uint32_t waiting;           /* links that are not connected yet: the event queues are looked at in every poll */
    uint32_t greeting;          /* RDM: links whose peer has sent nothing so far: the context does not sleep for long */
    bool hurried;               /* the timer is set for that, not for the deadline */
    uint32_t looks;             /* polls until the next look at the event queues */
    uint32_t empty;             /* polls without a completion */
    uint64_t deadline;          /* ns: the first link that shall be given up, PLI_CLOCK_NEVER: none */
    int epfd, timerfd;
    bool polling;
};

enum pli_ofi_state {
    PLI_OFI_NEW,        /* neither described nor connected */
    PLI_OFI_LISTENING,  /* the peer will ask for a connection */
    PLI_OFI_CONNECTING,
    PLI_OFI_UP,
    PLI_OFI_BROKEN,     /* the endpoint is gone; whoever closed it says why on the control channel, until the deadline */
    PLI_OFI_DEAD,       /* the owner has been told */
};

struct pli_ofi_link {
    struct pli_tr tr;
    struct pli_ofi_hub *hub;
    struct pli_ofi_dev *dev;
    const char *wanted_by;      /* who on this side wants dev's provider and no other, NULL: nobody */
    struct pli_list node;       /* hub->links */
    struct pli_list ready_node, dirty_node;
    enum pli_ofi_state state;
    struct pli_hash_node by_id;
    uint32_t id, tag;           /* what packets to this link must name; both random */
    uint8_t token[16];
    uint32_t peer_id, peer_tag;
    bool described;             /* the peer's description has come */
    bool greet;                 /* RDM: a first packet is to be sent, so that the provider connects */
    bool greeting;              /* RDM: the peer's first packet has not come */
    struct fid_ep *ep;          /* RDM: the device's */
    struct pli_ofi_peer *peer;  /* RDM */
    fi_addr_t peer_addr;        /* RDM */
    uint64_t deadline;          /* ns: of the connection, or of the end; PLI_CLOCK_NEVER */
    char why[256];              /* BROKEN */

    /* sending */
    struct pli_ofi_buf *fill;   /* being filled, or NULL */
    uint32_t fill_records;
    uint32_t tx_next;           /* number of the packet that goes next */
    uint32_t tx_grant, tx_big_from;
    uint32_t tx_flight;         /* packets with the provider */
    uint32_t tx_max;            /* packets that may be */
    bool starved;               /* a send found no space: writable() is owed */
    uint32_t need;              /* bytes of the record that found none */
    bool injected;              /* a packet went without a completion since the last poll */
    uint32_t tx_silent;         /* packets since the last one that has a completion */
    bool reserved;
    bool reserved_cookie;
    struct pli_list ops;        /* buffers with the provider, in order */

    /* receiving */
    struct pli_list posted;     /* buffers with the provider, in order */
    struct pli_list rxq;        /* packets that have come, in order; the first one is being read */
    uint32_t rx_at;             /* offset in it, 0: not begun */
    uint32_t rx_left;           /* records in it still to come */
    uint32_t rx_arrived;        /* packets that have come */
    uint32_t rx_seen;           /* packets whose head has been read */
    uint32_t rx_read;           /* packets that have been read to their end */
    uint32_t rx_posted, rx_told;/* buffers posted in all; of which the peer knows */
    uint32_t rx_big_from;
    uint32_t rx_full;           /* packets that were nearly full: time for larger ones? */
    uint32_t window;            /* buffers that are posted when all is read */
    uint32_t held;              /* packets that are read and held */
    bool rx_data;               /* packets with records came since the peer was told */
    bool rx_wrong;              /* RDM: a packet came whose number cannot be */
    bool in_rx;
    uint64_t holds;             /* records that are held */
    struct pli_list heldq;      /* those packets */
    struct pli_list spare;      /* buffers that have been read, for this link only */
};

static inline struct pli_ofi_link *pli_ofi_link_of(struct pli_tr *tr)
{
    return pli_container_of(tr, struct pli_ofi_link, tr);
}

static inline struct pli_ofi_hub *pli_ofi_hub_of(struct pli_tr *tr)
{
    return pli_container_of(tr, struct pli_ofi_hub, tr);
}

/* The sentence "provider tcp, lo: <what>: <libfabric's reason>" and a code for it (PLAIT_E_NOMEM, NOFILE, SYSTEM). rc: negative, as
 * libfabric returns it. */
int pli_ofi_fail(const char *name, const char *what, long rc);

/* ---- provider.c ---- */

struct pli_ofi_candidate {
    const char *name;
    enum pli_ofi_kind kind;
    const char *needs; /* what it works with; NULL: not known */
};

/* The providers that are tried, the best first; NULL past the last. */
const struct pli_ofi_candidate *pli_ofi_candidate(unsigned i);
/* The one of that name, or a name that is not among them, as one of reliable datagrams. */
struct pli_ofi_candidate pli_ofi_candidate_named(const char *name);
/* All that the provider has here, wherever it is; the caller frees *list. PLAIT_E_UNSUPPORTED with the reason. May take some ms. */
int pli_ofi_find_all(const struct pli_ofi_candidate *c, struct fi_info **list);

/* ---- nic.c ---- */

/* Where the NIC is in this machine. Reads files. */
void pli_ofi_place(const struct fi_info *info, struct pli_topo_nic *nic);
int pli_ofi_node(const struct fi_info *info); /* its NUMA node, -1: not known */

struct pli_ofi_want {
    const char *nic;              /* the one of that name and no other, NULL: any */
    const struct sockaddr *local; /* the control channel's own address, NULL: on this host */
    const struct sockaddr *mask;  /* of its network, NULL: not known */
    int node;                     /* of the context, -1: not known */
    int (*node_of)(const struct fi_info *info);
};

/* The NIC at that address or, in the same network, one that is nearer; else the nearest. NULL: there is none of that name. Pure. */
struct fi_info *pli_ofi_pick(struct fi_info *list, const struct pli_ofi_want *w);
/* The mask of the network that this host's address is in. */
bool pli_ofi_netmask(const struct sockaddr *local, struct sockaddr_storage *mask);
/* "eth0, eth1" */
void pli_ofi_nic_names(const struct fi_info *list, char *buf, size_t size);

/* ---- provider.c ---- */

/* The one provider that is wanted, of the URI (NULL: that names none) or else of PLAIT_PROVIDER; NULL: any. *by: who wants it, "the URI". */
const char *pli_ofi_wanted(const char *uri, const char **by);
/* The endpoint that serves best where this context listens: tries the providers in order (one that is wanted: only that one) until one has an
 * address there. local: the control channel's own address, AF_UNSPEC or NULL: this host. provider: the URI's, or NULL. The caller frees *info.
 * node: the context's, -1: not known. PLAIT_NIC in the environment names the NIC, too.
 * PLAIT_E_UNSUPPORTED with the reasons of each provider, PLAIT_E_INVAL (the one that is wanted). May take some ms. */
int pli_ofi_find_local(const struct sockaddr *local, int node, const char *provider, struct fi_info **info);
/* The same for reaching that address with the provider of that name. */
int pli_ofi_find_peer(const char *provider, enum pli_ofi_kind kind, uint32_t format, const void *addr, size_t len, struct fi_info **info);

/* ---- inventory.c ---- */

/* pli_tr_ops.describe_devices. Any thread; asks each provider, which may take some ms. PLAIT_E_UNSUPPORTED: no libfabric. */
int pli_ofi_inventory(void (*tell)(const struct plait_device_info *d, void *arg), void *arg);

/* ---- device.c ---- */

/* The hub's device for info: an open one of the same provider and domain, or a new one. Takes info over, also on error. */
int pli_ofi_dev_get(struct pli_ofi_dev **dev, struct pli_ofi_hub *hub, struct fi_info *info);
/* Makes it listen, if it does not yet; dev->addr is where. */
int pli_ofi_dev_listen(struct pli_ofi_dev *dev);
/* A quiet device: its sockets are watched by the hub's epoll from now on, or not any more: that costs those who send to them. */
int pli_ofi_dev_watch(struct pli_ofi_dev *dev);
void pli_ofi_dev_unwatch(struct pli_ofi_dev *dev);
/* forked: frees private memory only. */
void pli_ofi_dev_close(struct pli_ofi_dev *dev, bool forked);
/* A free buffer, or NULL with PLAIT_E_NOMEM's or libfabric's sentence. */
struct pli_ofi_buf *pli_ofi_buf_get(struct pli_ofi_dev *dev, bool big);
void pli_ofi_buf_put(struct pli_ofi_dev *dev, struct pli_ofi_buf *buf);

/* ---- sockets.c: of a device over libfabric 1.17's provider tcp; they do nothing with another one ---- */

struct pli_ofi_socket;

bool pli_ofi_is_old_tcp(const struct fi_info *info);
/* It reads a request for a connection from a blocking socket: a stranger who sends half of one would hold up this thread for as long as he
 * likes. What is accepted from now on waits 1 ms at most, a patience that it inherits from the socket that listens. */
void pli_ofi_sockets_hurry(const struct pli_ofi_dev *dev);
/* It forgets who has connected and has not said yet for what, when it is closed. The device's sockets, to be noted before that, NULL: none;
 * and closes those that are still open after it, and frees the list. */
struct pli_ofi_socket *pli_ofi_sockets_note(const struct pli_ofi_dev *dev);
void pli_ofi_sockets_close(struct pli_ofi_socket *noted);

/* ---- hub.c ---- */

extern const struct pli_tr_ops pli_ofi_hub_ops;

int pli_ofi_hub_get(struct pli_ofi_hub **hub, const struct pli_tr_env *env);
int pli_ofi_hub_poll(struct pli_ofi_hub *hub, int budget);
void pli_ofi_hub_park(struct pli_ofi_hub *hub);
bool pli_ofi_hub_ready(struct pli_ofi_hub *hub);
void pli_ofi_hub_unpark(struct pli_ofi_hub *hub);
/* Something is to be delivered, or told, to the link's owner in the next poll. */
static inline void pli_ofi_link_ready(struct pli_ofi_link *link)
{
    if (!pli_list_is_on(&link->ready_node))
        pli_list_push_back(&link->hub->ready, &link->ready_node);
}
/* Something of the link is to be sent at the end of the next poll: there must be one. */
static inline void pli_ofi_link_dirty(struct pli_ofi_link *link)
{
    if (pli_list_is_on(&link->dirty_node) || link->state == PLI_OFI_DEAD)
        return;
    pli_list_push_back(&link->hub->dirty, &link->dirty_node);
    if (link->hub->tr.hot_index < 0 && !link->hub->polling && link->tr.up->wants_poll)
        link->tr.up->wants_poll(link->tr.owner);
}
/* The next state of a link, but for NEW. The hub counts those that wait for their connection, or for the peer's first packet. */
static inline void pli_ofi_link_enter(struct pli_ofi_link *link, enum pli_ofi_state state)
{
    link->hub->waiting -= link->state == PLI_OFI_LISTENING || link->state == PLI_OFI_CONNECTING;
    link->hub->waiting += state == PLI_OFI_LISTENING || state == PLI_OFI_CONNECTING;
    link->hub->greeting -= link->greeting;
    link->greeting = false;
    link->state = state;
}
/* The link is to be given up at that time. */
void pli_ofi_link_deadline(struct pli_ofi_link *link, uint64_t at);
/* Takes what is in the device's completion queue. Calls nobody. */
int pli_ofi_dev_reap(struct pli_ofi_dev *dev);

/* ---- connect.c ---- */

void pli_ofi_describe(struct pli_tr *tr, void *blob, size_t *len, int *fds, int *nfds);
int pli_ofi_connect(struct pli_tr *tr, const void *blob, size_t len, const int *fds, int nfds);
/* Takes what is in the device's event queue. Returns how many events. */
int pli_ofi_dev_events(struct pli_ofi_dev *dev);
/* The endpoint does not work any more. why: a sentence. The owner hears of it after a moment, if the control channel has not said more
 * by then. */
void pli_ofi_link_broke(struct pli_ofi_link *link, const char *why);

/* ---- send.c ---- */

int pli_ofi_send(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, const void *hdr, bool more);
int pli_ofi_reserve(struct pli_tr *tr, bool cookie, uint32_t len, void **data);
void pli_ofi_commit(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, bool more);
void pli_ofi_abandon(struct pli_tr *tr);
void pli_ofi_flush(struct pli_tr *tr);
uint32_t pli_ofi_max_payload(const struct pli_tr *tr);
/* Sends what has gathered, and a grant that is due. all: also while other packets are under way. */
void pli_ofi_link_flush(struct pli_ofi_link *link, bool all);
/* Is there space again for what was refused? A full packet that is in its way goes, if it can. */
bool pli_ofi_make_space(struct pli_ofi_link *link);

/* ---- recv.c ---- */

/* Posts buffers until the link has its window of them. */
int pli_ofi_post(struct pli_ofi_link *link);
/* Gives the endpoint a buffer to receive into. 0, or as libfabric returns it. */
ssize_t pli_ofi_post_buf(struct fid_ep *ep, struct pli_ofi_buf *buf, bool quiet);
/* A quiet device: looks for packets that came. Calls nobody. */
bool pli_ofi_look(struct pli_ofi_link *link);
/* A packet came into buf. Calls nobody. */
void pli_ofi_arrived(struct pli_ofi_link *link, struct pli_ofi_buf *buf);
/* Delivers at most budget records of the link. Returns how many. */
int pli_ofi_deliver(struct pli_ofi_link *link, int budget);
int pli_ofi_hold(struct pli_tr *tr, uint32_t *token);
void pli_ofi_release(struct pli_tr *tr, uint32_t token);
/* Should the peer be told how many packets it may send? */
bool pli_ofi_grant_due(const struct pli_ofi_link *link);

/* ---- rdm.c: a device's endpoint of reliable datagrams ---- */

/* Opens endpoint and address vector; dev->addr is where. What is open when it fails is for pli_ofi_rdm_close(). */
int pli_ofi_rdm_open(struct pli_ofi_dev *dev);
/* Ends the endpoint: after it the provider has none of the buffers. */
void pli_ofi_rdm_close(struct pli_ofi_dev *dev);
/* The link uses the device's endpoint from now on, which has buffers for its packets. */
int pli_ofi_rdm_join(struct pli_ofi_link *link);
/* The link's packets go to that address of addr_len bytes, and the first one is due. PLAIT_E_BADPEER: the provider refuses the address. */
int pli_ofi_rdm_meet(struct pli_ofi_link *link, const void *addr);
/* The link is going: what was promised to it is for others, what it has sent stays with the provider until its completion. */
void pli_ofi_rdm_leave(struct pli_ofi_link *link);
/* Posts a buffer for each packet that may come. That the provider takes no more is no error: the next poll tries again. */
int pli_ofi_rdm_fill(struct pli_ofi_dev *dev);
/* Are there fewer than that? */
static inline bool pli_ofi_rdm_lacks(const struct pli_ofi_dev *dev)
{
    return dev->rx_posted < dev->rx_promised;
}
/* A packet of that many bytes came, for whom it says; who is meant by none is dropped. Calls nobody. */
void pli_ofi_rdm_arrived(struct pli_ofi_dev *dev, struct pli_ofi_buf *buf, uint32_t len);
/* A receive has failed, or what came did not fit. */
void pli_ofi_rdm_lost(struct pli_ofi_dev *dev, struct pli_ofi_buf *buf);
/* Is the packet in buf the one that the link reads next? Packets may come in another order. */
bool pli_ofi_rdm_is_next(const struct pli_ofi_link *link, const struct pli_ofi_buf *buf);

/* ---- ofi.c ---- */

/* The link of that number, or NULL. */
struct pli_ofi_link *pli_ofi_link_find(const struct pli_ofi_hub *hub, uint32_t id);
/* Promises a link of that device more room in the completion queue, for a window that has grown. False: there is none. */
bool pli_ofi_link_widen(struct pli_ofi_link *link, uint32_t window);

/* The owner hears nothing more of the link. */
void pli_ofi_quiet(struct pli_tr *tr);

/* The link uses dev from now on: promises it room in dev's completion queue, and returns what another one has promised. PLAIT_E_NOMEM. */
int pli_ofi_link_move(struct pli_ofi_link *link, struct pli_ofi_dev *dev);

#endif
