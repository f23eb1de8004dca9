/* SPDX-License-Identifier: BSD-3-Clause */
/* plait info: gathers, and prints as JSON. */
#include "info.h"

#include <argp.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli.h"

enum { OPT_JSON = 256 };

static const struct argp_option options[] = {
    { "json", OPT_JSON, NULL, 0, "One JSON object", 0 },
    { 0 }
};

static const char doc[] =
    "Shows the version and how it was built, the transports, the providers of libfabric with their NICs, this "
    "machine and the cores that contexts would get, and the limits that matter."
    "\v"
    "HWLOC_SYNTHETIC or HWLOC_XMLFILE show another machine.\n\n"
    "Examples:\n"
    "  plait info\n"
    "  plait info --json | jq .topology.contexts\n"
    "  PLAIT_PROVIDER=net plait info                 what that would change\n"
    "  taskset -c 1 plait info                       with one core only\n"
    "  HWLOC_SYNTHETIC='numa:4 core:16 pu:2' plait info";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    bool *json = state->input;

    switch (key) {
    case OPT_JSON:
        *json = true;
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "no argument is taken, but there is '%s'", arg);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* ---- gathering ---- */

static int read_topo(struct info_topo *t)
{
    int n;

    memset(t, 0, sizeof(*t));
    t->info = (struct plait_topo_info)PLAIT_TOPO_INFO_INIT;
    if (plait_topo_open(&t->topo) < 0) {
        snprintf(t->why, sizeof(t->why), "%s", plait_error_text());
        return cli_error("%s", t->why);
    }
    plait_topo_get_info(t->topo, &t->info);
    n = plait_topo_get_places(t->topo, NULL, NULL, 0);
    if (n > 0)
        t->places = calloc((size_t)n, sizeof(*t->places));
    if (t->places)
        t->nplaces = plait_topo_get_places(t->topo, NULL, t->places, n);
    return CLI_OK;
}

/* ---- JSON ---- */

static void add_int(struct json_object *o, const char *name, int v)
{
    json_object_object_add(o, name, json_object_new_int(v));
}

/* UINT64_MAX, unlimited, is null. */
static void add_u64(struct json_object *o, const char *name, uint64_t v)
{
    json_object_object_add(o, name, v == UINT64_MAX ? NULL : json_object_new_int64((int64_t)v));
}

static void add_bool(struct json_object *o, const char *name, bool v)
{
    json_object_object_add(o, name, json_object_new_boolean(v));
}

static void add_text(struct json_object *o, const char *name, const char *v)
{
    json_object_object_add(o, name, v ? json_object_new_string(v) : NULL);
}

static struct json_object *transports_json(const struct info *info)
{
    struct json_object *a = json_object_new_array(), *o;
    struct plait_transport_info t;

    for (unsigned i = 0; plait_transport_info(i, &t) == 0; i++) {
        o = json_object_new_object();
        add_text(o, "name", t.name);
        add_bool(o, "available", t.available);
        add_text(o, "why", t.why);
        info_devices_json(info, t.name, o);
        json_object_array_add(a, o);
    }
    return a;
}

static struct json_object *caches_json(const struct info_topo *t)
{
    struct json_object *a = json_object_new_array(), *o;

    for (int i = 0; i < t->info.caches; i++) {
        struct plait_topo_cache c = PLAIT_TOPO_CACHE_INIT;

        if (plait_topo_get_cache(t->topo, i, &c) < 0)
            continue;
        o = json_object_new_object();
        add_int(o, "level", c.level);
        add_text(o, "kind", c.kind == 'd' ? "data" : c.kind == 'i' ? "instruction" : "unified");
        add_int(o, "count", c.count);
        add_int(o, "pus", c.pus);
        add_int(o, "line_bytes", (int)c.line_bytes);
        add_u64(o, "bytes", c.bytes);
        json_object_array_add(a, o);
    }
    return a;
}

static struct json_object *nodes_json(const struct info_topo *t)
{
    struct json_object *a = json_object_new_array(), *o;

    for (int i = 0; i < t->info.nodes; i++) {
        struct plait_topo_node n = PLAIT_TOPO_NODE_INIT;

        if (plait_topo_get_node(t->topo, i, &n) < 0)
            continue;
        o = json_object_new_object();
        add_int(o, "node", n.node);
        add_int(o, "package", n.package);
        add_int(o, "cores", n.cores);
        add_int(o, "cores_allowed", n.cores_allowed);
        add_bool(o, "allowed", n.allowed);
        add_int(o, "mem_node", n.mem_node);
        add_u64(o, "memory", n.memory);
        json_object_array_add(a, o);
    }
    return a;
}

