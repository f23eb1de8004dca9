/* SPDX-License-Identifier: BSD-3-Clause */
/* The state machines of links, sessions and connections: tables with a pure step function. */
#ifndef PLI_RUNTIME_STATE_H
#define PLI_RUNTIME_STATE_H

/* ---- a connection ----
 * FIN: no new requests or one-way messages from that side. DONE: nothing at all from that side. A side sends DONE when both FINs have
 * passed and it is quiet: nothing queued, no reply awaited, no reply owed. */
enum pli_conn_state {
    PLI_CONN_OPENING,
    PLI_CONN_OPEN,
    PLI_CONN_FIN_SENT,  /* closed here, the peer has not answered */
    PLI_CONN_DRAINING,  /* both FINs have passed, replies are outstanding */
    PLI_CONN_DONE_SENT, /* quiet here, the peer is not */
    PLI_CONN_DONE_RCVD, /* the peer is quiet, this side is not */
    PLI_CONN_CLOSED,
    PLI_CONN_STATES
};

enum pli_conn_event {
    PLI_CEV_OPENED,   /* both sides know each other's channel */
    PLI_CEV_CLOSE,    /* the user closes */
    PLI_CEV_RX_FIN,
    PLI_CEV_RX_DONE,
    PLI_CEV_QUIET,
    PLI_CEV_ABORT,    /* here: plait_conn_abort(), linger, context destroyed */
    PLI_CEV_RX_ABORT,
    PLI_CEV_FAIL,     /* the link is lost, or the peer broke the protocol */
    PLI_CONN_EVENTS
};

#define PLI_STEP_WRITTEN 0x80000000u /* in the actions of every entry that was written on purpose */

#define PLI_ACT_OPEN 0x01u       /* tell the user that it is open */
#define PLI_ACT_FIN 0x02u        /* send FIN */
#define PLI_ACT_DONE 0x04u       /* send DONE */
#define PLI_ACT_ABORT 0x08u      /* send ABORT, keep the channel number until DONE or ABORT answers it */
#define PLI_ACT_ANSWER 0x10u     /* answer an ABORT with DONE */
#define PLI_ACT_END 0x20u        /* complete what is pending, tell the user that it is closed */
#define PLI_ACT_REFUSE_CALL 0x40u/* the user's call returns PLAIT_E_CLOSED */
#define PLI_ACT_BREACH 0x80u     /* the peer broke the protocol */
#define PLI_ACT_LINGER 0x100u    /* keep the channel number until the peer's DONE: ours has been sent, so no ABORT may follow */

/* ---- a session ---- */
enum pli_session_state {
    PLI_SES_LINKING,  /* client: the link to the listener is being made */
    PLI_SES_ASKING,   /* client: SESSION_OPEN sent */
    PLI_SES_ASKED,    /* server: on_session has been or is being called */
    PLI_SES_JOINING,  /* client: accepted, connections are being opened */
    PLI_SES_OPEN,
    PLI_SES_CLOSING,  /* connections are being closed */
    PLI_SES_CLOSED,
    PLI_SESSION_STATES
};

enum pli_session_event {
    PLI_SEV_LINKED,    /* client: the link is up */
    PLI_SEV_ACCEPT,    /* client: SESSION_ACCEPT came; server: the user accepts */
    PLI_SEV_REJECT,    /* client: SESSION_REJECT came; server: the user rejects */
    PLI_SEV_CONNS_UP,  /* client: every connection is open */
    PLI_SEV_CLOSE,     /* the user closes */
    PLI_SEV_CONNS_DOWN,/* no connection is left and none can come */
    PLI_SEV_FAIL,      /* a link, a connection's opening or the time-out failed */
    PLI_SESSION_EVENTS
};

#define PLI_SACT_ASK 0x01u       /* send SESSION_OPEN */
#define PLI_SACT_JOIN 0x02u      /* open the connections */
#define PLI_SACT_ANSWER 0x04u    /* send SESSION_ACCEPT or SESSION_REJECT */
#define PLI_SACT_OPEN 0x08u      /* tell the user that it is open */
#define PLI_SACT_CLOSE 0x10u     /* close every connection in order */
#define PLI_SACT_ABORT 0x20u     /* abort every connection */
#define PLI_SACT_LEAVE 0x40u     /* tell the peer with SESSION_CLOSE */
#define PLI_SACT_END 0x80u       /* tell the user that it is closed */
#define PLI_SACT_REFUSE_CALL 0x100u
#define PLI_SACT_BREACH 0x200u

/* ---- a link ---- */
enum pli_link_state {
    PLI_LINK_MEETING,   /* client: the helper thread looks for the listener */
    PLI_LINK_GREETING,  /* client: HELLO sent, waiting for HELLO_ACK */
    PLI_LINK_ATTACHING, /* server: HELLO_ACK sent; client: TR_CONNECT sent */
    PLI_LINK_UP,
    PLI_LINK_DOWN,
    PLI_LINK_STATES
};

enum pli_link_event {
    PLI_LEV_MET,        /* client: connected */
    PLI_LEV_ARRIVED,    /* server: HELLO came; a link is born GREETING there */
    PLI_LEV_HELLO_ACK,
    PLI_LEV_TR_CONNECT,
    PLI_LEV_TR_UP,
    PLI_LEV_LOST,       /* end of file, error, refusal, time-out, protocol error, BYE */
    PLI_LINK_EVENTS
};

#define PLI_LACT_HELLO 0x01u     /* send HELLO */
#define PLI_LACT_ACK 0x02u       /* choose a transport, send HELLO_ACK */
#define PLI_LACT_CONNECT 0x04u   /* attach the peer's side, send TR_CONNECT */
#define PLI_LACT_ATTACH 0x08u    /* attach the peer's side, send TR_UP */
#define PLI_LACT_UP 0x10u        /* tell who waits */
#define PLI_LACT_DOWN 0x20u      /* tell who waits and who uses it */
#define PLI_LACT_BREACH 0x40u

struct pli_step {
    unsigned next;    /* state */
    unsigned actions; /* in the order of their bits */
};

/* Pure; total: every state has an entry for every event, and what cannot happen is named BREACH (the peer's fault), REFUSE_CALL
 * (the user's), or stays without action (a late echo of something that has ended). */
struct pli_step pli_conn_step(enum pli_conn_state state, enum pli_conn_event event);
struct pli_step pli_session_step(enum pli_session_state state, enum pli_session_event event);
struct pli_step pli_link_step(enum pli_link_state state, enum pli_link_event event);

const char *pli_conn_state_name(unsigned state);
const char *pli_session_state_name(unsigned state);
const char *pli_link_state_name(unsigned state);

#endif
