/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FRONTEND_H
#define FC_FRONTEND_H

/* The whole xl front end; the exit status. Usually does not return. */
int fc_front_main(int argc, char **argv);

#endif