static struct json_object *contexts_json(const struct info_topo *t)
{
    struct json_object *a = json_object_new_array(), *o;

    for (int i = 0; i < t->nplaces; i++) {
        o = json_object_new_object();
        add_int(o, "cpu", t->places[i].pu);
        add_int(o, "core", t->places[i].core);
        add_int(o, "node", t->places[i].node);
        add_int(o, "mem_node", t->places[i].mem_node);
        add_bool(o, "oversubscribed", t->places[i].oversubscribed);
        json_object_array_add(a, o);
    }
    return a;
}

static struct json_object *topo_json(const struct info_topo *t)
{
    struct json_object *o = json_object_new_object();
    const struct plait_topo_info *i = &t->info;

    if (!t->topo) {
        add_text(o, "error", t->why);
        return o;
    }
    add_text(o, "source", i->source);
    add_bool(o, "this_system", i->this_system);
    add_int(o, "packages", i->packages);
    add_int(o, "cores", i->cores);
    add_int(o, "cores_allowed", i->cores_allowed);
    add_int(o, "pus", i->pus);
    add_int(o, "pus_allowed", i->pus_allowed);
    add_int(o, "pus_offline", i->pus_offline);
    add_text(o, "allowed", i->allowed_list);
    add_bool(o, "bound", i->bound);
    add_u64(o, "memory", i->memory);
    json_object_object_add(o, "caches", caches_json(t));
    json_object_object_add(o, "nodes", nodes_json(t));
    json_object_object_add(o, "contexts", contexts_json(t));
    return o;
}

static void add_rlimit(struct json_object *o, const char *name, const struct info_rlimit *r)
{
    struct json_object *l = json_object_new_object();

    add_u64(l, "soft", r->soft);
    add_u64(l, "hard", r->hard);
    json_object_object_add(o, name, l);
}

static struct json_object *limits_json(const struct info_limits *l)
{
    struct json_object *o = json_object_new_object(), *c;

    add_rlimit(o, "nofile", &l->nofile);
    add_rlimit(o, "memlock", &l->memlock);
    add_rlimit(o, "address_space", &l->as);
    add_rlimit(o, "file_size", &l->fsize);
    c = json_object_new_object();
    add_text(c, "path", l->cgroup[0] ? l->cgroup : NULL);
    add_u64(c, "limit", l->cgroup_limit);
    add_u64(c, "usage", l->cgroup[0] ? l->cgroup_usage : UINT64_MAX);
    json_object_object_add(o, "memory_cgroup", c);
    c = json_object_new_object();
    add_u64(c, "total", l->has_shm ? l->shm_total : UINT64_MAX);
    add_u64(c, "free", l->has_shm ? l->shm_free : UINT64_MAX);
    json_object_object_add(o, "dev_shm", c);
    add_bool(o, "membarrier", l->membarrier);
    if (!l->membarrier)
        add_text(o, "membarrier_why", l->membarrier_why);
    return o;
}

static struct json_object *link_json(const struct info_link *l)
{
    struct json_object *o = json_object_new_object();

    if (l->why[0]) {
        add_text(o, "error", l->why);
        return o;
    }
    add_u64(o, "quiet", l->quiet);
    add_u64(o, "busy", l->busy);
    return o;
}

static void print_json(const struct info *i)
{
    struct json_object *o = json_object_new_object();

    add_text(o, "version", plait_version());
    add_text(o, "build", plait_build_options());
    json_object_object_add(o, "transports", transports_json(i));
    json_object_object_add(o, "topology", topo_json(&i->topo));
    json_object_object_add(o, "limits", limits_json(&i->limits));
    json_object_object_add(o, "link_shm_bytes", link_json(&i->link));
    puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
                                               JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(o);
}

int cmd_info(int argc, char **argv)
{
    static const struct argp argp = { options, parse, NULL, doc, NULL, NULL, NULL };
    struct info i = { 0 };
    bool json = false;
    int status;

    argp_parse(&argp, argc, argv, 0, NULL, &json);
    status = read_topo(&i.topo);
    info_read_limits(&i.limits);
    info_measure_link(&i.link);
    if (plait_devices_open(&i.devices) < 0)
        status = cli_plait_error("devices");
    if (json)
        print_json(&i);
    else
        info_print_text(&i);
    plait_devices_close(i.devices);
    free(i.topo.places);
    plait_topo_close(i.topo.topo);
    return status;
}
