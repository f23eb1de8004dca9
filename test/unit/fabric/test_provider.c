/* SPDX-License-Identifier: BSD-3-Clause */
/* libfabric is loaded when it is needed, and which of its providers is taken. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <signal.h>
#include <sys/wait.h>
#include "ofi_util.h"

TestSuite(ofi_provider, .timeout = 60);

/* What the library's dlopen() gives, in place of libfabric. NULL: libfabric */
static const char *instead;

void *dlopen(const char *name, int flags);

void *dlopen(const char *name, int flags)
{
    void *(*next)(const char *, int);
    void *p = dlsym(RTLD_NEXT, "dlopen");

    memcpy(&next, &p, sizeof next);
    return next(instead && name && strstr(name, "libfabric") ? instead : name, flags);
}

static void error_says(const char *word)
{
    cr_assert_not_null(strstr(plait_error_text(), word), "'%s' does not say '%s'", plait_error_text(), word);
}

Test(ofi_provider, no_libfabric)
{
    struct fi_info *info;
    struct side s;

    instead = "/nonexistent/libfabric.so.1";
    cr_assert_null(pli_fi_lib());
    error_says("libfabric cannot be loaded");
    error_says("/nonexistent");
    error_says("install");
    instead = NULL;
    for (int i = 0; i < 2; i++) { /* it is not tried again, and says the same */
        cr_assert_null(pli_fi_lib());
        cr_assert_eq(pli_ofi_ops.probe(), PLAIT_E_UNSUPPORTED);
        error_says("libfabric cannot be loaded");
        cr_assert_eq(pli_ofi_find_local(NULL, -1, NULL, &info), PLAIT_E_UNSUPPORTED);
        cr_assert_eq(side_try_create(&s, NULL), PLAIT_E_UNSUPPORTED);
        error_says("libfabric cannot be loaded");
        side_close_hub(&s);
    }
}

Test(ofi_provider, another_library_of_that_name)
{
    instead = "libm.so.6";
    cr_assert_eq(pli_ofi_ops.probe(), PLAIT_E_UNSUPPORTED);
    error_says("fi_getinfo");
}

/* ---- signal handlers ---- */

static void own_handler(int sig)
{
    (void)sig;
}

#define RESTORER 0x04000000 /* libc's own matter */

Test(ofi_provider, no_signal_handler_is_changed)
{
    struct sigaction before[NSIG], after, own = { .sa_handler = own_handler, .sa_flags = SA_RESTART };
    stack_t stack_before, stack_after;
    sigset_t mask_before, mask_after;
    struct fi_info *info;

    cr_assert_eq(sigaction(SIGUSR1, &own, NULL), 0);
    cr_assert_eq(sigaction(SIGTERM, &own, NULL), 0);
    for (int i = 1; i < NSIG; i++)
        if (sigaction(i, NULL, &before[i]) < 0)
            before[i].sa_handler = SIG_ERR;
    sigaltstack(NULL, &stack_before);
    sigprocmask(SIG_BLOCK, NULL, &mask_before);
    cr_assert_not_null(pli_fi_lib(), "%s", plait_error_text());
    cr_assert_eq(pli_ofi_find_local(NULL, -1, NULL, &info), 0, "%s", plait_error_text());
    pli_fi_lib()->freeinfo(info);
    for (int i = 1; i < NSIG; i++) {
        if (before[i].sa_handler == SIG_ERR)
            continue;
        cr_assert_eq(sigaction(i, NULL, &after), 0);
        cr_assert_eq(after.sa_handler, before[i].sa_handler, "signal %d", i);
#ifdef __SANITIZE_THREAD__
        continue; /* it puts in flags and a mask of its own */
#endif
        cr_assert_eq((after.sa_flags ^ before[i].sa_flags) & ~RESTORER, 0, "signal %d", i);
        cr_assert_eq(memcmp(&after.sa_mask, &before[i].sa_mask, 8), 0, "signal %d", i);
    }
    sigaltstack(NULL, &stack_after);
    cr_assert_eq(stack_after.ss_sp, stack_before.ss_sp);
    sigprocmask(SIG_BLOCK, NULL, &mask_after);
    cr_assert_eq(memcmp(&mask_before, &mask_after, 8), 0);
}

/* ---- the choice ---- */

Test(ofi_provider, plait_provider_that_does_not_exist)
{
    struct side s;

    setenv("PLAIT_PROVIDER", "nonsense", 1);
    cr_assert_eq(pli_ofi_ops.probe(), PLAIT_E_INVAL);
    error_says("provider nonsense");
    error_says("not installed");
    cr_assert_eq(side_try_create(&s, NULL), PLAIT_E_INVAL);
    error_says("provider nonsense");
    side_close_hub(&s);
}

