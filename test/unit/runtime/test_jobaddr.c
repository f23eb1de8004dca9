/* SPDX-License-Identifier: BSD-3-Clause */
/* Which address a rank publishes: routes, interfaces, and what the user wants. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plait/status.h"
#include "runtime/jobaddr.h"
#include "util/err.h"

#define HEAD "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
#define ZERO "00000000000000000000000000000000"

static struct pli_job_if make(const char *name, const char *addr)
{
    struct pli_job_if i = { .up = true, .family = strchr(addr, ':') ? AF_INET6 : AF_INET };

    snprintf(i.name, sizeof i.name, "%s", name);
    i.loopback = strcmp(name, "lo") == 0;
    inet_pton(i.family, addr, i.addr);
    return i;
}

static struct pli_job_if ifs[8];
static struct pli_job_routes routes;

static void set_up(void)
{
    ifs[0] = make("lo", "127.0.0.1");
    ifs[1] = make("usb0", "169.254.7.7");
    ifs[2] = make("eth0", "10.1.2.3");
    ifs[3] = make("ib0", "10.9.2.3");
    ifs[4] = make("lo", "::1");
    ifs[5] = make("eth0", "fe80::1");
    ifs[6] = make("eth0", "fd00::3");
    ifs[7] = make("ib0", "fd09::3");
    memset(&routes, 0, sizeof routes);
}

TestSuite(jobaddr, .init = set_up);

static void expect_choice(const char *want, const char *host)
{
    char got[PLI_JOB_ADDR_TEXT] = "";

    cr_expect(eq(int, pli_job_addr_choose(got, ifs, 8, &routes, want), 0), "%s: %s", want ? want : "",
              pli_err_text());
    cr_expect(eq(str, got, (char *)host));
}

static void expect_error(const char *want, int code, const char *words)
{
    char got[PLI_JOB_ADDR_TEXT];

    cr_expect(eq(int, pli_job_addr_choose(got, ifs, 8, &routes, want), code), "%s", want ? want : "");
    cr_expect(strstr(pli_err_text(), words) != NULL, "'%s' lacks '%s'", pli_err_text(), words);
}

Test(jobaddr, routes)
{
    pli_job_routes_parse(&routes,
                         HEAD "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
                              "wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
                              "eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
                              "down0\t00000000\t010200C0\t0002\t0\t0\t0\t00000000\t0\t0\t0\n"
                              "half0\t00000000\t010200C0\t0003\t0\t0\t0\t00000080\t0\t0\t0\n",
                         "fd000000000000000000000000000000 40 " ZERO " 00 " ZERO
                         " 00000100 00000001 00000000 00000001 eth1\n"
                         ZERO " 00 " ZERO " 00 " ZERO " ffffffff 00000001 00000000 00200200       lo\n"
                         ZERO " 00 " ZERO " 00 fe800000000000000000000000000001"
                         " 00000400 00000001 00000000 00000003 eth0\n");
    cr_expect(eq(str, routes.v4, "eth0"));
    cr_expect(eq(str, routes.v6, "eth0"));
}

Test(jobaddr, no_routes)
{
    pli_job_routes_parse(&routes, NULL, NULL);
    cr_expect(eq(str, routes.v4, ""));
    pli_job_routes_parse(&routes, HEAD, "");
    cr_expect(eq(str, routes.v4, ""));
    pli_job_routes_parse(&routes, "garbage\n\n\nanaverylonginterfacename 00000000 0 0003 0 0 0 00000000", ZERO);
    cr_expect(eq(str, routes.v4, ""));
    cr_expect(eq(str, routes.v6, ""));
}

Test(jobaddr, first)
{
    expect_choice(NULL, "10.1.2.3");
    expect_choice("", "10.1.2.3");
    ifs[2].up = false;
    expect_choice(NULL, "10.9.2.3");
    ifs[3].up = false;
    expect_choice(NULL, "fd00::3");
}

Test(jobaddr, default_route)
{
    strcpy(routes.v4, "ib0");
    strcpy(routes.v6, "eth0");
    expect_choice(NULL, "10.9.2.3");
    ifs[3].up = false;
    expect_choice(NULL, "fd00::3");
    strcpy(routes.v6, "lo"); /* never */
    expect_choice(NULL, "10.1.2.3");
}

