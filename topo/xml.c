/* SPDX-License-Identifier: BSD-3-Clause */
/* A look at HWLOC_XMLFILE before hwloc reads it: hwloc is silent about a file that it cannot open or parse
 * and takes the real machine instead, and it crashes on objects that have a cpuset without its
 * complete_cpuset. */
#include "topo/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/err.h"

#define XML_MAX (64u << 20) /* the largest machines known make a few MB */

int pli_topo_bad_xml(const char *file, const char *why)
{
    return pli_fail(PLAIT_E_TOPOLOGY,
                    "HWLOC_XMLFILE=%s: the file is not a complete hwloc topology in XML (%s); "
                    "'lstopo --of xml FILE' writes one",
                    file, why);
}

/* the value of a start tag's attribute, or NULL; the tag ends at end */
static const char *attribute(const char *tag, const char *end, const char *name)
{
    size_t len = strlen(name);
    const char *p;

    for (p = tag; p + len < end; p++)
        if (p[-1] == ' ' && memcmp(p, name, len) == 0 && p[len] == '=')
            return p + len;
    return NULL;
}

static int check_object(const char *file, const char *tag, const char *end)
{
    if (attribute(tag, end, "cpuset") && !attribute(tag, end, "complete_cpuset"))
        return pli_topo_bad_xml(file, "an object has a cpuset, but no complete_cpuset");
    if (attribute(tag, end, "nodeset") && !attribute(tag, end, "complete_nodeset"))
        return pli_topo_bad_xml(file, "an object has a nodeset, but no complete_nodeset");
    return 0;
}

/* text ends with a zero byte */
static int check_objects(const char *file, const char *text)
{
    static const char open_tag[] = "<object ";
    const char *tag = text, *end;
    int rc = 0;

    while (rc == 0 && (tag = strstr(tag, open_tag)) != NULL) {
        tag += sizeof open_tag - 1;
        end = strchr(tag, '>');
        if (!end)
            return pli_topo_bad_xml(file, "it is cut off");
        rc = check_object(file, tag, end);
    }
    return rc;
}

static int read_all(int fd, char *to, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = read(fd, to + done, len - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO; /* it became shorter meanwhile */
        done += (size_t)n;
    }
    return 0;
}

int pli_topo_check_xml(const char *file)
{
    int rc = 0, err, fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *text = NULL;
    struct stat st;

    if (fd < 0)
        return pli_fail(PLAIT_E_TOPOLOGY,
                        "HWLOC_XMLFILE=%s: cannot open the file: %s; unset the variable to use "
                        "this machine's topology",
                        file, strerror(errno));
    if (fstat(fd, &st) < 0)
        rc = pli_topo_bad_xml(file, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = pli_topo_bad_xml(file, "it is not a regular file");
    else if (st.st_size == 0)
        rc = pli_topo_bad_xml(file, "it is empty");
    else if (st.st_size > XML_MAX)
        rc = pli_topo_bad_xml(file, "it is larger than 64 MiB");
    if (rc < 0)
        goto out;
    text = calloc(1, (size_t)st.st_size + 1);
    if (!text) {
        rc = pli_fail(PLAIT_E_NOMEM, "HWLOC_XMLFILE=%s: out of memory", file);
        goto out;
    }
    err = read_all(fd, text, (size_t)st.st_size);
    rc = err ? pli_topo_bad_xml(file, strerror(err)) : check_objects(file, text);
out:
    free(text);
    close(fd);
    return rc;
}
