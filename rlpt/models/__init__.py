"""The policy on Megatron-Core."""

from rlpt.distributed.device import import_megatron_quietly

import_megatron_quietly()