Test(jobaddr, wanted)
{
    strcpy(routes.v4, "eth0");
    expect_choice("ib0", "10.9.2.3");
    expect_choice("lo", "127.0.0.1");
    expect_choice("10.9.0.0/16", "10.9.2.3");
    expect_choice("10.0.0.0/13", "10.1.2.3");
    expect_choice("10.8.0.0/15", "10.9.2.3");
    expect_choice("10.9.2.3", "10.9.2.3");
    expect_choice("0.0.0.0/0", "127.0.0.1");
    expect_choice("fd09::/64", "fd09::3");
    expect_choice("fd00::3", "fd00::3");
}

Test(jobaddr, wanted_wrong)
{
    expect_error("10.1.2.4", PLAIT_E_UNREACHABLE, "10.1.2.4 fits no address of an interface that is up here");
    expect_error("10.1.2.4", PLAIT_E_UNREACHABLE, "(lo 127.0.0.1, eth0 10.1.2.3, ");
    expect_error("ib1", PLAIT_E_UNREACHABLE, PLI_JOB_ADDR_ENV "=ib1");
    expect_error("usb0", PLAIT_E_UNREACHABLE, "usb0");
    expect_error("192.168.0.0/16", PLAIT_E_UNREACHABLE, "an interface or a network");
    expect_error("fe80::1", PLAIT_E_UNREACHABLE, "fe80::1");
    expect_error("10.1.2.0/33", PLAIT_E_INVAL, "10.1.2.0/33");
    expect_error("10.1.2.0/", PLAIT_E_INVAL, "10.1.2.0/");
    expect_error("10.1.2.0/8x", PLAIT_E_INVAL, "10.1.2.0/8x");
    expect_error("eth0/24", PLAIT_E_INVAL, "eth0/24");
    expect_error("an-interface-name-that-is-too-long", PLAIT_E_INVAL, "neither an interface");
    expect_error("0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000", PLAIT_E_INVAL,
                 "nor a network");
}

Test(jobaddr, nothing_to_choose)
{
    char got[PLI_JOB_ADDR_TEXT];

    cr_expect(eq(int, pli_job_addr_choose(got, ifs, 2, &routes, NULL), PLAIT_E_UNREACHABLE));
    cr_expect(strstr(pli_err_text(), "(there is: lo 127.0.0.1)") != NULL, "%s", pli_err_text());
    cr_expect(strstr(pli_err_text(), PLI_JOB_ADDR_ENV) != NULL, "%s", pli_err_text());
    cr_expect(eq(int, pli_job_addr_choose(got, ifs, 0, &routes, NULL), PLAIT_E_UNREACHABLE));
    cr_expect(strstr(pli_err_text(), "(there is: none)") != NULL, "%s", pli_err_text());
}

Test(jobaddr, this_machine)
{
    char got[PLI_JOB_ADDR_TEXT];

    setenv(PLI_JOB_ADDR_ENV, "lo", 1);
    cr_expect(pli_job_addr_is_set());
    if (pli_job_addr(got) == 0) /* nobody promises that the loopback is up */
        cr_expect(strcmp(got, "127.0.0.1") == 0 || strcmp(got, "::1") == 0, "%s", got);
    else
        cr_expect(strstr(pli_err_text(), PLI_JOB_ADDR_ENV "=lo") != NULL, "%s", pli_err_text());
    setenv(PLI_JOB_ADDR_ENV, "", 1);
    cr_expect(not(pli_job_addr_is_set()));
}
