"""Lists of symbols: copying, ordering, counting, sums."""

from rlpt.tasks.lists import copy as copy
from rlpt.tasks.lists import count as count
from rlpt.tasks.lists import cumulative_sum as cumulative_sum
from rlpt.tasks.lists import modular_sum as modular_sum
from rlpt.tasks.lists import reverse as reverse
from rlpt.tasks.lists import rotate as rotate
from rlpt.tasks.lists import sort as sort
from rlpt.tasks.lists import unique as unique
