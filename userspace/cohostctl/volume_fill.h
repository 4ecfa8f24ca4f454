/* SPDX-License-Identifier: MIT */
/* `volume fill`: a volume that was made with `absent yes`, from a block device. */
#ifndef CH_CTL_VOLUME_FILL_H
#define CH_CTL_VOLUME_FILL_H

#include "cohostctl/cmd.h"

extern const struct ch_ctl_key ch_ctl_volume_fill_keys[];
int ch_ctl_volume_fill(struct ch_cmd *cmd);

#endif