Test(ofi_provider, plait_provider_without_its_device)
{
    if (access("/sys/class/infiniband", F_OK) == 0)
        cr_skip_test("there is an RDMA device");
    setenv("PLAIT_PROVIDER", "verbs", 1);
    cr_assert_eq(pli_ofi_ops.probe(), PLAIT_E_INVAL);
    error_says("provider verbs");
    error_says("no device");
}

Test(ofi_provider, odd_values_of_plait_provider)
{
    static const char *const odd[] = { " ", ";", "^tcp", "tcp;", ";tcp", "%s%n", "tcp;tcp;tcp", "off_nothing" };
    char endless[5000];
    struct fi_info *info;

    memset(endless, 'x', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    setenv("PLAIT_PROVIDER", endless, 1);
    cr_assert_eq(pli_ofi_ops.probe(), PLAIT_E_INVAL);
    error_says("provider xxx");
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        int rc;

        setenv("PLAIT_PROVIDER", odd[i], 1);
        rc = pli_ofi_find_local(NULL, -1, NULL, &info);
        cr_assert(rc == 0 || rc == PLAIT_E_INVAL, "'%s': %d", odd[i], rc);
        if (rc == 0)
            pli_fi_lib()->freeinfo(info);
    }
    setenv("PLAIT_PROVIDER", "", 1); /* as if it were not set */
    cr_assert_eq(pli_ofi_ops.probe(), 0, "%s", plait_error_text());
}

static void address_is(const struct fi_info *info, const struct sockaddr_in *local)
{
    const struct sockaddr_in *at = info->src_addr;

    cr_assert_eq(info->addr_format, FI_SOCKADDR_IN);
    cr_assert_not_null(at);
    cr_assert_eq(at->sin_addr.s_addr, local->sin_addr.s_addr, "it is at %s", inet_ntoa(at->sin_addr));
}

Test(ofi_provider, the_local_address_picks_the_device)
{
    struct ifaddrs *all, *i;
    unsigned n = 0;

    setenv("PLAIT_PROVIDER", "tcp", 1);
    cr_assert_eq(getifaddrs(&all), 0);
    for (i = all; i; i = i->ifa_next) {
        struct fi_info *info;

        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || !(i->ifa_flags & IFF_UP))
            continue;
        cr_assert_eq(pli_ofi_find_local(i->ifa_addr, -1, NULL, &info), 0, "%s: %s", i->ifa_name, plait_error_text());
        address_is(info, (const struct sockaddr_in *)(void *)i->ifa_addr);
        cr_assert_str_eq(info->domain_attr->name, i->ifa_name);
        pli_fi_lib()->freeinfo(info);
        n++;
    }
    freeifaddrs(all);
    cr_assert_gt(n, 0);
}

Test(ofi_provider, local_addresses_of_other_families_are_no_harm)
{
    struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    struct sockaddr un = { .sa_family = AF_UNIX }, none = { .sa_family = AF_UNSPEC }, odd = { .sa_family = 200 };
    const struct sockaddr *all[] = { (const struct sockaddr *)(void *)&six, &un, &none, &odd, NULL };
    struct fi_info *info;

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        int rc = pli_ofi_find_local(all[i], -1, NULL, &info);

        if (i > 0)
            cr_assert_eq(rc, 0, "%s", plait_error_text());
        if (rc == 0)
            pli_fi_lib()->freeinfo(info);
    }
}

/* An address that this host does not have: an error, or another device, but no crash. */
Test(ofi_provider, an_address_of_another_host)
{
    struct sockaddr_in far = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0xc0000201) };
    struct fi_info *info;
    int rc = pli_ofi_find_local((const struct sockaddr *)(void *)&far, -1, NULL, &info);

    if (rc == 0)
        pli_fi_lib()->freeinfo(info);
    else
        error_says("tcp:");
}

/* All links of a context that take the same way share one device. */
Test(ofi_provider, one_device_for_many_links)
{
    struct side a, b, c;

    setenv("PLAIT_PROVIDER", "tcp", 1);
    side_create(&a, NULL);
    side_create(&b, &a);
    side_create(&c, &a);
    sides_meet(&b, &a); /* within one context, too */
    cr_assert_eq(pli_list_count(&pli_ofi_hub_of(a.hub)->devs), 1);
    sides_talk(&a, &b);
    side_destroy(&c);
    side_destroy(&b);
    SIDES_UNTIL(&a, &a, a.failed);
    cr_assert_eq(a.code, PLAIT_E_PEERDIED, "%s", a.text);
    side_destroy(&a);
    side_close_hub(&a);
}
