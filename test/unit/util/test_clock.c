/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <limits.h>

#include "util/clock.h"

Test(clock, does_not_go_back)
{
    uint64_t last = pli_clock_now();
    int i;

    cr_assert_gt(last, 0);
    for (i = 0; i < 10000; i++) {
        uint64_t now = pli_clock_now();

        cr_assert_geq(now, last);
        last = now;
    }
}

Test(clock, fake_stands_still)
{
    uint64_t real = pli_clock_now();

    pli_clock_fake_start(5);
    cr_assert_eq(pli_clock_now(), 5);
    cr_assert_eq(pli_clock_now(), 5);
    pli_clock_fake_advance(7 * PLI_NS_PER_S);
    cr_assert_eq(pli_clock_now(), 5 + 7 * PLI_NS_PER_S);
    pli_clock_fake_stop();
    cr_assert_geq(pli_clock_now(), real);
}

Test(clock, after_saturates)
{
    cr_assert_eq(pli_clock_after(10, 5), 15);
    cr_assert_eq(pli_clock_after(10, PLI_CLOCK_NEVER), PLI_CLOCK_NEVER);
    cr_assert_eq(pli_clock_after(10, PLI_CLOCK_NEVER - 10), PLI_CLOCK_NEVER);
    cr_assert_eq(pli_clock_after(10, PLI_CLOCK_NEVER - 11), PLI_CLOCK_NEVER - 1);
    cr_assert_eq(pli_clock_after(PLI_CLOCK_NEVER, 0), PLI_CLOCK_NEVER);
}

Test(clock, poll_timeout_rounds_up)
{
    cr_assert_eq(pli_clock_poll_timeout(100, 100), 0);
    cr_assert_eq(pli_clock_poll_timeout(100, 7), 0);
    cr_assert_eq(pli_clock_poll_timeout(100, 101), 1);
    cr_assert_eq(pli_clock_poll_timeout(0, PLI_NS_PER_MS), 1);
    cr_assert_eq(pli_clock_poll_timeout(0, PLI_NS_PER_MS + 1), 2);
    cr_assert_eq(pli_clock_poll_timeout(0, PLI_CLOCK_NEVER - 1), INT_MAX);
    cr_assert_eq(pli_clock_poll_timeout(0, PLI_CLOCK_NEVER), -1);
}
