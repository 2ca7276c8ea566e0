/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "frontend.h"

int main(int argc, char **argv)
{
    return fc_front_main(argc, argv);
}
