/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The weights that ship, as `make train` left them, are part of the library. */
#include "model.h"

__asm__(".pushsection .rodata\n"
        ".balign 8\n"
        "fc_shipped_begin:\n"
        ".incbin \"predictor/weights/shipped.fcm\"\n"
        "fc_shipped_end:\n"
        ".popsection\n");

extern const uint8_t fc_shipped_begin[], fc_shipped_end[];

int fc_model_shipped(struct fc_model *model, struct fc_model_problem *problem)
{
    return fc_model_parse(fc_shipped_begin,
                          (size_t)((uintptr_t)fc_shipped_end -
                                   (uintptr_t)fc_shipped_begin),
                          0, model, problem);
}
