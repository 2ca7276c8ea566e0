/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fc-ask IP PORT VERB [SECONDS]: puts a question to a program in a guest
 * and prints the answer's JSON.  The question carries a number of its own
 * and is repeated until that number comes back, so that neither a lost
 * datagram nor a migration in between matters.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REPEAT_MS 250

int main(int argc, char **argv)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    char ask[64], id[32], reply[2048];
    int fd, seconds = 30;
    time_t end;

    if (argc < 4 || argc > 5 ||
        inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
        fprintf(stderr, "usage: fc-ask IP PORT VERB [SECONDS]\n");
        return 2;
    }
    to.sin_port = htons((unsigned short)atoi(argv[2]));
    if (argc == 5)
        seconds = atoi(argv[4]);
    snprintf(id, sizeof id, "%ld.%ld", (long)time(NULL), (long)getpid());
    snprintf(ask, sizeof ask, "%.20s %s", argv[3], id);
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0) {
        perror("fc-ask: socket");
        return 1;
    }
    for (end = time(NULL) + seconds; time(NULL) <= end;) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};

        (void)!sendto(fd, ask, strlen(ask), 0, (struct sockaddr *)&to,
                      sizeof to);
        while (poll(&pfd, 1, REPEAT_MS) > 0) {
            ssize_t n = recv(fd, reply, sizeof reply - 1, 0);
            char *json;

            if (n <= 0)
                break;
            reply[n] = 0;
            json = strchr(reply, ' ');
            if (!json)
                continue;
            *json++ = 0;
            if (strcmp(reply, id))
                continue;
            fputs(json, stdout);
            return 0;
        }
    }
    fprintf(stderr, "fc-ask: no answer to '%s' from %s port %s in %d s\n",
            argv[3], argv[1], argv[2], seconds);
    return 1;
}
