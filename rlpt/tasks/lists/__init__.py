"""Lists of symbols: copying, ordering, counting."""

from rlpt.tasks.lists import reverse as reverse
from rlpt.tasks.lists import sort as sort
